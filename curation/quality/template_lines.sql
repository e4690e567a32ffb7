-- What: reasoning by template in which a line is missing or stands twice.
-- Why: a student learns to walk all categories only from rows that walk them all, once.
-- Threshold: none; the variant's `lines` (variant.yaml), each at the beginning of a line, after list marks.
WITH found AS (
    SELECT
        response_id,
        variant,
        regexp_extract_all(reasoning, '(?m)^[\s*#>•.\d)-]*([A-Za-z/-]+)[*\s]*:', 1) AS openings
    FROM responses
    JOIN prompts USING (prompt_id)
    WHERE prompts.kind = 'harmful' AND variant IN (SELECT variant FROM variant_lines)
),
counted AS (
    SELECT
        response_id,
        line,
        position,
        len(list_filter(openings, lambda opening: lower(opening) = lower(line))) AS times,
        len(openings) AS lines
    FROM found
    JOIN variant_lines USING (variant)
)
SELECT
    response_id,
    CASE
        WHEN max(times) = 0 THEN 'template not followed'
        WHEN min(times) = 0 THEN 'category missing'
        ELSE 'category twice'
    END AS reason,
    string_agg(line, ', ' ORDER BY position) FILTER (times <> 1) AS value
FROM counted
GROUP BY response_id
HAVING min(times) <> 1 OR max(times) <> 1
