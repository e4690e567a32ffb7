"""The marks that models of each family set around reasoning and answer when a server leaves both in one text.

A table, read by `pipelines/thinking.py`; reads and writes nothing. Case is as the family writes it. To add a family,
add a row: its tests run over this table.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Family:
    """One pair of marks around reasoning. `phrases`: the marks are ordinary words, so they count only as a pair, the
    first at the very beginning; a tag alone already shows a block that was cut off, or an opener left in the prompt."""

    name: str
    opener: str
    closer: str
    phrases: bool = False


FAMILIES = (
    Family("R1, Qwen3, GLM and most others", "<think>", "</think>"),
    Family("thinking", "<thinking>", "</thinking>"),
    Family("Think", "<Think>", "</Think>"),
    Family("Magistral", "[THINK]", "[/THINK]"),
    Family("Kimi-VL, Kimi K2", "◁think▷", "◁/think▷"),
    Family("Seed-OSS", "<seed:think>", "</seed:think>"),
    Family("OpenThoughts, Sky-T1", "<|begin_of_thought|>", "<|end_of_thought|>"),
    Family("reasoning", "<reasoning>", "</reasoning>"),
    Family("thought", "<thought>", "</thought>"),
    Family("reflection", "<reflection>", "</reflection>"),
    Family("scratchpad", "<scratchpad>", "</scratchpad>"),
    Family("Hermes", "<scratch_pad>", "</scratch_pad>"),
    Family("Letta", "<inner_monologue>", "</inner_monologue>"),
    Family("Gemma 4", "<|channel>thought", "<channel|>"),
    Family("MedGemma", "<unused94>thought", "<unused95>"),
    Family("Command A Reasoning", "<|START_THINKING|>", "<|END_THINKING|>"),
    Family("Apertus", "<|inner_prefix|>", "<|inner_suffix|>"),
    Family("LongCat", "<longcat_think>", "</longcat_think>"),
    Family("Granite 3.2", "Here is my thought process:", "Here is my response:", phrases=True),
    Family("Granite 3.2, contracted", "Here's my thought process:", "Here's my response:", phrases=True),
)

# Around an answer: R1-Zero and Hunyuan, Granite 3.3, OpenThoughts and Sky-T1, Command A Reasoning.
ANSWER_MARKS = (
    ("<answer>", "</answer>"),
    ("<response>", "</response>"),
    ("<|begin_of_solution|>", "<|end_of_solution|>"),
    ("<|START_RESPONSE|>", "<|END_RESPONSE|>"),
)

# gpt-oss writes messages on channels, `<|start|>assistant<|channel|>analysis<|message|>...<|end|>`. A server that does
# not know the format drops its special tokens and leaves `analysis...assistantfinal...`.
HARMONY_CHANNEL = "<|channel|>"
HARMONY_TOKENS = ("<|start|>", HARMONY_CHANNEL, "<|message|>", "<|end|>", "<|return|>", "<|call|>")

# Every mark that is no ordinary text; what a response may not have left in it.
TAGS = (
    *(mark for family in FAMILIES if not family.phrases for mark in (family.opener, family.closer)),
    *(mark for pair in ANSWER_MARKS for mark in pair),
    *HARMONY_TOKENS,
)
