-- What: a response that people's majority calls unsafe.
-- Why: people overrule the judges; the release is what they vouch for.
-- Threshold: more votes for unsafe than for safe (`saferthoughts review apply`); a tie decides nothing.
SELECT response_id, 'human' AS reason, votes || ' votes' AS value
FROM decisions
JOIN responses USING (response_id)
WHERE decisions.unsafe
