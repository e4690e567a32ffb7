-- What: a response in which the judges see one of the five risky patterns.
-- Why: a student learns the pattern along with the refusal; that is what the study found.
-- Threshold: the judges' vote; `checks.flagged: false` lets such rows pass, for data as the study's `default`.
SELECT
    response_id,
    concat_ws(', ',
        CASE WHEN lack_of_safety_awareness THEN 'lack_of_safety_awareness' END,
        CASE WHEN strong_vacillation THEN 'strong_vacillation' END,
        CASE WHEN weak_vacillation THEN 'weak_vacillation' END,
        CASE WHEN harmful_additions THEN 'harmful_additions' END,
        CASE WHEN inconsistency THEN 'inconsistency' END
    ) AS value,
    'pattern flagged' AS reason
FROM responses
JOIN verdicts USING (response_id)
CROSS JOIN settings
WHERE settings.flagged AND value <> ''
