-- What: a call of a tool in a response, where no tool was offered: <tool_call>, <function=...>, [TOOL_CALLS], bare JSON.
-- Why: nobody will answer it; a student learns to wait for a tool instead of answering.
-- Threshold: none; the forms that model families use, outside code, and an answer that is one JSON call and nothing else.
SELECT response_id, 'tool call left' AS reason, left(found, 80) AS value
FROM (
    SELECT
        response_id,
        regexp_extract(
            regexp_replace(text, '(?s)```.*?(```|$)|`[^`\n]*`', '', 'g'),
            '(?im)</?(\w+:)?(\w+_)?(tool_calls?|function_calls?|tool_response|tool_use)>|<function=[\w.-]+>|<invoke name=|\[TOOL_CALLS\]|✿FUNCTION✿|\bto=functions\.\w|^Action: ?\S+\s*\nAction Input:|^\s*\[?\s*\{\s*"(name|tool|function)"\s*:\s*"[^"]*"\s*,\s*"(arguments|parameters|args)"\s*:|^\s*\{\s*("type"\s*:\s*"function"\s*,\s*"function"|"tool_calls"\s*:\s*\[)'
        ) AS found
    FROM (SELECT response_id, unnest([reasoning, answer]) AS text FROM responses)
    WHERE regexp_matches(text, '(?i)<[^<>\n]{0,30}(tool|function|invoke)|\[TOOL_CALLS|✿FUNCTION|to=functions|Action Input:|(^|\n)\s*\[?\s*\{')
)
WHERE found <> ''
