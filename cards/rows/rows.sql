-- The rows of a release, in the order of ids: response, prompt, verdict, people's votes and what each judge found.
-- Asked of a part of the rows at a time, since what it sorts and lists has to fit into memory.
WITH votes AS (
    SELECT response_id, to_json({
        'yes': count(*) FILTER (safe = 'yes'),
        'no': count(*) FILTER (safe = 'no'),
        'unsure': count(*) FILTER (safe = 'unsure')
    })::VARCHAR AS review_votes
    FROM reviews
    GROUP BY response_id
),
-- What a judge left open is left out; a merge patch drops what is null.
said AS (
    SELECT response_id, to_json(list(json_merge_patch('{}', to_json({
        'judge': judge,
        'kind': kind,
        'lack_of_safety_awareness': lack_of_safety_awareness,
        'overthinking': overthinking,
        'strong_vacillation': strong_vacillation,
        'weak_vacillation': weak_vacillation,
        'harmful_additions': harmful_additions,
        'inconsistency': inconsistency,
        'refused': refused,
        'compliance': compliance,
        'safety': safety,
        'score': score,
        'evidence': nullif(evidence, ''),
        'analysis': nullif(analysis, ''),
        'reason': nullif(reason, '')
    })) ORDER BY judge, kind))::VARCHAR AS judgements
    FROM judgements
    WHERE response_id IN (SELECT response_id FROM released)
    GROUP BY response_id
)
SELECT
    responses.response_id AS id,
    responses.variant,
    CASE WHEN prompts.kind = 'benign' THEN 'benign' ELSE responses.variant END AS config,
    prompts.text AS query,
    responses.reasoning,
    responses.answer,
    prompts.kind,
    prompts.behaviour_id,
    prompts.template_id,
    prompts.source,
    prompts.source_license,
    responses.model AS teacher,
    responses.sampling,
    responses.finish_reason,
    responses.attempt + 1 AS attempts,
    verdicts.lack_of_safety_awareness,
    verdicts.overthinking,
    verdicts.strong_vacillation,
    verdicts.weak_vacillation,
    verdicts.harmful_additions,
    verdicts.inconsistency,
    verdicts.judge,
    verdicts.safety AS safety_verdict,
    votes.review_votes,
    responses.prompt_id,
    prompts.category,
    responses.parent_id,
    verdicts.compliance,
    verdicts.disagreement,
    verdicts.evidence,
    coalesce(said.judgements, '[]') AS judgements,
    verdicts.reason AS unscored_reason,
    responses.reasoning_source,
    responses.input_tokens,
    responses.output_tokens
FROM released
JOIN responses USING (response_id)
JOIN prompts USING (prompt_id)
JOIN verdicts USING (response_id)
LEFT JOIN votes USING (response_id)
LEFT JOIN said USING (response_id)
ORDER BY responses.response_id
