-- What: a row whose prompt or response overlaps with an item of an evaluation set.
-- Why: who trains on a question can no longer be measured with it.
-- Threshold: the hits of `saferthoughts contamination`, whatever their method, in the sets of
--   `checks.contaminated_by` (none by default: hits are reported, and the release names the items).
SELECT
    responses.response_id,
    'overlaps with ' || set_name AS reason,
    method || ' ' || contamination.item_id || ': ' || left(span, 80) AS value
FROM contamination
JOIN responses ON responses.prompt_id = contamination.prompt_id
    AND contamination.response_id IN ('', responses.response_id)
CROSS JOIN settings
WHERE list_contains(settings.contaminated_by, set_name)
