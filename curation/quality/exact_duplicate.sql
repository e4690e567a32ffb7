-- What: reasoning and answer that stand, word for word, in other rows that no other check objects to: of the same
--   prompt (another variant or sample), or of several other prompts.
-- Why: a row that is there twice counts twice, the same text in two variants says that one instruction did nothing, and
--   a text that fits every prompt is a formula.
-- Threshold: for one prompt, none; for different prompts checks.same_text_prompts (3), and the rows beyond go. Kept are
--   rows of the variant that comes first in the study's table, then those with the lowest ids. Fixed texts and
--   variants without reasoning, whose answers are alike on purpose, are left out. Reads `objected`, so it runs after the other checks.
WITH texts AS (
    SELECT response_id, prompt_id, variant, hash(reasoning, answer) AS text
    FROM responses
    ANTI JOIN objected USING (response_id)
    JOIN variants USING (variant)
    WHERE reasoning_source <> 'fixed' AND variants.most_words > 0
),
placed AS (
    SELECT
        response_id,
        first(response_id) OVER same_prompt AS kept,
        first(variant) OVER same_prompt AS kept_variant,
        min(response_id) OVER (PARTITION BY text) AS first_of_all,
        dense_rank() OVER same_text AS place
    FROM texts
    LEFT JOIN (SELECT variant, row_number() OVER () AS rank FROM variants) AS ranks USING (variant)
    WHERE text IN (SELECT text FROM texts GROUP BY text HAVING count(*) > 1)
    WINDOW
        same_prompt AS (PARTITION BY text, prompt_id ORDER BY rank, response_id),
        same_text AS (PARTITION BY text ORDER BY prompt_id)
)
SELECT
    response_id,
    CASE WHEN response_id <> kept THEN 'same text for the same prompt' ELSE 'same text for many prompts' END AS reason,
    CASE WHEN response_id <> kept THEN kept || ' (' || kept_variant || ')' ELSE first_of_all END AS value
FROM placed
CROSS JOIN settings
WHERE response_id <> kept OR place > settings.same_text_prompts
