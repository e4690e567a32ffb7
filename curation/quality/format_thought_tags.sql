-- What: tags of thought or answer that other models write: <thinking>, [THINK], ◁think▷, &lt;think&gt;, <answer>.
-- Why: reasoning that is marked so was not taken apart from the answer; a student learns to leak it, or the tag.
-- Threshold: none; the tags that model families use, outside code. <think> itself is the check format_broken's.
SELECT response_id, 'thought tag left' AS reason, found AS value
FROM (
    SELECT
        response_id,
        regexp_extract(
            regexp_replace(text, '(?s)```.*?(```|$)|`[^`\n]*`', '', 'g'),
            '(?i)(?:^|\W)<\s*/?\s*(thinking|thoughts?|reasoning|reflection|scratchpad|inner_monologue|answer|final_answer|solution|seed:think)\s*>|<\s*/?\s*think(\s+|\s*/\s*)>|<\s+/?\s*think\s*>|(?-i:\[/?THINK\])|◁/?think▷|&lt;\s*/?\s*(think|thinking|thought|answer)\s*&gt;'
        ) AS found
    FROM (
        SELECT response_id, replace(replace(text, '<think>', ''), '</think>', '') AS text
        FROM (SELECT response_id, unnest([reasoning, answer]) AS text FROM responses)
        WHERE regexp_matches(text, '(?i)think|thought|answer\s*>|answer&gt;|reasoning\s*>|reflection\s*>|scratchpad|monologue|solution\s*>')
    )
    UNION ALL
    SELECT response_id, regexp_extract(text, '<(?:T(?:hink|HINK))>|</(?:T(?:hink|HINK))>') AS found
    FROM (SELECT response_id, unnest([reasoning, answer]) AS text FROM responses)
    WHERE contains(text, '<T') OR contains(text, '</T')
)
WHERE found <> ''
