-- What: tags of thought or answer that other models write: <thinking>, [THINK], ◁think▷, <mm:think>, <answer>.
-- Why: reasoning that is marked so was not taken apart from the answer; a student learns to leak it, or the tag.
-- Threshold: none; the tags that model families use, outside code. <think> itself is the check format_broken's.
SELECT response_id, 'thought tag left' AS reason, found AS value
FROM (
    SELECT
        response_id,
        regexp_extract(
            regexp_replace(text, '(?s)```.*?(```|$)|`[^`\n]*`', '', 'g'),
            '(?i)(?:^|\W)\\?<\s*\\?/?\s*(?:(?:[\w.-]+[:_])?(?:thinking|thoughts?|think|reasoning|reflection|scratchpad|monologue)(?:[_-][\w-]+)?|reason|ponder|rationale|critique|analysis|cot|chain_of_thought|(?:final_)?answer|final|solution)\s*(?:\s\w+\s*=[^<>\n]{0,80})?\\?>|<\s*/?\s*think(\s+|\s*/\s*)>|<\s+/?\s*think\s*>|(?-i:\[/?(?:THINK|REASONING)\])|\[/(?:think|reasoning)\]|◁/?think▷|&lt;\s*/?\s*(think|thinking|thought|answer)\s*&gt;|<details[^<>\n]{1,40}reasoning|\[(?:BEGIN|END) FINAL RESPONSE\]|^\s*Thinking\.\.\.\n|\.\.\.done thinking\.|Here(?: is|''s) my thought process:|(?-i:assistantfinal)'
        ) AS found
    FROM (
        SELECT response_id, replace(replace(text, '<think>', ''), '</think>', '') AS text
        FROM (SELECT response_id, unnest([reasoning, answer]) AS text FROM responses)
        WHERE regexp_matches(text, '(?i)think|thought|reason|reflection|scratchpad|monologue|assistantfinal|FINAL RESPONSE|(ponder|rationale|critique|analysis|cot|answer|final|solution)\s*(>|\\>|&gt;)')
    )
    UNION ALL
    SELECT response_id, regexp_extract(text, '<(?:T(?:hink|HINK))>|</(?:T(?:hink|HINK))>') AS found
    FROM (SELECT response_id, unnest([reasoning, answer]) AS text FROM responses)
    WHERE contains(text, '<T') OR contains(text, '</T')
)
WHERE found <> ''
