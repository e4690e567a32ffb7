"""Somebody with a keyboard, in front of a page of the service."""

import re
from contextlib import suppress
from typing import Any

import pytest

from tests.service.conftest import Service

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
_MOST_TABS = 160
_FOCUSED = """() => {
  const at = document.activeElement, label = at.labels && at.labels.length ? at.labels[0].textContent : "";
  return (label || at.getAttribute("aria-label") || at.textContent || at.title).trim().replace(/\\s+/g, " ");
}"""


class Person:
    """Somebody with a keyboard."""

    def __init__(self, page: Any, service: Service) -> None:
        self.page, self.service = page, service

    def go_to(self, begins: str) -> None:
        """Press Tab until the name of what has the focus begins with these words."""
        for _ in range(_MOST_TABS):
            self.page.wait_for_load_state()
            self.page.keyboard.press("Tab")
            # The page may just be giving way to the next one.
            with suppress(playwright.Error):
                if re.fullmatch(rf"{re.escape(begins)}(\W.*)?", self.page.evaluate(_FOCUSED)):
                    return
        raise AssertionError(f"the keyboard does not reach '{begins}' on {self.page.url}")

    def press(self, begins: str) -> None:
        """Go to a button or a link, and press Enter."""
        self.go_to(begins)
        self.page.keyboard.press("Enter")

    def fill(self, begins: str, text: str) -> None:
        """Go to a field and put a text into it; of a list, choose what begins so."""
        self.go_to(begins)
        if self.page.evaluate("document.activeElement.tagName") == "INPUT":
            self.page.keyboard.press("Control+A")
        self.page.keyboard.type(text)
