-- How long responses are, in output tokens as the endpoints counted them: average and 90th percentile of all that were
-- generated, of those that the judges of safety let pass, and of those that `select` drew. Repaired attempts are left
-- out of the first two. Averages are of those with a count; a fixed text and another's dataset have none.
WITH answers AS (
    SELECT
        CASE WHEN kind = 'benign' THEN 'benign' ELSE variant END AS config,
        nullif(output_tokens, 0) AS tokens,
        attempt = 0 AS generated,
        safety,
        attempt = 0 AND safety = 'safe' AS safe,
        response_id IN (SELECT response_id FROM selected) AS drawn
    FROM responses
    JOIN prompts USING (prompt_id)
    LEFT JOIN verdicts USING (response_id)
)
SELECT
    config,
    count(*) FILTER (generated) AS responses,
    count(tokens) FILTER (generated) AS measured,
    round(avg(tokens) FILTER (generated), 1) AS average,
    round(quantile_cont(tokens, 0.9) FILTER (generated), 1) AS p90,
    CASE WHEN count(safety) > 0 THEN count(*) FILTER (safe) END AS safe,
    round(avg(tokens) FILTER (safe), 1) AS safe_average,
    round(quantile_cont(tokens, 0.9) FILTER (safe), 1) AS safe_p90,
    count(*) FILTER (drawn) AS selected,
    round(avg(tokens) FILTER (drawn), 1) AS selected_average,
    round(quantile_cont(tokens, 0.9) FILTER (drawn), 1) AS selected_p90
FROM answers
GROUP BY config
ORDER BY config
