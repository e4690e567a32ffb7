-- What: a response in which the judges see one of the five risky patterns.
-- Why: a student learns the pattern along with the refusal; that is what the study found.
-- Threshold: the judges' vote, in the variants that are pattern-checked: `direct`, the baseline, is not (its
-- variant.yaml, or `checks.variants`), and of `checks.patterns`. `checks.flagged: false` lets all such rows pass.
SELECT
    response_id,
    concat_ws(', ',
        CASE WHEN lack_of_safety_awareness AND list_contains(patterns, 'lack_of_safety_awareness') THEN 'lack_of_safety_awareness' END,
        CASE WHEN strong_vacillation AND list_contains(patterns, 'strong_vacillation') THEN 'strong_vacillation' END,
        CASE WHEN weak_vacillation AND list_contains(patterns, 'weak_vacillation') THEN 'weak_vacillation' END,
        CASE WHEN harmful_additions AND list_contains(patterns, 'harmful_additions') THEN 'harmful_additions' END,
        CASE WHEN inconsistency AND list_contains(patterns, 'inconsistency') THEN 'inconsistency' END
    ) AS value,
    'pattern flagged' AS reason
FROM responses
JOIN prompts USING (prompt_id)
JOIN verdicts USING (response_id)
LEFT JOIN variants USING (variant)
CROSS JOIN settings
WHERE settings.flagged AND value <> '' AND (prompts.kind = 'benign' OR coalesce(variants.pattern_checked, true))
