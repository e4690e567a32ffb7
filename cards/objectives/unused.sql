-- Of the graded responses, those that are in no pair, by the reason.
SELECT reason, count(*) AS rows FROM (
    SELECT CASE
        WHEN left_out IS NOT NULL THEN left_out
        WHEN margin > 0 THEN coalesce(matched.hindrance, 'no released response to its prompt is without a fault')
        WHEN prompt_id IN (SELECT prompt_id FROM graded WHERE margin > 0 AND left_out IS NULL)
            THEN 'without a fault, and the faulty responses to its prompt are paired with another or not at all'
        ELSE 'without a fault, and so are all responses to its prompt'
    END AS reason
    FROM graded LEFT JOIN matched ON matched.rejected_id = graded.response_id
    WHERE response_id NOT IN (SELECT chosen_id FROM matched WHERE hindrance IS NULL)
        AND response_id NOT IN (SELECT rejected_id FROM matched WHERE hindrance IS NULL)
)
GROUP BY reason ORDER BY reason
