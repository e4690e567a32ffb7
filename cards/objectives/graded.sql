-- Every accepted response, and every response with a fault, with what decides where it may go. `objection` says why it
-- may be no side of a pair: the checks below turn rows down for faults and for a variant's shape, which is what a
-- rejected side is there to show; any other check (form, language, duplicates, personal data, contamination, a user's
-- own) keeps a row out of a release altogether.
CREATE TEMP TABLE graded AS
WITH objections AS (
    SELECT response_id, 'turned down by the check ' || min(check_name) AS objection
    FROM rejected
    WHERE check_name NOT IN (
        'pattern_flagged', 'unsafe', 'human', 'refusal_missing', 'refusal_present', 'refusal_opening', 'superseded',
        'length_out_of_bounds', 'template_lines', 'unscored'
    )
    GROUP BY response_id
),
chosen_prompts AS (SELECT DISTINCT prompt_id FROM released JOIN responses USING (response_id)),
found AS (
    SELECT
        responses.response_id,
        prompt_id,
        prompts.kind,
        variant,
        responses.attempt,
        coalesce(repairs.root_id, responses.response_id) AS root_id,
        released.response_id IS NOT NULL AS released,
        accepted.response_id IS NOT NULL AS accepted,
        -- The order and the names of `pipelines.judges.panel.flags_of`; people's majority says unsafe as well.
        list_filter([
            CASE WHEN kind <> 'benign' AND lack_of_safety_awareness THEN 'lack_of_safety_awareness' END,
            CASE WHEN kind <> 'benign' AND strong_vacillation THEN 'strong_vacillation' END,
            CASE WHEN kind <> 'benign' AND weak_vacillation THEN 'weak_vacillation' END,
            CASE WHEN kind <> 'benign' AND harmful_additions THEN 'harmful_additions' END,
            CASE WHEN kind <> 'benign' AND inconsistency THEN 'inconsistency' END,
            CASE WHEN safety = 'unsafe' OR people.unsafe THEN 'unsafe' END,
            CASE WHEN kind <> 'benign' AND refused = false THEN 'no_refusal' END,
            CASE WHEN compliance IN ('partial_refusal', 'full_refusal') THEN 'over_refusal' END
        ], lambda fault: fault IS NOT NULL) AS faults,
        -- Without reasoning there are no patterns to judge, and a verdict on safety is one.
        reasoning_source <> 'fixed' AND coalesce(safety_reason = '' AND (
            verdicts.reason = '' OR NOT regexp_matches(reasoning, '\S') AND safety IS NOT NULL
        ), false) AS judged,
        regexp_matches(reasoning, '\S') AS reasoned,
        -- Other spacing and capitals make no other text.
        md5(lower(regexp_replace(concat_ws(chr(31), reasoning, answer), '\s+', ' ', 'g'))) AS text,
        len(regexp_extract_all(reasoning, '\S+')) + len(regexp_extract_all(answer, '\S+')) AS words,
        CASE WHEN chosen_prompts.prompt_id IS NULL AND $selected THEN 'its prompt is not among the selected'
            ELSE objections.objection END AS objection
    FROM responses
    JOIN prompts USING (prompt_id)
    LEFT JOIN verdicts USING (response_id)
    LEFT JOIN (SELECT response_id, unsafe FROM decisions) AS people USING (response_id)
    LEFT JOIN repairs USING (response_id)
    LEFT JOIN released USING (response_id)
    LEFT JOIN accepted USING (response_id)
    LEFT JOIN objections USING (response_id)
    LEFT JOIN chosen_prompts USING (prompt_id)
)
SELECT
    * EXCLUDE (objection),
    len(faults) AS margin,
    -- Why it may not stand for a good response, or for a bad one; null where it may.
    CASE
        WHEN NOT judged THEN 'not judged'
        WHEN margin > 0 THEN objection
        WHEN NOT released THEN 'accepted, and not selected'
    END AS left_out
FROM found
WHERE accepted OR len(faults) > 0
