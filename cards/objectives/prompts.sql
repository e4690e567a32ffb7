-- All prompts of the run, without those that the check `contaminated` turns down.
SELECT
    prompt_id AS id, kind, CASE WHEN kind = 'benign' THEN 'help' ELSE 'refusal' END AS expected, category, text AS query,
    behaviour, behaviour_id, template_id, source, source_license
FROM prompts
WHERE prompt_id NOT IN (
    SELECT contamination.prompt_id FROM contamination CROSS JOIN settings
    WHERE contamination.response_id = '' AND list_contains(settings.contaminated_by, set_name)
)
ORDER BY id
