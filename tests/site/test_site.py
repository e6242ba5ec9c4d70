"""The checker of built sites finds what is planted, and finds nothing in the site as it is."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import pytest
from published import check_llms, check_page

from accelgen.project.places import ROOT
from accelgen.site.check import Problem, check, css_references
from accelgen.site.results import site_address
from accelgen.taxonomy.loading import load_taxonomy

ASSETS = ROOT / "docs" / "assets"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A small site with one of everything, all right."""
    (tmp_path / "a" / "deep").mkdir(parents=True)
    (tmp_path / "style.css").write_text('@font-face { src: url("f.woff2") } /* url(https://x.org/gone) */')
    (tmp_path / "f.woff2").write_text("")
    (tmp_path / "index.html").write_text(
        '<link rel="stylesheet" href="style.css"><link rel="canonical" href="https://x.org/">'
        '<h1 id="top">Hi</h1><a href="a/">a</a> <a href="a/#part">part</a> <a href="#top">top</a>'
        '<a href="https://x.org">out</a><img src="data:image/png;base64,xx" alt="">'
    )
    (tmp_path / "a" / "index.html").write_text(
        '<h2 id="part">P</h2><a href="..">up</a><a href="/a/deep/x.html?q=1">x</a>'
    )
    (tmp_path / "a" / "deep" / "x.html").write_text("<p>x")
    return tmp_path


def plant(site: Path, html: str) -> list[Problem]:
    page = site / "a" / "index.html"
    page.write_text(page.read_text() + "\n" + html)
    return check(site)


def test_a_good_site_has_no_problem(site: Path) -> None:
    assert check(site) == []


@pytest.mark.parametrize(
    ("html", "what"),
    [
        ('<a href="../gone/">x</a>', "../gone/ leads to nothing"),
        ('<a href="../../outside.html">x</a>', "../../outside.html leads to nothing"),
        ('<svg><a xlink:href="gone.html">x</a></svg>', "gone.html leads to nothing"),
        ('<img src="gone.png">', "gone.png leads to nothing"),
        ('<img srcset="../f.woff2 1x, gone.png 2x">', "gone.png leads to nothing"),
        ('<a href="#gone">x</a>', "#gone leads to a page without the id 'gone'"),
        ('<a href="../#gone">x</a>', "../#gone leads to a page without the id 'gone'"),
        ('<p id="part">x</p>', "the id 'part' occurs 2 times"),
    ],
)  # fmt: skip
def test_what_is_planted_is_found(site: Path, html: str, what: str) -> None:
    assert plant(site, html) == [Problem("a/index.html", 2, what)]


@pytest.mark.parametrize(
    ("html", "address"),
    [
        ('<script src="https://x.org/x.js"></script>', "https://x.org/x.js"),
        ('<script src="//x.org/x.js"></script>', "//x.org/x.js"),
        ('<link rel="preconnect" href="https://x.org">', "https://x.org"),
        ('<img srcset="https://x.org/i.png 2x">', "https://x.org/i.png"),
        ('<svg><use href="https://x.org/i.svg#a"/></svg>', "https://x.org/i.svg#a"),
        ("<style>p { background: url(https://x.org/b) }</style>", "https://x.org/b"),
        ("<p style=\"background: url('//x.org/b')\">", "//x.org/b"),
    ],
)
def test_a_request_to_another_host_is_found(site: Path, html: str, address: str) -> None:
    assert plant(site, html) == [Problem("a/index.html", 2, f"the page would fetch {address} from another host")]


def test_style_sheets_are_read_too(site: Path) -> None:
    (site / "style.css").write_text('p {}\n@import "https://x.org/c.css";\nb { src: url(gone.woff2) }')
    assert [str(problem) for problem in check(site)] == [
        "style.css, line 2: the page would fetch https://x.org/c.css from another host",
        "style.css, line 3: gone.woff2 leads to nothing",
    ]
    assert [r.line for r in css_references("/* a\n\n url(x) */\nurl(y)")] == [4]


def test_an_empty_folder_is_no_site(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="build the site first"):
        check(tmp_path)


@pytest.mark.parametrize("name", ["built_site", "offline_site"])
def test_the_site_is_clean(name: str, request: pytest.FixtureRequest) -> None:
    problems = check(request.getfixturevalue(name))
    assert not problems, "\n".join(map(str, problems))


def test_the_offline_site_needs_no_server(offline_site: Path) -> None:
    drawing = (offline_site / "explore" / "lineage.html").read_text(encoding="utf-8")
    assert 'href="../methods/eagle.html"' in drawing
    assert (offline_site / "search" / "search_index.js").is_file(), "the search needs a server"


def test_pages_and_lists_for_programs_are_whole(built_site: Path) -> None:
    for method in load_taxonomy().methods:
        page = (built_site / "methods" / method.id / "index.html").read_text(encoding="utf-8")
        assert ("Not implemented yet" in page) != method.is_implemented
        check_page(page, method)
    for address in check_llms((built_site / "llms.txt").read_text(encoding="utf-8")):
        path = built_site / address.removeprefix(site_address())
        assert (path / "index.html" if path.is_dir() else path).is_file(), address


def test_no_markdown_comes_through_as_text(built_site: Path) -> None:
    source = "\n".join(path.read_text(encoding="utf-8") for path in built_site.rglob("*.html"))
    assert "--8&lt;--" not in source, "a fragment was not included"
    assert not re.search(r"<p>(:::|===|\?\?\?|!!!) ", source), "Markdown of an extension came through as text"


def test_vendored_files_are_those_of_the_manifest() -> None:
    vendor = ASSETS / "vendor"
    listed = {}
    for library in json.loads((vendor / "manifest.json").read_text(encoding="utf-8")):
        assert {"name", "version", "licence", "source", "files"} <= set(library)
        listed |= library["files"]
    present = {p for p in vendor.rglob("*") if p.is_file() and p.name != "manifest.json"}
    assert {p.relative_to(vendor).as_posix(): hashlib.sha256(p.read_bytes()).hexdigest() for p in present} == listed


# ---- colours ------------------------------------------------------------------------------------------------------

GROUNDS = {  # ink -> what it is written on
    **dict.fromkeys(("ink", "soft", "link", "link-hover"), ("paper", "raised", "code-ground")),
    **dict.fromkeys(("speculative", "exiting", "parallel", "good", "turn", "bad"), ("paper", "raised")),
}
SPECIAL = [("good", "good-ground"), ("turn", "turn-ground"), ("bad", "bad-ground"), ("ink", "fill"),
           ("soft", "good-ground"), ("soft", "turn-ground")]  # fmt: skip


def luminance(colour: str) -> float:
    """Relative luminance as WCAG 2 defines it."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["default", "slate"])
def test_every_ink_is_readable_on_its_grounds(scheme: str) -> None:
    css = (ASSETS / "extra.css").read_text(encoding="utf-8")
    block = re.search(rf'\[data-md-color-scheme="{scheme}"\] {{(.*?)}}', css, re.DOTALL)
    assert block
    colours = dict(re.findall(r"--ag-([\w-]+): (#[0-9a-f]{6});", block[1]))
    for ink, ground in [*((ink, ground) for ink, grounds in GROUNDS.items() for ground in grounds), *SPECIAL]:
        dark, light = sorted((luminance(colours[ink]), luminance(colours[ground])))
        contrast = (light + 0.05) / (dark + 0.05)
        assert contrast >= 4.5, f"{scheme}: {ink} on {ground} has a contrast of {contrast:.2f}"
