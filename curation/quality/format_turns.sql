-- What: the beginning of another turn in a response: "### Instruction:", "### Human:", "Human: ... Assistant: ...".
-- Why: the teacher went on with the conversation by itself; a student learns to ask the next question.
-- Threshold: none; markers at the beginning of a line, outside code. A heading like "### Instructions" is none.
SELECT response_id, 'another turn left' AS reason, trim(found) AS value
FROM (
    SELECT
        response_id,
        regexp_extract(
            regexp_replace(text, '(?s)```.*?(```|$)', '', 'g'),
            '(?m)^#{2,4} ?(Instruction|Response|Human|User|Assistant|Question from the user) ?:|^(?:Human|HUMAN|User|USER): [^\n]*\n+(Assistant|ASSISTANT|AI|GPT) ?:|\S\s*\n\n(?:Human|HUMAN|User|USER): [^\n]*\s*\z|^<(user|human|assistant|bot)>:?(\s*$| )'
        ) AS found
    FROM (
        SELECT response_id, unnest([reasoning, answer]) AS text
        FROM responses
        WHERE regexp_matches(reasoning || answer, '##|Human:|HUMAN:|User:|USER:|<(user|human|assistant|bot)>')
    )
)
WHERE found <> ''
