-- What: a response that runs in circles: one piece of text over and over.
-- Why: reasoning models get caught in loops, and a student that trains on one learns to loop.
-- Threshold: checks.loop_times (4) copies of one piece of 40 characters. Pieces are taken at twelve places spread over
--   the text, so a loop is found for certain where it fills more than a twelfth of it, and the work is a dozen
--   searches a text instead of a count of all its n-grams.
WITH texts AS (
    SELECT response_id, reasoning || chr(10) || answer AS text, length(reasoning) + 1 + length(answer) AS size
    FROM responses
    WHERE length(reasoning) + length(answer) >= 160
),
pieces AS (
    SELECT
        response_id,
        text,
        list_transform(range(1, 13), lambda place: substr(text, CAST(place * (size - 40) // 13 AS INTEGER) + 1, 40)) AS pieces
    FROM texts
),
counted AS (
    SELECT
        response_id,
        list_max(
            list_transform(pieces, lambda piece: (strlen(text) - strlen(replace(text, piece, ''))) // strlen(piece))
        ) AS times
    FROM pieces
)
SELECT response_id, 'runs in circles' AS reason, 'one piece of 40 characters ' || times || ' times' AS value
FROM counted
CROSS JOIN settings
WHERE times >= settings.loop_times
