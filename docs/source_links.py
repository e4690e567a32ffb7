"""A hook of mkdocs: a link from a page to a source file outside docs/ becomes the file's path.

On a code host such a link opens the file. The site has no copy of the sources, so there it reads `training/recipe.py`.
A link to a file that is not there stops the build.
"""

import re
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError

_LINK = re.compile(r"(?<!!)\[([^\]\[]+)\]\(((?:\.\./)+[^)#\s]+)\)")


def on_page_markdown(markdown: str, *, page: Any, config: Any, **_: Any) -> str:
    """Replace the links of one page."""
    docs = Path(config["docs_dir"])

    def path_of(match: re.Match[str]) -> str:
        words, link = match.groups()
        target = (docs / page.file.src_path).parent.joinpath(link).resolve()
        if target.is_relative_to(docs):
            return match.group(0)
        if not target.exists():
            raise PluginError(f"{page.file.src_path} links to {link}, which is not there")
        name = target.relative_to(docs.parent).as_posix()
        return f"`{name}`" if name.endswith(words.strip("`")) else f"{words} (`{name}`)"

    return _LINK.sub(path_of, markdown)
