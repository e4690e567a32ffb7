"""The site builds without a warning, holds every page, and asks nothing of any other host."""

import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, names


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site; a broken link or anchor, or a page that is not in the navigation, fails the build."""
    folder = tmp_path_factory.mktemp("site")
    words = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


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


def test_every_page_is_there(site: Path) -> None:
    pages = [name.removeprefix("docs/") for name in names() if name.startswith("docs/")]
    assert [page for page in pages if not (site / page).with_suffix(".html").exists()] == []


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


def test_a_link_to_a_source_file_that_is_not_there_stops_the_build(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text("# Home\n\n[gone](../training/gone.py)\n", encoding="utf-8")
    hook = ROOT / "docs" / "source_links.py"
    (tmp_path / "mkdocs.yml").write_text(f"site_name: x\nhooks: [{hook}]\n", encoding="utf-8")
    words = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(tmp_path / "site")]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "../training/gone.py, which is not there" in done.stdout + done.stderr


def test_links_of_readme_and_contributing_lead_somewhere() -> None:
    for page in ("README.md", "CONTRIBUTING.md"):
        text = (ROOT / page).read_text(encoding="utf-8")
        links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text)
        assert [link for link in links if "://" not in link and not (ROOT / link).exists()] == [], page
