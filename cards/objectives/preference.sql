SELECT
    left(sha256(chosen_id || ' ' || rejected_id), 16) AS id, origin, bad.faults[1] AS pattern,
    bad.margin - good.margin AS margin, prompts.text AS query,
    chosen.reasoning AS chosen_reasoning, chosen.answer AS chosen_answer,
    rejected.reasoning AS rejected_reasoning, rejected.answer AS rejected_answer,
    array_to_string(bad.faults, ',') AS faults, evidence,
    prompts.kind, category, behaviour_id, template_id, good.variant AS chosen_variant, bad.variant AS rejected_variant,
    good.words AS chosen_words, bad.words AS rejected_words, chosen_id, rejected_id,
    prompts.prompt_id, source, source_license
FROM matched
JOIN graded AS good ON good.response_id = chosen_id
JOIN graded AS bad ON bad.response_id = rejected_id
JOIN responses AS chosen ON chosen.response_id = chosen_id
JOIN responses AS rejected ON rejected.response_id = rejected_id
JOIN verdicts ON verdicts.response_id = rejected_id
JOIN prompts ON prompts.prompt_id = bad.prompt_id
WHERE hindrance IS NULL
ORDER BY id
