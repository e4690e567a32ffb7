import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.errors import UserError
from pipelines.thinking import join
from tests.commands import command
from training.mixtures.mixture import Mixture, draw
from training.students.quiet import quiet

IMPROVED = [
    {
        "id": f"row-{n}",
        "kind": "harmful",
        "prompt": f"Request {n}",
        "messages": [
            {"role": "user", "content": f"Request {n}"},
            {"role": "assistant", "content": join("It would hurt someone.", "Sorry, no.")},
        ],
    }
    for n in range(10)
]


@pytest.fixture
def drawn(tmp_path: Path) -> Callable[..., Mixture]:
    def from_release(release: Path, seed: int = 1, **wanted: int) -> Mixture:
        with quiet():
            return draw(release, wanted, seed, tmp_path / "cache")

    return from_release


def test_draw_depends_on_seed_and_not_on_row_order(
    write_release: Callable[..., Path], drawn: Callable[..., Mixture]
) -> None:
    forwards = write_release({"improved": IMPROVED}, "forwards")
    backwards = write_release({"improved": IMPROVED[::-1]}, "backwards")
    first = drawn(forwards, improved=4)
    assert first.rows == drawn(backwards, improved=4).rows
    assert first.content == drawn(backwards, improved=4).content
    assert first.rows != drawn(forwards, seed=2, improved=4).rows
    assert len({row.id for row in first.rows}) == 4


@pytest.mark.parametrize("key", ["reasoning_content", "thinking"])
def test_reasoning_beside_the_answer_is_trained_on_as_within_it(
    key: str, write_release: Callable[..., Path], drawn: Callable[..., Mixture]
) -> None:
    apart = [{"role": "assistant", "content": "Sorry, no.", key: "It would hurt someone."}]
    beside = [{**row, "messages": [{**row["messages"][0], key: None}, *apart]} for row in IMPROVED]  # type: ignore[dict-item]
    inline = drawn(write_release({"improved": IMPROVED}, "inline"), improved=4)
    assert drawn(write_release({"improved": beside}, "beside"), improved=4).content == inline.content


def test_draw_keeps_whole_conversations_and_counts_them(release: Path, drawn: Callable[..., Mixture]) -> None:
    mixture = drawn(release, improved=10, benign=6)
    assert mixture.counts() == {"improved": {"harmful": 10}, "benign": {"benign": 6}}
    assert all([turn["role"] for turn in row.messages] == ["user", "assistant"] for row in mixture.rows)
    assert all("<think>\n" in row.messages[1]["content"] for row in mixture.rows)
    assert sorted(mixture.files) == [
        "data/benign/train-00000-of-00001.parquet",
        "data/improved/train-00000-of-00001.parquet",
    ]


def broken(**change: Any) -> list[dict[str, Any]]:
    return [{**IMPROVED[0], **change}]


USER = {"role": "user", "content": "Request"}
ASSISTANT = {"role": "assistant", "content": "Sorry."}


@pytest.mark.parametrize(
    ("configs", "message"),
    [
        ({"improve": IMPROVED}, r"Unknown configuration of the release .* 'improved'. Did you mean 'improve'\?"),
        ({"improved": [{"prompt": "Request", "answer": "Sorry."}]}, "no column 'messages', only prompt, answer"),
        ({"improved": []}, "has no rows"),
        ({"improved": IMPROVED[:3]}, "has 3 rows, the recipe's mixture wants 4.*--set mixture.improved=3"),
        ({"improved": broken(messages=[USER]) * 4}, "Row 'row-0'.*ends with its only assistant turn"),
        ({"improved": broken(messages=[ASSISTANT, USER]) * 4}, "ends with its only assistant turn"),
        ({"improved": broken(messages=[USER, ASSISTANT, USER, ASSISTANT]) * 4}, "its only assistant turn"),
        ({"improved": broken(messages="Request, Sorry.") * 4}, "is not a conversation"),
    ],
)
def test_bad_dataset_is_one_clear_line(
    write_release: Callable[..., Path], drawn: Callable[..., Mixture], configs: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message) as raised:
        drawn(write_release(configs), improved=4)
    assert "\n" not in str(raised.value)


def test_dataset_must_be_a_release_folder(tmp_path: Path, drawn: Callable[..., Mixture]) -> None:
    with pytest.raises(UserError, match="is not a folder"):
        drawn(tmp_path / "nowhere", improved=4)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="cannot be read as a release"):
        drawn(tmp_path / "empty", improved=4)


def test_damaged_parquet_is_one_clear_line(release: Path, drawn: Callable[..., Mixture]) -> None:
    (release / "data" / "improved" / "train-00000-of-00001.parquet").write_bytes(b"PAR1 not at all")
    with pytest.raises(UserError, match="cannot be read as a release"):
        drawn(release, improved=4)


def test_a_limit_on_the_size_of_files_is_named_as_what_it_is(release: Path, tiny_student: Path) -> None:
    words = ["train", "smollm2-135m-cpu", "--dataset", str(release), "--student", str(tiny_student), "--check"]
    done = command([*words, "--set", "mixture={improved: 2}"], limits={resource.RLIMIT_FSIZE: 200})
    assert done.returncode == 2
    assert "the file would be larger than is allowed here. Raise the limit (ulimit -f)" in done.stderr
