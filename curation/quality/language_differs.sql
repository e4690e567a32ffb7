-- What: a response in another language or script than its prompt.
-- Why: reasoning models switch language in mid-thought, and a student takes that up.
-- Threshold: a run of 8 letters of another script than any in the prompt, or, in Latin script, fewer English
--   function words than those of another language, at least 8 of them, in the first 1,000 characters of the reasoning
--   (or of the answer, where there is none), while the prompt is English by the same count or too short to tell.
WITH texts AS (
    SELECT
        response_id,
        prompts.text AS prompt,
        reasoning,
        answer,
        ' ' || lower(left(CASE WHEN reasoning = '' THEN answer ELSE reasoning END, 1000)) || ' ' AS sample,
        ' ' || lower(left(prompts.text, 2000)) || ' ' AS asked
    FROM responses
    JOIN prompts USING (prompt_id)
),
scripts AS (
    SELECT
        response_id, prompt, sample, asked,
        regexp_extract(
            reasoning || ' ' || answer,
            '[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\p{Cyrillic}\p{Arabic}\p{Hebrew}\p{Devanagari}\p{Thai}\p{Greek}]{8}'
        ) AS piece
    FROM texts
),
counts AS (
    SELECT
        response_id, prompt, piece, asked,
        len(regexp_extract_all(sample, '[^\p{L}](the|and|of|to|is|that|this|it|for|with)[^\p{L}]')) AS english,
        greatest(
            len(regexp_extract_all(sample, '[^\p{L}](que|los|las|una|para|por|con|está|esto|como)[^\p{L}]')),
            len(regexp_extract_all(sample, '[^\p{L}](les|des|une|est|dans|pour|que|qui|pas|cette)[^\p{L}]')),
            len(regexp_extract_all(sample, '[^\p{L}](der|die|das|und|nicht|ist|ein|eine|mit|ich)[^\p{L}]')),
            len(regexp_extract_all(sample, '[^\p{L}](che|della|sono|questo|per|con|una|gli|non|nel)[^\p{L}]')),
            len(regexp_extract_all(sample, '[^\p{L}](não|uma|para|com|isso|os|dos|você|ser|mais)[^\p{L}]'))
        ) AS other
    FROM scripts
)
SELECT
    response_id,
    CASE WHEN piece <> '' THEN 'another script than the prompt' ELSE 'another language than the prompt' END AS reason,
    CASE WHEN piece <> '' THEN piece ELSE other || ' function words, ' || english || ' English ones' END AS value
FROM counts
WHERE (piece <> '' AND NOT regexp_matches(
        prompt,
        '[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\p{Cyrillic}\p{Arabic}\p{Hebrew}\p{Devanagari}\p{Thai}\p{Greek}]{2}'
    ))
    OR (piece = '' AND other >= 8 AND other > english
        AND len(regexp_extract_all(asked, '[^\p{L}](the|and|of|to|is|that|this|it|for|with|a|in|you)[^\p{L}]')) >= 3)
