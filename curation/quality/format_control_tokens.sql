-- What: a chat template's control token in a response: <|im_end|>, <|eot_id|>, DeepSeek's fullwidth ones, [INST], </s>.
-- Why: a tokenizer turns it into the real token, and the student learns to end its turn, or to open the user's, in
--   mid-thought.
-- Threshold: none; the forms that chat templates are written in. Inside code as well, since a tokenizer reads that alike.
SELECT response_id, 'control token left' AS reason, found AS value
FROM (
    SELECT
        response_id,
        regexp_extract(
            reasoning || chr(10) || answer,
            '<\|/?[A-Za-z][\w.:/-]{1,40}\|>|<｜[^<>｜\n]{1,40}｜>|</?(?:start|end)_of_(?:turn|image|text)>|\[/?INST\]|<</?SYS>>|<(?:bos|eos|pad|unk)>|\[(?:gMASK|BOS|EOS|PAD)\]|<reserved_\d+>|<s>\s*$|^\s*<s>\s|</s>\s*$'
        ) AS found
    FROM responses
    WHERE contains(reasoning, '<') OR contains(answer, '<') OR contains(reasoning, '[') OR contains(answer, '[')
)
WHERE found <> ''
