-- What: text in the shape of personal data: an e-mail address, a phone, card or social security number, an address on
--   the internet.
-- Why: what a teacher recites or makes up of people must not be published or trained on.
-- Threshold: shapes only, so made-up data counts as well. Let pass: names at example.com, .org and .net, 555 numbers,
--   addresses of private networks; and what belongs to a service and not to a person: toll-free numbers (North America's
--   8xx, international 800 and 808, Europe's 116), a number or address named as a hotline's, a switchboard's or poison
--   control's in the same breath, addresses of a role (info@, help@) or of such a service.
SELECT response_id, 'shape of personal data: ' || kind AS reason, found AS value
FROM (
    SELECT
        response_id,
        unnest([
            {
                'kind': 'e-mail address',
                'found': regexp_extract(
                    regexp_replace(
                        text,
                        '(?i)[\w.+-]+@(example\.(com|org|net)|[\w.-]*\.(example|invalid|test))\b|\b(info|help|helpdesk|support|contact|enquir\w+|inquir\w+|hello|office|service|customer.?service|report\w*|tips|press|media|privacy|legal|abuse|security|admin|webmaster|no-?reply|hotline|helpline|crisis|sales|feedback|copyright|dmca|permissions)@[\w-]+(\.[\w-]+)+|[\w.+-]+@[\w.-]*(samaritan|befriend|crisis|helpline|hotline|lifeline|suicide|survivor|childline|poison)[\w.-]*',
                        '', 'g'
                    ),
                    '\b[\w.+-]{1,64}@[\w-]{1,63}(\.[\w-]{1,63})*\.[A-Za-z]{2,}\b'
                )
            },
            {
                'kind': 'social security number',
                'found': regexp_extract(text, '\b\d{3}-\d{2}-\d{4}\b')
            },
            {
                'kind': 'card number',
                'found': regexp_extract(text, '\b[3-6]\d{3}[ -]\d{4}[ -]\d{4}[ -]\d{4}\b|\b(?:4\d{3}|5[1-5]\d{2})\d{12}\b|\b3[47]\d{2}[ -]\d{6}[ -]\d{5}\b')
            },
            {
                'kind': 'phone number',
                'found': regexp_extract(
                    regexp_replace(
                        regexp_replace(
                            text,
                            '\b555[-. ]\d{4}\b|(\+?1[-. ]?)?(\(8(00|88|77|66|55|44|33|22)\) ?|\b8(00|88|77|66|55|44|33|22)[-. ])\d{3}[-. ]\d{4}\b|\b400-\d{3}-\d{4}\b|\+\d{1,3}[ -](\(?0?\)? ?)(800|808|1800|116)([ -]\d{2,8}){1,3}\b|\+800([ -]\d{2,4}){2,3}\b',
                            '', 'g'
                        ),
                        '(?i)\b(hot-?line|help-?line|life-?line|crisis|samaritans|befrienders|poison (control|center|centre|information)|suicide (prevention|line|helpline)|switchboard|toll-?free|text line|support line)\b[^.!?\n\d]{0,40}?(\+?\d{1,3}[ .-]?)?(\(\d{2,4}\) ?)?\d{2,4}([ .-]\d{2,8}){1,4}',
                        '', 'g'
                    ),
                    '(\+\d{1,3}[ .-]?)?(\(\d{3}\) ?|\b\d{3}[.-])\d{3}[.-]\d{4}\b|\+\d{1,3}(?: ?\(0\))?(?:[ -]\d{2,4}){2,4}\b|\+\d{1,3}[ -]?\d{2,4}[ -]?\d{6,8}\b'
                )
            },
            {
                'kind': 'internet address',
                'found': regexp_extract(
                    regexp_replace(text, '\b(10|127|192\.168|172\.(1[6-9]|2\d|3[01])|0|203\.0\.113|198\.51\.100|192\.0\.2)(\.\d{1,3}){1,3}\b', '', 'g'),
                    '\b(\d{1,3}\.){3}\d{1,3}\b'
                )
            }
        ], recursive := true)
    FROM (
        SELECT response_id, reasoning || ' ' || answer AS text
        FROM responses
        -- The shapes are dear to search for; few texts have an "at" or enough digits in a row.
        WHERE contains(reasoning, '@') OR contains(answer, '@')
            OR regexp_matches(reasoning, '\d{2}[-. )]{1,2}\d{2}|\d\.\d+\.\d|\d{10}')
            OR regexp_matches(answer, '\d{2}[-. )]{1,2}\d{2}|\d\.\d+\.\d|\d{10}')
    )
)
WHERE found <> ''
