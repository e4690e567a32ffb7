-- What: a chat template's control token in a response: <|im_end|>, <turn|>, DeepSeek's fullwidth ones, [|user|], [INST].
-- Why: a tokenizer turns it into the real token, and the student learns to end its turn, or to open the user's, in
--   mid-thought.
-- Threshold: none; the forms that chat templates are written in. Inside code as well, since a tokenizer reads that alike.
SELECT response_id, 'control token left' AS reason, found AS value
FROM (
    SELECT
        response_id,
        regexp_extract(
            reasoning || chr(10) || answer,
            '<\|[^<>|\s]{1,40}\|>|<｜[^<>｜\n]{1,40}｜>|<\|/?[A-Za-z_]{2,30}>|<[A-Za-z_]{2,30}\|>|\[\|/?[A-Za-z_]{2,30}\|\]|</?(?:start|end)_of_(?:turn|image|text)>|\[/?(?:INST|SYSTEM_PROMPT|AVAILABLE_TOOLS|TOOL_RESULTS|TOOL_CALLS|gMASK|sop|BOS|EOS|PAD)\]|<</?SYS>>|<(?:bos|eos|pad|unk|sop|eop|fim_\w+)>|<(?:reserved_|unused|SPECIAL_|extra_id_)\d+>|<_(?:user|bot|start|end|system)>|<\[(?:begin|end)▁of▁\w+\]>|\[e~\[|<role>[A-Z]+</role>|<s>\s*$|^\s*<s>\s|</s>\s*$'
        ) AS found
    FROM responses
    WHERE contains(reasoning, '<') OR contains(answer, '<') OR contains(reasoning, '[') OR contains(answer, '[')
)
WHERE found <> ''
