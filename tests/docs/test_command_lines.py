"""No page shows a command line that this project would not take."""

import re

import pytest

from tests.docs.command_line import understood
from tests.docs.pages import REFERENCE, ROOT, File, commands, mentions, names, parts, tokens


def own_names(page: str) -> set[str]:
    """Names that the page's own files and options define: teachers, judges and variants of the reader's."""
    fences = [token.content for token in tokens(page) if token.type == "fence"]
    keys = {key for text in fences for key in re.findall(r"^([\w.-]+):", text, re.MULTILINE)}
    text = (ROOT / page).read_text(encoding="utf-8")
    files = [part.name for part in parts(page) if isinstance(part, File)]
    keys |= {name.split("/")[-2] for name in files if name.endswith("/variant.yaml")}
    return keys | set(re.findall(r"--set judges\.([\w-]+)\.", text))


@pytest.mark.parametrize("page", names())
def test_every_command_on_a_page_is_one_that_this_project_takes(page: str) -> None:
    wrong = []
    for command, whole in [*((one, True) for one in commands(page)), *((one, False) for one in mentions(page))]:
        try:
            understood(command.text, own_names(page), whole)
        except AssertionError as error:
            wrong.append(f"{page}:{command.line}: {error}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("saferthoughts generte mine", "generte"),
        ("saferthoughts generate", "Missing argument 'RUN'"),
        ("saferthoughts generate mine --max-price 20", "--max-price"),
        ("saferthoughts generate mine --max-cost much", "much"),
        ("saferthoughts generate mine yours", "yours"),
        ("saferthoughts regenerate R --teacher depseek", "depseek"),
        ("saferthoughts train smollm --check  # with a remark", "smollm"),
        ("saferthoughts eval mine --suite papers", "papers"),
        ("saferthoughts release", "COMMAND [ARGS]"),
        ("python -m benchmarks.nothing", "nothing"),
        ("python -m benchmarks.release --quickly", "--quickly"),
        ("accelerate launch --config_file training/accelerate/none.yaml -m saferthoughts train", "none.yaml"),
        ('pip install -e ".[everything]"', "everything"),
        ("make tests", "make tests"),
    ],
)
def test_a_command_that_has_rotted_is_found(line: str, expected: str) -> None:
    with pytest.raises((AssertionError, ModuleNotFoundError), match=re.escape(expected)):
        understood(line)


def test_what_a_sentence_says_may_be_left_out_of_a_command_in_it() -> None:
    understood("saferthoughts train RECIPE --output MODEL", whole=False)
    understood("saferthoughts release", whole=False)
    with pytest.raises(AssertionError, match="--otput"):
        understood("saferthoughts train RECIPE --otput MODEL", whole=False)


def test_most_commands_of_the_guides_are_run() -> None:
    kept = [command for page in names() if page not in REFERENCE for command in commands(page)]
    assert len([command for command in kept if command.not_run is None]) > 35


def test_a_page_that_is_only_read_is_there() -> None:
    assert set(REFERENCE) <= set(names())
