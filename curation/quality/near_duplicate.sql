-- What: a response that nearly repeats another one of its variant.
-- Why: many copies of one refusal teach that refusal, and not to refuse.
-- Threshold: the clusters of `saferthoughts duplicates` (checks.near_duplicate_similarity). Refusals are alike by
--   nature, so this check rejects only with `checks.near_duplicates: true`; the report counts them either way.
SELECT item_id AS response_id, 'near-duplicate' AS reason, why AS value
FROM duplicates
JOIN responses ON responses.response_id = duplicates.item_id
CROSS JOIN settings
WHERE item = 'response' AND NOT survivor AND settings.near_duplicates
