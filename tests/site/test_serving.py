"""The server of the site converts again only what changed, and what it serves is what a build makes."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest
from material.plugins.search import plugin as search
from mkdocs.commands.build import build
from mkdocs.config import load_config
from mkdocs.structure.pages import Page

from accelgen.project.places import ROOT

CONFIG = """
site_name: Small
use_directory_urls: true
theme: {name: material}
plugins: [search, tags, autorefs]
markdown_extensions: [toc, {pymdownx.snippets: {base_path: [docs/generated]}}]
exclude_docs: /generated/
validation: {links: {anchors: warn}}
"""
PAGES = {
    "index.md": "# Home\n\n[One](one.md#part)\n",
    "one.md": '---\ntags: [x]\n---\n# One\n\n## Part\n\nText of one.\n\n--8<-- "fragment.md"\n',
    "two.md": "# Two\n\nText of two.\n",
    "tags.md": "# Tags\n\n<!-- material/tags -->\n",
    "generated/fragment.md": "Shared.\n",
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mkdocs.yml").write_text(CONFIG)
    for name, text in PAGES.items():
        path = tmp_path / "docs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


@pytest.fixture
def serving() -> ModuleType:
    spec = importlib.util.spec_from_file_location("serving", ROOT / "docs" / "serving.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def made(project: Path, name: str) -> dict[str, str]:
    """Builds the project strictly into a folder; what its pages and its index then say."""
    build(load_config(str(project / "mkdocs.yml"), site_dir=str(project / name), strict=True))
    pages = {path.relative_to(project / name).as_posix(): path.read_text() for path in (project / name).rglob("*.html")}
    index = json.loads((project / name / "search" / "search_index.json").read_text())
    return pages | {"search": json.dumps(index["docs"])}


def test_only_what_changed_is_converted_and_all_is_as_built_anew(
    project: Path, serving: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    render, converted = Page.render, []

    def counted(page: Page, *rest: object) -> None:
        converted.append(page.file.src_uri)
        render(page, *rest)

    remembering = serving.remembering(counted)
    for edited, text, expected in (
        ("two.md", PAGES["two.md"], {"index.md", "one.md", "two.md", "tags.md"}),
        ("two.md", "# Two\n\nOther text.\n", {"two.md"}),
        ("one.md", PAGES["one.md"].replace("[x]", "[y]").replace("of one", "of the first"), {"one.md"}),
        ("generated/fragment.md", "Changed.\n", {"index.md", "one.md", "two.md", "tags.md"}),
        ("new.md", "# New\n", {"index.md", "one.md", "two.md", "tags.md", "new.md"}),
    ):
        (project / "docs" / edited).write_text(text)
        converted.clear()
        with monkeypatch.context() as patch:
            patch.setattr(Page, "render", remembering)
            patch.setattr(search, "Parser", serving.RememberingParser)
            served = made(project, "served")
        assert set(converted) == expected, edited
        assert served == made(project, "fresh"), edited


@pytest.mark.parametrize(("command", "remembers"), [("serve", True), ("build", False)])
def test_a_server_remembers_and_a_build_does_not(
    serving: ModuleType, monkeypatch: pytest.MonkeyPatch, command: str, *, remembers: bool
) -> None:
    before = Page.render, search.Parser
    monkeypatch.setattr(Page, "render", Page.render)  # to be as before in the end
    monkeypatch.setattr(search, "Parser", search.Parser)
    serving.on_startup(command=command, dirty=False)
    assert (Page.render is not before[0]) == remembers
    assert (search.Parser is not before[1]) == remembers
