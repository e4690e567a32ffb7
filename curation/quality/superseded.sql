-- What: an attempt at a row of which another attempt is kept.
-- Why: one response stands for each prompt, variant and sample; repair chooses the attempt with the fewest faults.
-- Threshold: none; `repairs` has every attempt, the row as it was generated among them, and which one is chosen.
SELECT
    attempts.response_id,
    'superseded by another attempt' AS reason,
    kept.response_id AS value
FROM repairs AS attempts
JOIN repairs AS kept ON kept.root_id = attempts.root_id AND kept.chosen
JOIN responses ON responses.response_id = attempts.response_id
WHERE NOT attempts.chosen
