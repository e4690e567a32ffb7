-- Of every response with a fault the one response without that it is told apart from: of the same repair first, then of
-- the same variant, then of another (`improved` before others), the nearest in length. `hindrance` says why none will do.
CREATE TEMP TABLE matched AS
SELECT * FROM (
    SELECT
        bad.response_id AS rejected_id,
        good.response_id AS chosen_id,
        CASE WHEN bad.root_id = good.root_id THEN 'repair' WHEN bad.variant = good.variant THEN 'sample' ELSE 'variant'
            END AS origin,
        greatest(bad.words, good.words) / greatest(least(bad.words, good.words), 1) AS ratio,
        CASE
            WHEN bad.text = good.text THEN 'both sides are the same text'
            WHEN bad.reasoned <> good.reasoned THEN 'one side alone has reasoning'
            WHEN ratio > $length_ratio THEN 'the sides differ in length'
        END AS hindrance
    FROM graded AS bad
    JOIN graded AS good USING (prompt_id)
    WHERE bad.margin > 0 AND bad.left_out IS NULL AND good.margin = 0 AND good.left_out IS NULL
    QUALIFY row_number() OVER (
        PARTITION BY bad.response_id
        ORDER BY hindrance IS NOT NULL, origin, origin = 'variant' AND good.variant <> 'improved', ratio, chosen_id
    ) = 1
)
