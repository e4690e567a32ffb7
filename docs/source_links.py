"""An extension of the site's Markdown: a link from a page to a source file outside docs/ becomes the file's path.

On a code host such a link opens the file. The site has no copy of the sources, so there it reads
`training/recipes/recipe.py`. A link to a file that is not there stops the build. `mkdocs.yml` names this
module; Zensical says which page it renders.
"""

import os
import re
from pathlib import Path

from markdown import Extension, Markdown
from markdown.preprocessors import Preprocessor
from zensical.extensions.context import ContextPreprocessor

_LINK = re.compile(r"(?<!!)\[([^\]\[]+)\]\(((?:\.\./)+[^)#\s]+)\)")
_DOCS = Path(__file__).absolute().parent


class SourceLinks(Preprocessor):
    """Replaces the links of one page."""

    def run(self, lines: list[str]) -> list[str]:
        """The lines with source files by their paths."""
        context = ContextPreprocessor.from_markdown(self.md)
        here = Path(context.page.path).parent if context else Path()

        def path_of(match: re.Match[str]) -> str:
            words, link = match.groups()
            target = Path(os.path.normpath(_DOCS / here / link))
            if target.is_relative_to(_DOCS):
                return match.group(0)
            if not target.exists():
                raise FileNotFoundError(f"docs/{here / link} is linked to, and is not there")
            name = target.relative_to(_DOCS.parent).as_posix()
            return f"`{name}`" if name.endswith(words.strip("`")) else f"{words} (`{name}`)"

        return _LINK.sub(path_of, "\n".join(lines)).split("\n")


class SourceLinksExtension(Extension):
    """Registers it before whatever reads links."""

    def extendMarkdown(self, md: Markdown) -> None:
        """Called by Markdown."""
        md.preprocessors.register(SourceLinks(md), "source_links", 100)


def makeExtension(**_: object) -> SourceLinksExtension:
    """Called by Markdown."""
    return SourceLinksExtension()
