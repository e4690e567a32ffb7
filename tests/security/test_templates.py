"""A template out of somebody's release runs nothing, reads nothing and ends."""

from pathlib import Path

import pytest

from pipelines.errors import UserError
from pipelines.judges.guard_forms import guard_of
from pipelines.prompts.variant import reworded, variant
from pipelines.settings.judge import Judge
from pipelines.templates import MOST_CHARS, template_of
from tests.security.commands import Command

# What each is, and a word that the refusal names.
PAYLOADS = {
    "{{ cycler.__init__.__globals__.os.popen('touch HIT').read() }}": "a call (read) is not allowed",
    "{{ self.__init__.__globals__.__builtins__['open']('HIT', 'w') }}": "call",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}": "__subclasses__",
    "{{ query.__class__.__base__.__subclasses__() }}": "__subclasses__",
    "{{ query['__class__'] }}": "item",
    "{{ query|attr('__class__') }}": "attr",
    "{{ query|map('upper') }}": "map",
    "{{ lines|map(attribute='__class__')|list }}": "list",
    "{{ lipsum.__globals__ }}": "__globals__",
    "{{ joiner() }}": "call",
    "{{ namespace }}": "namespace",
    "{{ config }}": "config",
    "{{ request.application.__globals__ }}": "__globals__",
    "{{ get_flashed_messages }}": "get_flashed_messages",
    "{{ loop.__init__ }}": "__init__",
    "{{ self }}": "self",
    "{{ dict(a=1) }}": "call",
    "{% for _ in range(999999999) %}x{% endfor %}": "a loop goes over one of the names",
    "{% for a in lines %}{% for b in lines %}{% for c in lines %}x{% endfor %}{% endfor %}{% endfor %}": "loops inside",
    "{% for a in [1, 2, 3] %}x{% endfor %}": "a loop goes over one of the names",
    "{% for a in lines recursive %}{{ loop(lines) }}{% endfor %}": "recursive",
    "{{ 'a' * 999999999 }}": "mul",
    "{{ 9 ** 9 ** 9 ** 9 }}": "pow",
    "{{ query ~ query }}": "~",
    "{% set x = query %}": "set",
    "{% set x %}{{ query }}{% endset %}": "set",
    "{% import 'os' as os %}": "import",
    "{% include '/etc/passwd' %}": "include",
    "{% extends query %}": "extends",
    "{% from 'x' import y %}": "from",
    "{% macro bomb() %}{{ bomb() }}{% endmacro %}{{ bomb() }}": "macro",
    "{% call query() %}{% endcall %}": "call",
    "{% filter upper %}x{% endfilter %}": "filter",
    "{% block a %}{% endblock %}": "block",
    "{% with a = query %}{{ a }}{% endwith %}": "with",
    "{{ query|replace('', 'aaaaaaaaaaaaaaaaaaaa') }}": "replace",
    "{{ query|format(1) }}": "format",
    "{{ '%999999999d'|format(1) }}": "format",
    "{{ query|center(999999999) }}": "center",
    "{{ query|indent(999999999) }}": "indent",
    "{{ query|join('" + "a" * 500 + "') }}": "join",
    "{{ query|quoted|quoted|quoted|quoted|quoted }}": "quoted",
    "{{ query is filter }}": "filter",
    "{{ query is sameas(query) }}": "sameas",
    "{{ query[0:1] }}": "item",
    "{{ {'a': query} }}": "dict",
    "{{ [query] }}": "list",
    "{{ -query }}": "neg",
    "{{ 99999999999999999999 }}": "number",
    "{% debug %}": "debug",
    "{% do query %}": "do",
    "{% for a in lines %}{% break %}{% endfor %}": "break",
    "{% if caller %}{% endif %}": "caller",
    "{{ varargs }}": "varargs",
    "{{ ｃycler }}": "there is no",
    "{{ " + "(" * 3000 + "query" + ")" * 3000 + " }}": "Recursion",
    "{{ " + "not " * 200 + "query }}": "deeply nested",
    "{{ query }}" * 6000: "too large",
    "x" * (MOST_CHARS + 1): "characters",
    "{{ " + "9" * 6000 + " }}": "ValueError",
}


@pytest.mark.parametrize("text", PAYLOADS, ids=lambda text: text[:48])
def test_what_wants_more_than_its_names_is_refused_with_the_word(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as caught:
        template_of(text, ("query", "lines"), "It").render(query="q", lines=("a",))
    assert PAYLOADS[text] in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("text", list(PAYLOADS)[:12], ids=lambda text: text[:40])
def test_every_way_in_refuses_the_same(text: str) -> None:
    with pytest.raises(UserError, match="instruction for 'improved'"):
        reworded(variant("improved"), f"{{{{ query }}}} {text}")
    with pytest.raises(UserError, match="instruction for 'short'"):
        reworded(variant("short"), text).messages("q")
    with pytest.raises(UserError, match="The template of a judge, line 1"):
        Judge(kind="safety", form="template", teacher="t", template=text, safe="a", unsafe="b")


def test_the_line_of_what_is_refused_is_named() -> None:
    with pytest.raises(UserError, match="It, line 3: there is no 'os' here"):
        template_of("a\nb\n{{ os }}", ("query",), "It")


def test_a_loop_over_a_long_text_is_refused_before_it_begins() -> None:
    twice = "{% for a in query %}{% for b in query %}{% endfor %}{% endfor %}"
    with pytest.raises(UserError, match="'query' is one text, and no list"):
        template_of(twice, ("query",), "It").render(query="a" * 1_000_000)


def test_what_writes_without_bounds_is_stopped() -> None:
    bomb = template_of("{{ query }}" * 400, ("query",), "It")
    assert len(bomb.render(query="a" * 2_000)) == 800_000
    with pytest.raises(UserError, match="writes more than"):
        bomb.render(query="a" * 1_000_000)


def test_a_value_is_never_read_as_a_template() -> None:
    hostile = "{{ cycler }}{% include 'x' %}"
    assert template_of("<{{ query }}>", ("query",), "It").render(query=hostile) == f"<{hostile}>"


def test_what_our_own_prompts_and_users_need_works() -> None:
    text = "{% for line in lines if line %}{{ line | upper }}{% else %}none{% endfor %}{{ query if query is defined }}"
    assert template_of(text, ("query", "lines"), "It").render(query="q", lines=("a", "", "b")) == "ABq"
    assert template_of("{{ lines | join(', ') }}", ("lines",), "It").render(lines=("a", "b")) == "a, b"
    assert template_of("{{ query | quoted }}", ("query",), "It").render(query='it\'s "so"') == '"it\'s \\"so\\""'


@pytest.mark.parametrize("expression", ["(a+)+$", "(a|aa)+$", "(.*a){20}$", "([a-z]+)*!"])
def test_an_expression_of_a_judge_takes_time_by_the_reply_alone(expression: str) -> None:
    judge = Judge(kind="safety", form="template", teacher="t", template="{{ query }}", safe=expression, unsafe="zzz")
    # Python's own expressions would need 2 ** 5000 steps.
    assert guard_of(judge).read("a" * 5_000 + "?") is not None


@pytest.mark.parametrize("expression", ["(?=a)b", r"(a)\1", "(", "((a{100}){100}){100}", "\ud800"])
def test_an_expression_that_cannot_be_bounded_is_refused(expression: str) -> None:
    with pytest.raises(UserError, match="'safe' of a judge is not a regular expression that RE2 takes"):
        Judge(kind="safety", form="template", teacher="t", template="{{ query }}", safe=expression, unsafe="zzz")


def test_the_command_refuses_an_instruction_file(command: Command, tmp_path: Path) -> None:
    (tmp_path / "own.md").write_text("{{ query }}{{ cycler.__init__.__globals__.os.popen('touch HIT') }}")
    done = command("prompts", "mine", "--instruction", f"improved={tmp_path / 'own.md'}")
    assert (done.code, "call" in done.output) == (2, True), done.output
    assert "Traceback" not in done.output
    assert not (tmp_path / "HIT").exists()


def test_the_command_refuses_a_judge_of_a_template(command: Command, tmp_path: Path) -> None:
    """The second way out: `judge` rendered the template of a run's judge in a plain environment."""
    run = command.run("small")
    config = run / "run.yaml"
    judge = (
        "judging:\n  judges: [mine]\njudges:\n  mine:\n    kind: safety\n    form: template\n"
        "    teacher: rehearsal-judge\n"
        "    template: \"{{ cycler.__init__.__globals__.os.system('touch HIT') }}\"\n    safe: a\n    unsafe: b\n"
    )
    kept = [block for block in ("\n" + config.read_text()).split("\n") if block]
    text = "\n".join(_without(kept, ("judging", "judges"))) + "\n" + judge
    config.write_text(text)
    done = command("judge", "small")
    assert done.code == 2, done.output
    assert "The template of a judge, line 1: a call (system) is not allowed" in done.output
    assert not list(tmp_path.rglob("HIT"))


def _without(lines: list[str], keys: tuple[str, ...]) -> list[str]:
    kept, dropping = [], False
    for line in lines:
        if not line.startswith((" ", "-")):
            dropping = line.partition(":")[0] in keys
        if not dropping:
            kept.append(line)
    return kept
