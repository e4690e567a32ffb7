SELECT
    response_id AS id,
    margin = 0 AS label,
    prompts.kind,
    responses.variant,
    prompts.text AS query,
    responses.reasoning,
    responses.answer,
    array_to_string(faults, ',') AS faults,
    verdicts.evidence,
    prompts.category,
    prompts.behaviour_id,
    prompts.template_id,
    prompts.prompt_id,
    prompts.source,
    prompts.source_license
FROM graded
JOIN responses USING (response_id)
JOIN verdicts USING (response_id)
JOIN prompts ON prompts.prompt_id = graded.prompt_id
WHERE left_out IS NULL
ORDER BY id
