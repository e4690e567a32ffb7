-- What: reasoning that is, for a good part, the prompt once more.
-- Why: copying is no thought, and it puts the jailbreak into what is trained on.
-- Threshold: checks.copied_share (0.5) of the reasoning's characters are copies of the whole prompt.
SELECT
    response_id,
    'reasoning copies the prompt' AS reason,
    round(100 * share) || ' % of the reasoning' AS value
FROM (
    SELECT
        response_id,
        (strlen(reasoning) - strlen(replace(reasoning, prompts.text, ''))) / strlen(reasoning) AS share
    FROM responses
    JOIN prompts USING (prompt_id)
    WHERE reasoning <> '' AND length(prompts.text) >= 20
)
CROSS JOIN settings
WHERE share >= settings.copied_share
