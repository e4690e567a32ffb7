"""docs/notebook.ipynb does what it shows: run anew in an empty folder, every cell gives what is stored under it."""

from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from traitlets.config import Config

from tests.docs.pages import ROOT

NOTEBOOK = ROOT / "docs" / "notebook.ipynb"


def results(notebook: Any) -> list[tuple[str, list[str]]]:
    """Each cell's code with what it returns and prints; progress, which has times, is left out."""
    return [
        (
            cell["source"],
            [
                output["text"] if output["output_type"] == "stream" else output["data"]["text/plain"]
                for output in cell["outputs"]
                if output["output_type"] in ("stream", "execute_result")
            ],
        )
        for cell in notebook["cells"]
        if cell["cell_type"] == "code"
    ]


def test_the_notebook_gives_what_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    shown = nbformat.read(NOTEBOOK, as_version=4)
    again = nbformat.read(NOTEBOOK, as_version=4)
    # A socket in the folder, and no port; the kernel finds it from the same folder.
    monkeypatch.chdir(tmp_path)
    config = Config({"KernelManager": {"transport": "ipc"}})
    client = NotebookClient(again, timeout=300, config=config, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()
    assert results(again) == results(shown)
    assert all(found for _, found in results(shown))
    progress = [
        output["data"]["text/plain"]
        for cell in again["cells"]
        for output in cell.get("outputs", ())
        if output["output_type"] == "display_data"
    ]
    assert any(line.startswith("generate: 68/68 answers") for line in progress)


def test_the_notebook_names_no_path_of_a_machine() -> None:
    text = NOTEBOOK.read_text(encoding="utf-8")
    assert [word for word in ("/ho" + "me/", "/tm" + "p/", "/ro" + "ot/", "Traceback") if word in text] == []
