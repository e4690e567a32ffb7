-- What: reasoning or an answer in another script or language than the prompt.
-- Why: reasoning models switch language in mid-thought, and a student takes that up.
-- Threshold: another script than the prompt's in a tenth of the letters (Latin ones: half), or 24 of its letters in a row
--   (8 Chinese or Korean ones); another language in 30 % of a part's pieces of 500 characters. A word or a name passes, and
--   so does everything where the prompt names a language. The rules are curation/quality/languages.py's; what is plainly English,
--   by its function words, in prompt and part alike is not asked about, since a detector takes a thousand times as long.
SELECT
    response_id,
    CASE WHEN starts_with(first(found ORDER BY part DESC), 'script')
        THEN 'another script than the prompt' ELSE 'another language than the prompt' END AS reason,
    string_agg(part || ', ' || found, '; ' ORDER BY part DESC) AS value
FROM (
    SELECT response_id, part, language_difference(prompt, text) AS found
    FROM (
        SELECT
            response_id,
            prompts.text AS prompt,
            32 * len(regexp_extract_all(
                lower(prompts.text),
                '\b(the|and|of|to|is|that|this|it|for|with|a|in|you|i|how|what|my|me|can|do|are|on|who|why|write|an)\b'
            )) >= least(length(prompts.text), 2000) AND NOT regexp_matches(prompts.text, '[^\P{L}\p{Latin}]') AS asked_in_english,
            unnest([{'part': 'reasoning', 'text': reasoning}, {'part': 'answer', 'text': answer}], recursive := true)
        FROM responses
        JOIN prompts USING (prompt_id)
    )
    WHERE text <> '' AND NOT (
        asked_in_english
        AND 32 * len(regexp_extract_all(
            lower(text),
            '\b(the|and|of|to|is|that|this|it|for|with|a|in|you|i|not|be|or|as|can|so|but|sorry|help|would|should)\b'
        )) >= length(text)
        AND NOT regexp_matches(text, '[^\P{L}\p{Latin}]')
    )
)
WHERE found <> ''
GROUP BY response_id
