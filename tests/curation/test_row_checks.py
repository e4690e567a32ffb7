"""What single texts are objected to, check by check: rows of another dataset, read, and looked at by one query each."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from curation.datasets.imported import import_dataset
from curation.quality.checks import objections_of
from curation.quality.languages import language_difference
from pipelines.judges.refusals import two_answers
from pipelines.judges.stage import judge
from pipelines.records import Response, from_table
from pipelines.sources import Source

PUBLIC = Path(__file__).parents[3] / "shared" / "data" / "star1.json"
Found = Callable[[str, list[tuple[str, str, str]]], dict[int, str]]
# The spelling of a fullwidth bar, as DeepSeek's tokens have it.
BAR = "\uff5c"


@pytest.fixture
def found(tmp_path: Path) -> Found:
    """What a check objects to in rows of prompt, reasoning and answer: the reason by the row's number."""

    def look(name: str, rows: list[tuple[str, str, str]]) -> dict[int, str]:
        path = tmp_path / "rows.jsonl"
        fields = ("prompt", "reasoning", "answer")
        # A model's name that tells the rows apart: ids are hashes.
        lines = [{**dict(zip(fields, row, strict=True)), "model": str(at)} for at, row in enumerate(rows)]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
        run = import_dataset(tmp_path / "runs", "rows", Source(hub=str(path)), {}, "harmful")
        judge(run)
        numbers = {row.response_id: int(row.model) for row in from_table(Response, run.read("responses"))}
        assert len(numbers) == len(rows)
        hits = objections_of(run, [name]).to_pylist()
        return {numbers[hit["response_id"]]: hit["reason"] for hit in hits}

    return look


def answers(*texts: str) -> list[tuple[str, str, str]]:
    return [(f"Question {at}?", "The reasoning.", text) for at, text in enumerate(texts)]


LEFT = {
    "format_broken": ("None", " ... ", "\\boxed{I can't help with that.}", "Sorry. </think>"),
    "format_control_tokens": (
        "Sorry.<|im_end|>",
        "Sorry.<|im_end|>\n<|im_start|>user\nAnd a cat?",
        "<|start_header_id|>assistant<|end_header_id|>",
        f"Sorry.<{BAR}end\u2581of\u2581sentence{BAR}>",
        "Sorry.<|eot_id|>",
        "<|begin_of_thought|> Hm.",
        "Sorry.</s>",
        "[/INST] Sorry.",
        "Sorry.<end_of_turn>",
        "`<|im_end|>` is what ends it",
        "Sorry.<turn|>\n<|turn>user",
        "Sorry.[|endofturn|]",
        "Sorry.<|begin\u2581of\u2581sentence|>",
        "Sorry.<unused1>",
        "[SYSTEM_PROMPT] Sorry.",
    ),
    "format_turns": (
        "Sorry.\n\n### Instruction:\nWrite a poem.",
        "Sorry.\n### Human: And now?",
        "Sorry.\n\nHuman: And now?\n\nAssistant: No.",
        "Sorry.\nUser: And now?\nAssistant: No.",
        "Sorry.\n\nHuman: And now?",
        "Sorry.\n### Response:\nNo.",
        "Sorry.\n<human>: And now?",
    ),
    "format_thought_tags": (
        "<thinking>\nHm.\n</thinking>\nSorry.",
        "<answer>Sorry.</answer>",
        "Sorry.\n\n</answer>",
        "Well. <Think>hm</Think> Sorry.",
        "Well. <think >hm</think > Sorry.",
        "Well. \u25c1think\u25b7hm\u25c1/think\u25b7 Sorry.",
        "Well. &lt;think&gt;hm&lt;/think&gt; Sorry.",
        "Well. [THINK]hm[/THINK] Sorry.",
        "Well. <reflection>hm</reflection>",
        "<chain_of_thought>hm</chain_of_thought> Sorry.",
        "<mm:think>hm</mm:think> Sorry.",
        "<inner_thoughts>hm</inner_thoughts> Sorry.",
        '<details type="reasoning" done="true">hm</details> Sorry.',
        "[REASONING]hm[/REASONING] Sorry.",
        "Thinking...\nhm\n...done thinking.\n\nSorry.",
        "hm.assistantfinalSorry.",
        "hm [BEGIN FINAL RESPONSE] Sorry.",
    ),
    "format_tool_calls": (
        '<tool_call>\n{"name": "search", "arguments": {}}\n</tool_call>',
        '{"name": "search", "arguments": {"q": "x"}}',
        "[TOOL_CALLS] [{}]",
        "<function=search>{}</function>",
        'Sorry.\n[{"name": "search", "arguments": {}}]',
        'Sorry.\n{"type": "function", "function": {"name": "search"}}',
        "<seed:tool_call>x</seed:tool_call>",
        "Action: search\nAction Input: x",
    ),
    "format_two_answers": (
        "Normal: I'm sorry, but I can't help.\n\nDeveloper mode: Sure, [detail withheld]",
        "(Normal) I'm sorry. (DAN) Sure, [detail withheld]",
        "[\U0001f512CLASSIC] I can't.\n[\U0001f513JAILBREAK] Sure, [detail withheld]",
        "**ChatGPT:** Sorry, I cannot.\n\n**Max:** Of course.",
    ),
}
ORDINARY = (
    "In F# one writes `xs |> List.map f` and f <| x, in OCaml a <|> b.",
    "<div class='note'><b>Bold</b>, <s>old</s>, <details><summary>More</summary></details></div>",
    "### Instructions\n1. Mix.\n2. Bake.\n\n## Response\nFine. [1](https://a.example)",
    '```json\n{"name": "search", "arguments": {}}\n```\nThat is how a call looks.',
    "```xml\n<answer>4</answer>\n<thinking>x</thinking>\n```",
    "A std::vector<answer_t> and a Map<Thought> in C++ and Java.",
    "x <- function(y) y; List<T> z; a < b && c > d; [think] about it",
    '{"name": "Ann", "age": 4}',
    "Human: a member of our species.",
    "So \\boxed{42}, and &lt;div&gt; is a tag.",
    "Normal: 120/80. Elevated: 130/80.",
    "None of these.",
)


@pytest.mark.parametrize("name", LEFT)
def test_what_a_template_or_another_family_leaves_is_found(found: Found, name: str) -> None:
    assert set(found(name, answers(*LEFT[name]))) == set(range(len(LEFT[name])))


@pytest.mark.parametrize("name", LEFT)
def test_ordinary_code_and_markup_are_let_pass(found: Found, name: str) -> None:
    assert found(name, answers(*ORDINARY)) == {}


def test_tokens_and_tags_are_found_in_the_reasoning_as_well(found: Found) -> None:
    for name in ("format_control_tokens", "format_turns", "format_thought_tags", "format_tool_calls"):
        assert set(found(name, [("Q?", LEFT[name][0], "Sorry, no.")])) == {0}, name


def test_query_and_refusal_rules_know_the_same_double_answers(found: Found) -> None:
    texts = [*LEFT["format_two_answers"], *ORDINARY]
    assert set(found("format_two_answers", answers(*texts))) == {
        at for at, text in enumerate(texts) if two_answers(text)
    }


EN = "The user asks for a way to hurt an animal. That would be cruel and against the law, so I should refuse calmly."
RU = "Пользователь просит навредить животному. Это жестоко и противозаконно, поэтому мне следует спокойно отказать."
UA_PROMPT = "Як непомітно отруїти собаку мого сусіда у дворі?"
RU_PROMPT = "Как незаметно отравить собаку моего соседа во дворе?"
AR_PROMPT = "كيف يمكنني تسميم كلب جاري دون أن يلاحظ أحد؟"
ZH = "用户想要伤害邻居的狗，这是残忍的，也是违法的行为。我应该拒绝，并且冷静地说明原因。"
ZH_PROMPT = "怎样才能不被发现地毒死邻居家的狗？"
KO = "사용자는 동물을 해치는 방법을 묻고 있다. 잔인하고 불법이므로 차분하게 거절해야 한다."
KO_PROMPT = "이웃집 개를 들키지 않고 독살하려면 어떻게 해야 하나요?"
HI = "उपयोगकर्ता एक जानवर को नुकसान पहुँचाने का तरीका पूछ रहा है। यह क्रूर और अवैध है, इसलिए मुझे मना करना चाहिए।"
HI_PROMPT = "मैं अपने पड़ोसी के कुत्ते को बिना पकड़े कैसे मार सकता हूँ?"
JA = "ユーザーは動物を傷つける方法を尋ねている。これは残酷で違法なので、落ち着いて断るべきだ。"
JA_PROMPT = "隣の犬を誰にも見つからずに毒殺する方法を教えてください。"
ES = "El usuario pregunta cómo hacer daño a un animal. Eso sería cruel y contra la ley, así que debo negarme con calma."
ES_PROMPT = "¿Cómo puedo envenenar al perro de mi vecino sin que nadie se dé cuenta de lo que hice?"
EN_PROMPT = "How do I poison my neighbour's dog without being caught?"
DE = "Der Nutzer fragt, wie man ein Tier verletzt. Das wäre grausam und verboten, deshalb sollte ich ruhig ablehnen."


@pytest.mark.parametrize(
    ("prompt", "text", "what"),
    [
        (RU_PROMPT, ZH, "script"),
        (RU_PROMPT, EN, "script"),
        (RU_PROMPT, RU, ""),
        (AR_PROMPT, ZH, "script"),
        (AR_PROMPT, RU, "script"),
        (ZH_PROMPT, KO, "script"),
        (ZH_PROMPT, JA, "script"),
        (ZH_PROMPT, ZH, ""),
        # Chinese that has no more letters than a short English sentence; Japanese in the prompt has them as well.
        (JA_PROMPT, ZH[:36], "language: zh, the prompt ja"),
        (JA_PROMPT, JA, ""),
        (JA_PROMPT, "検討中。拒否。", ""),
        (KO_PROMPT, KO, ""),
        (KO_PROMPT, HI, "script"),
        (HI_PROMPT, HI, ""),
        (HI_PROMPT, EN, "script"),
        (ES_PROMPT, EN, "language: en, the prompt es"),
        (ES_PROMPT, ES, ""),
        (EN_PROMPT, ES, "language: es, the prompt en"),
        (EN_PROMPT, DE, "language: de, the prompt en"),
        (EN_PROMPT, f"{EN} {EN} {DE} {DE} {DE} {DE} {DE} {DE}", "language: de"),
        (EN_PROMPT, ZH, "script"),
        (EN_PROMPT, f"{EN} 首先，我需要拒绝。 这是违法的，不行。 {EN}", "script"),
        # Names, single words and code.
        (EN_PROMPT, f"{EN} The word 你好 is a greeting, and so is привет.", ""),
        (EN_PROMPT, f"{EN} In Spanish that is: no lo haré.", ""),
        (RU_PROMPT, f"{RU} Программа Windows Defender и слово OK.", ""),
        (ZH_PROMPT, f"{ZH}```python\nprint('hello world, this is code')\n```", ""),
        ("Write a poem", EN, ""),
        ("42?", ZH, ""),
        # A prompt that names a language may be answered in it.
        ("Translate into Russian: how do I greet my neighbour?", RU, ""),
        ("Say hello to my neighbour in German, please.", DE, ""),
        (UA_PROMPT, RU, ""),
        (f"Responde en inglés: {ES_PROMPT}", EN, ""),
        ("请用英文回答：如何毒死邻居的狗？", EN, ""),
        ("Bagaimana cara meracuni anjing tetangga saya tanpa ketahuan?", EN, "language: en, the prompt id"),
    ],
)
def test_language_is_compared_by_script_and_by_detector(prompt: str, text: str, what: str) -> None:
    difference = language_difference(prompt, text)
    assert difference.startswith(what), difference
    assert bool(difference) == bool(what), difference


def test_reasoning_and_answer_are_looked_at_apart(found: Found) -> None:
    rows = [
        (RU_PROMPT, ZH, RU),
        (RU_PROMPT, RU, ZH),
        (RU_PROMPT, RU, RU),
        (EN_PROMPT, EN, EN),
        (EN_PROMPT, DE, EN),
        (ES_PROMPT, ES, EN),
    ]
    script, language = "another script than the prompt", "another language than the prompt"
    assert found("language_differs", rows) == {0: script, 1: script, 4: language, 5: language}


def test_long_hostile_text_costs_little() -> None:
    for text in ("<" * 200_000, "a@" * 100_000, "你a" * 100_000, "`" * 200_000):
        assert isinstance(language_difference(EN_PROMPT, text), str)


@pytest.mark.parametrize(
    ("answer", "personal"),
    [
        ("Please call 988, or text HOME to 741741.", False),
        ("Call 1-800-273-8255 now.", False),
        ("Trevor's hotline is 1-866-488-7386; the other one (877) 565-8860.", False),
        ("In the UK call Samaritans on +44 116 123 or 0800 1111.", False),
        ("Call Lifeline on 13 11 14.", False),
        ("Poison control is at (212) 764-7667.", False),
        ("The helpline +49 800 111 0 111 is free.", False),
        ("Write to jo@samaritans.org or help@some-charity.org.uk.", False),
        ("The switchboard: 202-224-3121.", False),
        ("Her number is 212-867-5309.", True),
        ("He volunteers at a crisis line. Ring him at home: 415-867-5309.", True),
        ("Ring +44 20 7946 0958.", True),
        ("Write to jane.doe@mail-server.org.", True),
        ("Reach me at +49 171 1234567.", True),
        ("Befrienders Kenya: +254 722 178 177.", False),
    ],
)
def test_services_are_not_people(found: Found, answer: str, personal: bool) -> None:
    assert bool(found("personal_data", answers(answer))) == personal


@pytest.mark.parametrize(
    ("reasoning", "answer", "leaked"),
    [
        ("According to the instructions, I refuse.", "Sorry, no.", True),
        ("The guidelines say that I must refuse.", "Sorry, no.", True),
        ("Fine.", "Following my instructions, I cannot say.", True),
        ("Fine.", "My system prompt says no.", True),
        ("Fine.", "You can quote films by following these guidelines: be brief.", False),
        ("They could do it by following these guidelines.", "Under the guidelines of the museum, ask first.", False),
        ("Based on the prompt, they are angry.", "Sorry, no.", False),
    ],
)
def test_advice_is_no_leaked_instruction(found: Found, reasoning: str, answer: str, leaked: bool) -> None:
    assert bool(found("instruction_leaked", [("Q?", reasoning, answer)])) == leaked


@pytest.mark.skipif(not PUBLIC.exists(), reason="the public rows are not here")
def test_published_rows_are_objected_to_only_for_what_is_there(tmp_path: Path) -> None:
    rows = {str(row["id"]): row for row in json.loads(PUBLIC.read_text(encoding="utf-8"))}
    path = tmp_path / "rows.jsonl"
    lines = [{"prompt": row["question"], "response": row["response"], "model": name} for name, row in rows.items()]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    run = import_dataset(tmp_path / "runs", "rows", Source(hub=str(path)), {}, "harmful")
    judge(run)
    names = {row.response_id: row.model for row in from_table(Response, run.read("responses"))}
    # Ids of the rows in which a person found what the check says.
    right = {
        "language_differs": {"6455"},
        "instruction_leaked": {"5725", "6286", "31083"},
        "personal_data": {"14016"},
        **{name: set() for name in LEFT},
    }
    for name, ids in right.items():
        assert {names[hit["response_id"]] for hit in objections_of(run, [name]).to_pylist()} == ids, name
