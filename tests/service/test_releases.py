"""Releases over the page: cards of others stay text, names lead nowhere, and nobody is asked in words not agreed to."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.errors import UserError
from service.http.problems import Problem
from service.releases.card_text import rendered, without_front_matter
from service.releases.releases import folder_or_address, pulled_name
from tests.service.conftest import Service
from tests.service.test_page import HOSTILE

NAME = "acme--safe@v1.0.0"
LINKS = (
    "[a](javascript:alert(1)) [b](JaVaScRiPt&colon;alert(1)) [c](data:text/html,x) [d](../../etc/passwd) [e](/ui/new) "
    "![p](https://elsewhere.example/x.png) ![q](plots/../../x.png) <https://auto.example>"
)


@pytest.fixture
def person(service: Service) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, headers={"origin": service.url}, timeout=300) as client:
        client.post("/login", data={"token": service.secrets["run"]})
        yield client


@pytest.fixture
def pulled(service: Service) -> Iterator[Path]:
    """A release of somebody else with a hostile card, as if it was pulled before."""
    folder = service.runs / ".serve" / "pulled" / NAME
    shutil.copytree(service.runs / "small" / "release", folder / "release")
    card = folder / "release" / "README.md"
    card.write_text(f"---\ntags: ['{'x' * 9}', '<b>']\n---\n# {HOSTILE}\n\n{LINKS}\n\n| a |\n|---|\n| {HOSTILE} |\n")
    yield folder / "release"
    shutil.rmtree(folder)


def key(text: str) -> str:
    found = re.search(r'name="key" value="(\w+)"', text)
    assert found is not None
    return found[1]


def test_a_card_of_others_is_text_and_its_faults_are_the_answers(
    service: Service, person: httpx.Client, pulled: Path
) -> None:
    page = person.get(f"/ui/releases/pulled/{NAME}").text
    card = page[page.index('aria-label="The card"') :]
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in card
    assert "[U+202E]" in card
    assert not re.findall(r"<(?:script|img|iframe|style|svg)\b", card)
    assert re.findall(r'<a href="([^"]*)" rel="noreferrer noopener nofollow">', card) == ["https://auto.example"]
    assert "[picture: p]" in card
    answers = person.get(f"/ui/releases/pulled/{NAME}/answers").text
    assert "README.md has another hash than checksums.sha256 says" in answers
    assert "Nobody. Whoever may write to the repository" in answers
    differs = person.get("/ui/compare", params={"before": f"pulled:{NAME}", "after": "run:small"}).text
    assert "Nothing differs" in differs
    listed = person.get("/ui/releases").text
    assert "acme/safe@v1.0.0" in listed
    assert "/ui/runs/small/release" in listed


def test_it_is_made_again_only_in_the_words_that_were_shown(
    service: Service, person: httpx.Client, pulled: Path
) -> None:
    path = f"/ui/releases/pulled/{NAME}/regenerate"
    form = {"key": key(person.get("/ui/runs/small").text), "name": "theirs", "teacher": "rehearsal"}
    for agreed in ("", "0" * 64):
        shown = person.post(path, data={**form, "agreed": agreed}).text
        assert "Ask them in these words?" in shown
        assert "From acme/safe@v1.0.0: Safe reasoning" in shown
        assert not (service.runs / "theirs").exists()
    taken = person.post(path, data={**form, "name": "small"})
    assert (taken.status_code, "There is a run &#39;small&#39;" in taken.text) == (422, True)
    digest = re.search(r'name="agreed" value="(\w{64})"', shown)
    assert digest is not None
    assert person.post(path, data={**form, "agreed": digest[1]}).headers["location"] == "/ui/runs/theirs"
    assert service.until_over("theirs")["state"] == "released"
    released = person.get("/ui/runs/theirs/release").text
    picture = re.search(r'<img src="(/ui/runs/theirs/release/plots/\w+\.png)"', released)
    assert picture is not None
    assert person.get(picture[1]).content.startswith(b"\x89PNG")
    assert person.get("/ui/runs/theirs/release/lineage.json").status_code == 404


def test_a_program_makes_it_again_only_in_the_words_of_its_preview(service: Service, pulled: Path) -> None:
    path = f"/releases/pulled/{NAME}/regenerate"
    wanted = {"name": "by-program", "teacher": "rehearsal"}
    assert service.post(f"{path}/preview", wanted, "read").status_code == 403
    shown = service.post(f"{path}/preview", wanted).json()
    assert shown["text"].startswith("From acme/safe@v1.0.0: Safe reasoning")
    assert str(service.runs) not in shown["text"]
    for agreed, status in (("", 409), ("0" * 64, 409), ("x", 422)):
        refused = service.post(path, {**wanted, "agreed": agreed})
        assert (refused.status_code, refused.headers["content-type"]) == (status, "application/problem+json")
    assert "nowhere" in service.post(path, {**wanted, "teacher": "nowhere", "agreed": shown["agreed"]}).json()["detail"]
    assert not (service.runs / "by-program").exists()
    assert service.post(path.replace("@v1", "@v2"), wanted).status_code == 404
    assert service.post(path, {**wanted, "agreed": shown["agreed"]}).status_code == 202
    service.post("/runs/by-program/cancel")
    assert service.until_over("by-program")["name"] == "by-program"
    assert "already" in service.post(path, {**wanted, "agreed": shown["agreed"]}).json()["detail"]


@pytest.mark.parametrize(
    "wanted",
    [("acme", ""), ("a/b/c", ""), ("acme/..", ""), ("acme/a--b", ""), ("acme/safe", "main"), ("acme/safe@v1.0.0", "")],
)
def test_what_is_no_release_on_the_hub_is_named(person: httpx.Client, wanted: tuple[str, str]) -> None:
    with pytest.raises(UserError, match="is no release on the Hub"):
        pulled_name(*wanted)


def test_a_bad_repository_is_said_in_the_form(person: httpx.Client) -> None:
    form = {"key": key(person.get("/ui/releases").text), "repo": "../x", "version": ""}
    refused = person.post("/ui/releases/pull", data=form)
    assert (refused.status_code, 'value="../x"' in refused.text) == (422, True)


@given(st.text() | st.builds("{}:{}".format, st.sampled_from(["run", "pulled", "hub"]), st.text()))
def test_a_key_leads_to_no_other_folder(tmp_path_factory: pytest.TempPathFactory, name: str) -> None:
    runs = tmp_path_factory.getbasetemp()
    for odd in (
        name,
        "run:../x",
        "run:.serve",
        "pulled:../x",
        "pulled:a--b@newest/../..",
        "hub:a/b@main",
        "hub:/etc@v1.0.0",
    ):
        with pytest.raises(Problem):
            folder_or_address(runs, odd)


PARTS = [*"[]()<>!`*_|\\#&;:\"'=/ \n-", "a", "<script>", "javascript:", "http://x", " onload=x"]


@given(st.lists(st.sampled_from(PARTS)).map("".join))
def test_no_markdown_becomes_more_than_plain_elements(text: str) -> None:
    page = rendered(text)
    names = set(re.findall(r"<(\w+)", page))
    assert names <= {
        *("p", "h3", "h4", "h5", "h6", "ul", "ol", "li", "blockquote", "pre", "code", "em", "strong", "a", "hr", "br"),
        *("div", "table", "thead", "tbody", "tr", "th", "td"),
    }
    assert not re.findall(r'<[^>"]*(?:"[^"]*"[^>"]*)*\son\w+=|href="(?!https?://)', page)
    assert without_front_matter(f"---\n{text.replace('---', '')}\n---\nrest") == "rest"
