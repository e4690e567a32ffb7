"""The site builds without a warning, holds every page, asks nothing of any other host, and can be searched.

It is built with what the docs extra asks for and nothing else, as in tests/test_extras.py.
"""

import importlib.metadata
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, names, with_sources
from tests.installing import environment, installed


def build(python: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """Build the site of a folder into its site/."""
    words = [str(python), "-m", "zensical", "build", "--strict"]
    return subprocess.run(words, cwd=folder, env=environment(python), capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The python of an environment with the docs extra alone."""
    try:
        return installed(tmp_path_factory.mktemp("docs") / "environment", "docs")
    except importlib.metadata.PackageNotFoundError as error:
        pytest.skip(f"{error.name} is not installed here")


@pytest.fixture(scope="module")
def site(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; a broken link or anchor fails the build."""
    folder = tmp_path_factory.mktemp("site")
    done = build(python, with_sources(folder))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No issues found" in done.stderr
    return folder / "site"


class Loaded(HTMLParser):
    """What a page has its browser load."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in ("script", "img", "iframe"):
            self.found.append(given.get("src") or "")
        elif tag == "link" and given.get("rel") in ("stylesheet", "icon", "preload", "preconnect"):
            self.found.append(given.get("href") or "")


def test_every_page_is_there_and_in_the_navigation(site: Path) -> None:
    pages = [name.removeprefix("docs/") for name in names() if name.startswith("docs/")]
    assert [page for page in pages if not (site / page).with_suffix(".html").exists()] == []
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:\n")[2]
    assert sorted(re.findall(r"[\w/-]+\.md", navigation)) == sorted(pages)


def test_a_word_of_a_page_is_found_by_the_search(site: Path) -> None:
    items = json.loads((site / "search.json").read_text(encoding="utf-8"))["items"]
    found = {item["location"].partition("#")[0] for item in items if "cascade" in item["text"]}
    assert "judging.html" in found
    errors = [item for item in items if item["location"].startswith("errors.html")]
    assert any("Unknown teacher" in item["text"] and "Its messages" in item["text"] for item in errors)


def test_a_copied_block_has_no_prompts(site: Path) -> None:
    # The button copies what is shown while the block has this attribute (docs/site.css hides the rest).
    assert "data-md-copying" in next((site / "assets" / "javascripts").glob("bundle*.js")).read_text(encoding="utf-8")
    assert "[data-md-copying] .gp, [data-md-copying] .go { display: none; }" in (site / "site.css").read_text()
    assert '<span class="gp">$ </span>' in (site / "guides" / "use-a-release.html").read_text(encoding="utf-8")


def test_no_page_loads_anything_from_another_host(site: Path) -> None:
    for page in site.rglob("*.html"):
        reader = Loaded()
        reader.feed(page.read_text(encoding="utf-8"))
        assert [address for address in reader.found if re.match(r"(https?:)?//", address)] == [], page
    for style in site.rglob("*.css"):
        assert "url(http" not in style.read_text(encoding="utf-8"), style


def test_a_source_file_is_named_by_its_path(site: Path) -> None:
    page = (site / "teachers.html").read_text(encoding="utf-8")
    named = ("pipelines/teachers/teachers.yaml", "pipelines/settings/config.py")
    assert any(f"<code>{path}</code>" in page for path in named)
    assert 'href="../' not in page.split("<article")[1].split("</article>")[0]


def test_a_link_to_a_source_file_that_is_not_there_stops_the_build(python: Path, tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("# Home\n\n[gone](../training/gone.py)\n", encoding="utf-8")
    shutil.copy(ROOT / "docs" / "source_links.py", tmp_path / "docs")
    (tmp_path / "mkdocs.yml").write_text("site_name: x\nmarkdown_extensions: [docs.source_links]\n", encoding="utf-8")
    done = build(python, tmp_path)
    assert done.returncode != 0
    assert "../training/gone.py is linked to, and is not there" in done.stdout + done.stderr


def test_links_of_readme_and_contributing_lead_somewhere() -> None:
    for page in ("README.md", "CONTRIBUTING.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text)
        assert [link for link in links if "://" not in link and not (ROOT / link).exists()] == [], page
