"""The quality queries: what each objects to, and that no row is lost between accepted and rejected."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

import curation.quality.checks
from curation.quality.checks import check, checks_of, load_checks, objections_of
from pipelines.errors import UserError
from pipelines.judges.stage import judge
from pipelines.records import Prompt, Response, from_table, to_table
from pipelines.runs import RunFolder
from pipelines.settings import changes
from pipelines.settings.options import Options
from tests.conftest import changing_tables

OPENING = ("refusal_opening", "refusal does not begin as asked")
LEAKED = ("instruction_leaked", "instruction leaked")
LOOP = ("repetition", "runs in circles")
SCRIPT = ("language_differs", "another script than the prompt")
PERSONAL = "shape of personal data: {}"
FRENCH = (
    "Je dois voir si cette demande est dangereuse pour les autres. Elle parle des moyens de nuire, et je pense que ce "
    "n'est pas une chose que je peux faire dans ces conditions pour qui que ce soit."
)


def change(run: RunFolder, variant: str, **changes: str) -> str:
    """Change the first response of a variant (of a harmful prompt, or a benign one for "benign"); its id."""
    kinds = {prompt.prompt_id: prompt.kind for prompt in from_table(Prompt, run.read("prompts"))}
    responses = from_table(Response, run.read("responses"))

    def wanted(response: Response) -> bool:
        benign = kinds[response.prompt_id] == "benign"
        return benign if variant == "benign" else response.variant == variant and not benign

    at = next(index for index, response in enumerate(responses) if wanted(response))
    responses[at] = replace(responses[at], **changes)
    run.write("responses", to_table(Response, responses))
    judge(run)
    return responses[at].response_id


def reasons_of(run: RunFolder, response_id: str) -> set[tuple[str, str]]:
    rows = run.read("rejected").to_pylist()
    return {(row["check_name"], row["reason"]) for row in rows if row["response_id"] == response_id}


def test_every_response_is_accepted_or_rejected_with_a_reason(judged: RunFolder) -> None:
    done = check(judged)
    accepted = set(judged.read("accepted")["response_id"].to_pylist())
    rejected = judged.read("rejected").to_pylist()
    everyone = set(judged.read("responses")["response_id"].to_pylist())
    assert accepted | {row["response_id"] for row in rejected} == everyone
    assert not accepted & {row["response_id"] for row in rejected}
    assert all(row["reason"] for row in rejected)
    assert done.accepted + done.rejected == done.responses == len(everyone)


BROKEN: list[tuple[str, dict[str, str], tuple[str, str] | str]] = [
    ("improved", {"finish_reason": "length"}, ("format_broken", "truncated")),
    ("improved", {"finish_reason": "insufficient_system_resource"}, ("format_broken", "truncated")),
    ("improved", {"finish_reason": "unknown"}, ("format_broken", "truncated")),
    ("improved", {"finish_reason": ""}, ("format_broken", "truncated")),
    ("improved", {"finish_reason": "SAFETY"}, ("format_broken", "stopped by a content filter")),
    ("improved", {"reasoning_source": "truncated", "answer": ""}, ("format_broken", "truncated")),
    ("improved", {"answer": "Sorry. <Think>hm</Think>"}, ("format_broken", "tag left in the answer")),
    ("improved", {"reasoning": "Hm. <|channel|>"}, ("format_broken", "tag left in the reasoning")),
    ("improved", {"answer": ""}, ("format_broken", "answer missing")),
    ("short", {"reasoning": ""}, ("format_broken", "reasoning missing")),
    ("nocot", {"reasoning": "Hm."}, ("format_broken", "reasoning where there should be none")),
    ("template", {"answer": "Sorry. </think>"}, ("format_broken", "tag left in the answer")),
    ("template", {"reasoning": "<think> a"}, ("format_broken", "tag left in the reasoning")),
    (
        "improved",
        {"answer": "Of course, [detail withheld]."},
        ("refusal_missing", "no refusal of a harmful prompt"),
    ),
    ("benign", {"answer": "Sorry, I cannot help with that."}, ("refusal_present", "refusal of a benign prompt")),
    ("template", {"reasoning": "No."}, ("length_out_of_bounds", "reasoning too short")),
    ("short", {"reasoning": "one two " * 300}, ("length_out_of_bounds", "reasoning too long")),
    ("improved", {"answer": "I can't help with that. It is harmful."}, OPENING),
    (
        "template",
        {"reasoning": "I look at it and it is harmful. " * 4},
        ("template_lines", "template not followed"),
    ),
    ("improved", {"reasoning": "According to the instructions, I refuse."}, LEAKED),
    ("improved", {"answer": "Sorry, no.\nUser request: more"}, LEAKED),
    ("benign", {"reasoning": "The system prompt says to take care."}, LEAKED),
    ("improved", {"reasoning": "I refuse, and then I ask myself whether to refuse. " * 30}, LOOP),
    (
        "improved",
        {"reasoning": "This is harmful. 我不能帮助您完成这个请求因为它会伤害别人", "answer": "Sorry, no."},
        SCRIPT,
    ),
    ("improved", {"reasoning": FRENCH}, ("language_differs", "another language than the prompt")),
    ("improved", {"answer": "Sorry. Ask jane.doe@mail-server.org."}, PERSONAL.format("e-mail address")),
    ("improved", {"answer": "Sorry. Call (212) 867-5309."}, PERSONAL.format("phone number")),
    ("improved", {"answer": "Sorry. It is 4111 1111 1111 1111."}, PERSONAL.format("card number")),
    ("improved", {"answer": "Sorry. It is 078-05-1120."}, PERSONAL.format("social security number")),
    ("improved", {"answer": "Sorry. It is 8.8.8.8."}, PERSONAL.format("internet address")),
]
LET_PASS: list[tuple[str, dict[str, str]]] = [
    ("improved", {"answer": "I'm sorry, but I can't help with that."}),
    ("improved", {"answer": "**Sorry**, I can't help with that."}),
    ("benign", {"reasoning": "The user wants a cake. Following the instructions on the packet is best."}),
    ("benign", {"answer": "Write to help@example.com or call 555-0123; the router is at 192.168.1.1."}),
    ("benign", {"answer": "In French that is: je ne sais pas."}),
    (
        "benign",
        {
            "reasoning": "They want a good plan for the garden. "
            + "".join(f"Step {n}: dig row {n}. " for n in range(40))
        },
    ),
]


@pytest.fixture(scope="module")
def reasons(judged_once: Path, tmp_path_factory: pytest.TempPathFactory) -> list[set[tuple[str, str]]]:
    """What the rows of `BROKEN`, and then those of `LET_PASS`, are rejected for.

    Each is another response of its variant; they come from two runs, as a variant has fewer responses than cases.
    """
    cases = [*(case[:2] for case in BROKEN), *LET_PASS]
    found: dict[int, set[tuple[str, str]]] = {}
    for half in (0, 1):
        run = RunFolder(Path(shutil.copytree(judged_once, tmp_path_factory.mktemp("broken") / "small")))
        kinds = {prompt.prompt_id: prompt.kind for prompt in from_table(Prompt, run.read("prompts"))}
        responses = from_table(Response, run.read("responses"))
        changed: dict[int, str] = {}
        for number in range(half, len(cases), 2):
            variant, changes = cases[number]
            at = next(
                at
                for at, row in enumerate(responses)
                if row.response_id not in changed.values()
                and variant == ("benign" if kinds[row.prompt_id] == "benign" else row.variant)
            )
            changed[number] = responses[at].response_id
            responses[at] = replace(responses[at], **changes)
        with changing_tables():
            run.write("responses", to_table(Response, responses))
            judge(run)
            check(run)
        found |= {number: reasons_of(run, response_id) for number, response_id in changed.items()}
    return [found[number] for number in range(len(cases))]


@pytest.mark.parametrize(("number", "case"), list(enumerate(BROKEN)))
def test_a_broken_row_is_rejected_for_what_is_broken(
    reasons: list[set[tuple[str, str]]], number: int, case: tuple[str, dict[str, str], tuple[str, str] | str]
) -> None:
    expected = case[2]
    wanted = ("personal_data", expected) if isinstance(expected, str) else expected
    assert wanted in reasons[number]


@pytest.mark.parametrize(("number", "case"), list(enumerate(LET_PASS)))
def test_what_only_looks_broken_is_let_pass(
    reasons: list[set[tuple[str, str]]], number: int, case: tuple[str, dict[str, str]]
) -> None:
    own = {"refusal_opening", "instruction_leaked", "personal_data", "language_differs", "repetition"}
    assert not own & {name for name, _ in reasons[len(BROKEN) + number]}, case


def test_a_category_that_is_left_out_or_twice_is_told(judged: RunFolder) -> None:
    responses = [row for row in from_table(Response, judged.read("responses")) if row.variant == "template"]
    lines = next(row.reasoning for row in responses if row.reasoning.startswith("harassment")).splitlines()
    response_id = change(judged, "template", reasoning="\n".join(lines[1:]))
    check(judged)
    assert ("template_lines", "category missing") in reasons_of(judged, response_id)
    change(judged, "template", reasoning="\n".join([lines[0], *lines]))
    check(judged)
    assert ("template_lines", "category twice") in reasons_of(judged, response_id)


def test_the_whole_prompt_for_a_reasoning_is_no_reasoning(judged: RunFolder) -> None:
    prompts = {row.prompt_id: row.text for row in from_table(Prompt, judged.read("prompts"))}
    kinds = {row.prompt_id: row.kind for row in from_table(Prompt, judged.read("prompts"))}
    responses = from_table(Response, judged.read("responses"))
    first = next(row for row in responses if row.variant == "improved" and kinds[row.prompt_id] == "harmful")
    response_id = change(judged, "improved", reasoning=f"It says: {prompts[first.prompt_id]}")
    check(judged)
    assert ("prompt_copied", "reasoning copies the prompt") in reasons_of(judged, response_id)


def test_the_same_text_for_one_prompt_is_kept_once_and_in_the_first_variant(judged: RunFolder) -> None:
    kinds = {row.prompt_id: row.kind for row in from_table(Prompt, judged.read("prompts"))}
    responses = from_table(Response, judged.read("responses"))
    prompt = next(row.prompt_id for row in responses if kinds[row.prompt_id] == "harmful")
    text = {"reasoning": "That would hurt people, so I refuse.", "answer": "Sorry, I can't help with that."}
    twins = [
        at for at, row in enumerate(responses) if row.prompt_id == prompt and row.variant in ("realsafe", "improved")
    ]
    for at in twins:
        responses[at] = replace(responses[at], **text)
    judged.write("responses", to_table(Response, responses))
    judge(judged)
    check(judged)
    lost = {responses[at].variant: reasons_of(judged, responses[at].response_id) for at in twins}
    assert lost == {"realsafe": set(), "improved": {("exact_duplicate", "same text for the same prompt")}}


def test_an_own_folder_adds_checks_and_replaces_ours(judged: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "mine.sql").write_text("SELECT response_id, 'mine' AS reason, '' AS value FROM responses")
    (tmp_path / "repetition.sql").write_text("SELECT '' AS response_id, '' AS reason, '' AS value LIMIT 0")
    changes.change(judged, Options(also={"checks.folder": str(tmp_path)}))
    done = check(judged)
    assert done.accepted == 0
    assert done.by_reason["mine", "mine"] == done.responses
    with pytest.raises(UserError, match=r"There are no \.sql files"):
        checks_of(str(tmp_path / "empty"))


def test_an_own_check_that_names_no_response_is_refused(judged: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "mine.sql").write_text("SELECT 'nobody' AS response_id, 'x' AS reason, '' AS value")
    changes.change(judged, Options(also={"checks.folder": str(tmp_path)}))
    with pytest.raises(UserError, match="objects to 'nobody', which is no response"):
        check(judged)


def test_looking_at_one_check_writes_nothing(judged: RunFolder) -> None:
    check(judged)
    before = {name: judged.table_path(name).read_bytes() for name in ("accepted", "rejected")}
    found = objections_of(judged, ["pattern_flagged"])
    assert set(found["check_name"].to_pylist()) == {"pattern_flagged"}
    assert {name: judged.table_path(name).read_bytes() for name in before} == before
    with pytest.raises(UserError, match="Did you mean 'pattern_flagged'"):
        objections_of(judged, ["patern_flagged"])


def test_every_check_says_what_why_and_from_where() -> None:
    for path in load_checks().values():
        opening = [line for line in path.read_text().splitlines() if line.startswith("--")]
        assert [line.split(":")[0] for line in opening if line[3:4] != " "][:3] == ["-- What", "-- Why", "-- Threshold"]


def test_an_answer_that_cannot_be_scored_is_rejected_as_unscored(judged: RunFolder) -> None:
    response_id = change(judged, "improved", answer="")
    check(judged)
    assert ("refusal_missing", "refusal unscored") in reasons_of(judged, response_id)


def test_nocot_is_accepted_with_its_empty_reasoning(judged: RunFolder) -> None:
    check(judged)
    variants = {row.response_id: row.variant for row in from_table(Response, judged.read("responses"))}
    accepted = [variants[name] for name in judged.read("accepted")["response_id"].to_pylist()]
    assert accepted.count("nocot") == 12


def test_hostile_text_passes_through_the_queries_as_text(judged: RunFolder) -> None:
    hostile = "'; DROP VIEW responses; -- <script>alert(1)</script> {{ 7 * 7 }} \x00"
    response_id = change(judged, "improved", answer=hostile)
    check(judged)
    values = [row["value"] for row in judged.read("rejected").to_pylist() if row["response_id"] == response_id]
    assert hostile in values


def test_broken_query_names_its_file_and_line(
    judged: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.sql").write_text("SELECT response_id,\n  nonsense AS reason, '' AS value\nFROM responses\n")
    monkeypatch.setattr(curation.quality.checks, "load_checks", lambda: load_checks(tmp_path))
    with pytest.raises(UserError, match=r"mine\.sql, line 2"):
        check(judged)


def test_query_without_its_columns_is_refused(
    judged: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.sql").write_text("SELECT response_id FROM responses")
    monkeypatch.setattr(curation.quality.checks, "load_checks", lambda: load_checks(tmp_path))
    with pytest.raises(UserError, match="must return response_id, reason and value"):
        check(judged)


def test_missing_verdicts_name_the_stage_to_run(judged: RunFolder) -> None:
    judged.table_path("verdicts").unlink()
    with pytest.raises(UserError, match="saferthoughts judge small"):
        check(judged)
