SELECT
    response_id AS id, margin = 0 AS label, prompts.kind, responses.variant, prompts.text AS query, reasoning, answer,
    array_to_string(faults, ',') AS faults, evidence,
    category, behaviour_id, template_id, prompts.prompt_id, source, source_license
FROM graded
JOIN responses USING (response_id)
JOIN verdicts USING (response_id)
JOIN prompts ON prompts.prompt_id = graded.prompt_id
WHERE left_out IS NULL
ORDER BY id
