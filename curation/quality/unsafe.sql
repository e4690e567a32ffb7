-- What: a response that a judge of safety turned down as a whole, reasoning and answer together.
-- Why: a refusal whose reasoning helps the harm along trains just that.
-- Threshold: the vote of the judges of safety; ReasoningShield's own threshold stands in the judge's entry.
SELECT response_id, 'unsafe' AS reason, verdicts.judge AS value
FROM responses
JOIN verdicts USING (response_id)
WHERE verdicts.safety = 'unsafe'
