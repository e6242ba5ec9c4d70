"""Makes `mkdocs serve` quick: after an edit only what changed is converted again, and the rest is remembered.

`mkdocs serve --clean` converts everything every time, as `mkdocs build` does.
"""  # noqa: INP001 - MkDocs loads it by its path

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from material.plugins.search import plugin as search
from mkdocs.structure.pages import Page

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

Render = Callable[[Page, "MkDocsConfig", "Files"], None]
RENDERED = ("content", "toc", "_title_from_render", "present_anchor_ids", "links_to_anchors")  # by Page.render


def on_startup(*, command: str, dirty: bool) -> None:  # noqa: ARG001 - MkDocs names both
    """Remember from here on, if this is a server."""
    if command == "serve":
        Page.render = remembering(Page.render)
        search.Parser = RememberingParser


def remembering(render: Render) -> Render:
    """`Page.render`, called only if the page's text, a fragment, the glossary or the list of files is new.

    A page of the API is converted every time, because what it shows stands in Python files.
    """
    memory: dict[str, tuple[int, dict[str, Any]]] = {}

    def render_once(page: Page, config: MkDocsConfig, files: Files) -> None:
        source = page.file.src_uri
        fragments = [path.read_text(encoding="utf-8") for path in sorted(Path(config.docs_dir).glob("generated/*"))]
        key = hash((page.markdown, *fragments, str(config.mdx_configs), *files.src_uris))
        known, found = memory.get(source, (None, {}))
        if known != key or "::: " in page.markdown:
            render(page, config, files)
            found = {name: getattr(page, name) for name in RENDERED}
            memory[source] = key, found | {"toc": deepcopy(page.toc)}  # plugins add to it
            return
        links = {files.src_uris[file.src_uri]: links for file, links in (found["links_to_anchors"] or {}).items()}
        vars(page).update(found, toc=deepcopy(found["toc"]), links_to_anchors=links)

    return render_once


class RememberingParser(search.Parser):  # type: ignore[misc]
    """What a page says to the search, found once for each text."""

    _memory: dict[str, Any] = {}  # noqa: RUF012 - it is to be shared

    def feed(self, text: str) -> None:
        """Read the HTML of a page."""
        if text in self._memory:
            self.data = self._memory[text]
        else:
            super().feed(text)
            self._memory[text] = self.data
