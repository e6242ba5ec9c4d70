"""What a method's page says with code: the diff to its parent, links to lines, and the tests that prove its claims."""

from __future__ import annotations

import ast
import re
from functools import cache
from html import unescape

import markdown
import pytest

from accelgen.exports.markdown import front_matter, read_front_matter
from accelgen.project.places import ROOT
from accelgen.site import method_code
from accelgen.site.concepts import CONCEPTS, concept_links
from accelgen.site.lineage_diff import compare, definitions, parent_of
from accelgen.site.pages import pages
from accelgen.site.proof_links import EVERY, guarantee_address, own_tests, suite_address, suite_tests
from accelgen.site.results import Results, read_results
from accelgen.site.source_links import SourceLinks, listing, place
from accelgen.taxonomy.calls import BASELINE
from accelgen.taxonomy.loading import load_taxonomy
from accelgen.taxonomy.suites import CLAIMS, claims_of

TAXONOMY = load_taxonomy()
RESULTS = read_results(TAXONOMY, ROOT / "taxonomy.yaml")
IMPLEMENTED = [method.id for method in TAXONOMY.methods if method.is_implemented]
LINK = re.compile(r"\(([^()\s]*)#(line-[\w-]+)\)")


@cache
def site() -> dict[str, str]:
    return pages(TAXONOMY, RESULTS)


def parent_source(id: str) -> str:
    parent = parent_of(TAXONOMY.method(id), TAXONOMY, RESULTS.sources)
    return RESULTS.sources[parent.id if parent else BASELINE]


# ---- what it adds to its parent -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("id", "parent"),
    [
        ("eagle", "medusa"),  # the first of two
        ("layerskip", "self-speculative-decoding"),
        ("mask-predict", "nat-fertility"),  # what it builds on itself has no code
        ("rest", "llma"),
        ("calm", None),
    ],
)
def test_the_parent_is_the_nearest_ancestor_with_code(id: str, parent: str | None) -> None:
    found = parent_of(TAXONOMY.method(id), TAXONOMY, RESULTS.sources)
    assert (found.id if found else None) == parent


def test_a_nearer_ancestor_goes_before_one_of_an_earlier_branch() -> None:
    sources = dict.fromkeys(("calm", "ee-llm"), "x = 1")  # EE-LLM builds on CALM
    assert parent_of(TAXONOMY.method("layerskip"), TAXONOMY, sources) == TAXONOMY.method("ee-llm")


@pytest.mark.parametrize("id", IMPLEMENTED)
def test_the_diff_applied_to_the_parent_gives_the_method(id: str) -> None:
    old, new = parent_source(id), RESULTS.sources[id]
    before, after, found = definitions(old), definitions(new), compare(old, new)
    assert not set(found.left) & set(after)
    patched = {name: lines for name, lines in before.items() if name not in found.left}
    for name, lines in found.changed.items():
        assert tuple(line[1:] for line in lines if line[0] in " -") == before.get(name, ())
        patched[name] = tuple(line[1:] for line in lines if line[0] in " +")
    assert patched == after
    assert next(iter(found.changed)) == "generate"
    code = {line for lines in after.values() for line in lines if line.strip()}
    assert {line for line in new.splitlines() if line.startswith(("def ", "class "))} - {*code} <= {
        "def example() -> dict[str, Any]:"
    }


@pytest.mark.parametrize("id", IMPLEMENTED)
def test_a_page_has_the_diff_with_its_counts(id: str) -> None:
    found, page = compare(parent_source(id), RESULTS.sources[id]), site()[f"methods/{id}.md"]
    assert page.count("{ #what-it-adds }") == 1
    box = re.search(r'^\?\?\? source "Diff to .*: (\d+) lines added, (\d+) removed"\n\n    (`+)diff\n(.*?)\n    \3$',
                    page, re.MULTILINE | re.DOTALL)  # fmt: skip
    assert box
    shown = [line[4:] for line in box[4].splitlines()]
    assert (int(box[1]), int(box[2])) == tuple(
        sum(line.startswith(sign) and line[1:].strip() != "" for line in shown) for sign in "+-"
    )
    assert "\n".join(shown) == "\n".join(line if line.strip() else "" for line in found.text.splitlines())


def test_what_the_lineage_says_is_the_reason_for_the_parent() -> None:
    def reason(id: str) -> str:
        method = TAXONOMY.method(id)
        return method_code.why(method, parent_of(method, TAXONOMY, RESULTS.sources), TAXONOMY)

    assert reason("medusa") == "Medusa builds on [Blockwise Parallel Decoding](blockwise-parallel-decoding.md)."
    assert reason("eagle").endswith("; the code is compared with that of Medusa.")
    assert reason("mask-predict").endswith(
        "; the nearest ancestor with code here is [NAT with fertilities](nat-fertility.md)."
    )
    without = method_code.why(TAXONOMY.method("rest"), None, TAXONOMY)
    assert without.endswith("because [LLMA](llma.md), which it builds on, has no code here.")
    assert reason("calm").endswith("because CALM builds on no method here.")


def test_texts_with_little_in_common_stand_one_after_the_other() -> None:
    old = "def generate():\n    a = 1\n\n    b = 2\n    return a\n"
    apart = compare(old, "def generate():\n    x = 5\n\n    y = 6\n    z = 7\n    w = 8\n    return w\n").changed[
        "generate"
    ]
    assert [line[0] for line in apart] == ["-"] * 5 + ["+"] * 7
    near = compare(old, "def generate():\n    a = 1\n\n    b = 3\n    return a\n").changed["generate"]
    blank = compare(old, "def generate():\n    p = 1\n\n    q = 2\n    return a\n").changed["generate"]
    assert [line[0] for line in blank] == [" ", *"---+++", " "], "a blank line is nothing in common"
    assert near == (" def generate():", "     a = 1", " ", "-    b = 2", "+    b = 3", "     return a")


def test_only_what_differs_is_shown_and_docstring_imports_and_example_never() -> None:
    old = '"""One."""\nimport a\n\nK = 1\n\n\ndef same():\n    pass\n\n\ndef gone():\n    pass\n'
    kept = "\n\n\ndef same():\n    pass\n\n\n"
    new = f'"""Two."""\nimport b\n\nK: int = 2{kept}@b\ndef generate():\n    pass\n\n\ndef example():\n    pass\n'
    found = compare(old, new)
    assert found.left == ("gone",)
    assert found.text == "@@ generate @@\n+@b\n+def generate():\n+    pass\n@@ K @@\n-K = 1\n+K: int = 2"
    assert (found.count("+"), found.count("-")) == (4, 1)


# ---- links to lines -----------------------------------------------------------------------------------------------

SOURCE = '''"""Doc with limit."""

from core import check

WIDE = 3


class Box:
    def limit(self, low=1):
        self.kept = low


def generate(target, *, limit, mode="fast"):
    """Up to `limit`."""
    # Draft: guess.
    low = check(target)
    # Verify: look.
    return Box(size=WIDE).kept
'''


@pytest.mark.parametrize(
    ("code", "line"),
    [
        ("WIDE", 5), ("Box", 8), ("generate", 13), ("limit", 13), ("low", 16), ("kept", 10), ("check", 16),
        ("fast", 13), ("size", 18), ("limit - 1", 13), ("Box(size=WIDE)", 18), ("with limit", 13), ('mode="slow"', 13),
        ("nowhere", None), ("core", None),
    ],
)  # fmt: skip
def test_code_leads_to_where_it_stands_and_a_name_to_its_definition_or_else_to_its_first_use(
    code: str, line: int | None
) -> None:
    assert SourceLinks.of(SOURCE, "code").line(code) == line


def test_a_link_moves_with_what_it_names() -> None:
    moved = SOURCE.replace("WIDE = 3\n", "# wide\n\nWIDE = 3\n")
    text = "1. *Draft*: `WIDE`, `WIDE`.\n2. [`WIDE`](x), ``a `b` c``, `Box`."
    assert SourceLinks.of(SOURCE, "a").link(text) == (
        "1. [*Draft*](#line-a-15): [`WIDE`](#line-a-5), `WIDE`.\n2. [`WIDE`](x), ``a `b` c``, [`Box`](#line-a-8)."
    )
    assert "[*Draft*](#line-a-17): [`WIDE`](#line-a-7)" in SourceLinks.of(moved, "a").link(text)
    renamed = SOURCE.replace("WIDE", "BROAD")
    assert "1. [*Draft*](#line-a-15): `WIDE`, `WIDE`." in SourceLinks.of(renamed, "a").link(text)


def test_a_listing_comes_through_markdown_as_it_is_and_every_line_has_its_id() -> None:
    nasty = 'x = """\n\n```\n??? a\n--8<-- $a$ [l](u) <b> &amp; *x* {: #id }\n"""\n\n\n!!! = "`y`"\n'
    extensions = ["md_in_html", "attr_list", "pymdownx.details", "pymdownx.superfences", "pymdownx.arithmatex"]
    page = markdown.markdown(f"Before.\n\n{listing('A <b>', nasty, 'code')}\n\nAfter.", extensions=extensions)
    assert page.startswith("<p>Before.</p>\n<details")
    assert page.endswith("</details>\n\n<p>After.</p>")
    assert "<summary>A &lt;b&gt;</summary>" in page
    (shown,) = re.findall(r"<code>(.*?)</code>", page, re.DOTALL)
    assert unescape(re.sub(r"<[^>]+>", "", shown)) == nasty
    lines = re.findall(r'<span id="line-code-(\d+)">', shown)
    assert lines == [str(n) for n in range(1, nasty.count("\n") + 1)]


def test_every_link_to_a_line_arrives_on_every_page() -> None:
    """Ids and links of all pages, the fragments of the page on proofs included."""
    texts = site() | {"proofs.md": site()["generated/kit.md"]}
    ids = {path: set(re.findall(r'id="(line-[\w-]+)"', text)) for path, text in texts.items()}
    count = 0
    for path, text in texts.items():
        for page, id in LINK.findall(text):
            target = {"": path, "../proofs.md": "proofs.md"}.get(page, f"methods/{page}")
            target = "proofs.md" if path == "generated/suites.md" else target
            assert id in ids[target], f"{path} leads to {page}#{id}"
            count += 1
    assert count > 20 * len(IMPLEMENTED)


@pytest.mark.parametrize("id", IMPLEMENTED)
def test_steps_and_differences_of_a_page_lead_to_its_code(id: str) -> None:
    page, source = site()[f"methods/{id}.md"], RESULTS.sources[id].splitlines()
    sections = dict(re.findall(r"^## ([^{\n]+?)\n\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL))
    steps = re.findall(r"\[\*([\w-]+)\*\]\(#line-code-(\d+)\)", sections["Algorithm"])
    for step, line in steps:
        assert source[int(line) - 1].strip().startswith(f"# {step}: ")
    assert steps or id == "nat-fertility"  # whose steps are headed by other words
    for code, line in re.findall(r"\[`([^`]+)`\]\(#line-code-(\d+)\)", sections["Differences from the paper"]):
        assert set(re.findall(r"\w+", code)) & set(re.findall(r"\w+", source[int(line) - 1]))


# ---- the tests that prove a claim ---------------------------------------------------------------------------------


def test_every_suite_leads_to_the_function_that_checks_it() -> None:
    found = suite_tests(RESULTS.proofs)
    assert found.keys() == {suite.id for suite in CLAIMS}
    for test in found.values():
        assert RESULTS.proofs[test.path].splitlines()[test.line - 1].startswith(f"def {test.name}(")
    assert suite_address(CLAIMS[0], RESULTS.proofs, "p.md") == f"p.md#line-kit-exactness-{found['exact-law'].line}"
    assert suite_address(CLAIMS[0], {}, "p.md") == "p.md#exact-law"


def test_a_badge_opens_the_test_of_its_guarantee() -> None:
    def proof(id: str) -> str:
        return guarantee_address(TAXONOMY.method(id), RESULTS.proofs, "p.md", "#own")

    assert set(EVERY) < {suite.id for suite in CLAIMS}
    assert proof("medusa") == suite_address(CLAIMS[0], RESULTS.proofs, "p.md")
    assert "line-kit-exactness" in proof("jacobi-parallel-decoding") != proof("medusa")
    assert "line-kit-early-exits" in proof("calm")
    assert "line-kit-parallel" in proof("mask-predict")
    assert proof("bild") == "#own"
    for id in IMPLEMENTED:
        head = site()[f"methods/{id}.md"].split("## Idea")[0]
        own = f"#{method_code.TESTS}" if id in RESULTS.tests else "#guarantee"
        address = guarantee_address(TAXONOMY.method(id), RESULTS.proofs, method_code.PROOFS, own)
        assert f"</span>]({address}) [what it means](../taxonomy.md#guarantees)" in head


@pytest.mark.parametrize("id", IMPLEMENTED)
def test_every_proved_claim_leads_to_its_test(id: str) -> None:
    page, method = site()[f"methods/{id}.md"], TAXONOMY.method(id)
    guarantee = page.split("## Guarantee")[1].split("\n## ")[0]
    for suite in claims_of(method):
        assert guarantee.count(f"]({suite_address(suite, RESULTS.proofs, method_code.PROOFS)})") == 1
    path = RESULTS.tests[id]
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.name[:5] == "test_"]
    assert [test.name for test in own_tests(path, RESULTS.proofs[path])] == names
    assert len(re.findall(r"^    - \[.*\]\(#line-tests-\d+\)$", guarantee, re.MULTILINE)) == len(names)


def test_without_the_tests_at_hand_a_page_is_made_all_the_same() -> None:
    page = pages(TAXONOMY, Results(sources=RESULTS.sources))["methods/medusa.md"]
    assert "](../proofs.md#exact-law)" in page
    assert "line-tests" not in page


# ---- concepts -----------------------------------------------------------------------------------------------------


def test_every_concept_explains_something_and_everything_is_explained() -> None:
    for name, explains in CONCEPTS.items():
        explained = [method for method in TAXONOMY.methods if explains(method)]
        assert explained, name
        for method in explained:
            assert f"](../concepts/{name}.md)" in site()[f"methods/{method.id}.md"]
        assert name == "why-decoding-is-slow" or len(explained) < len(TAXONOMY.methods)
    for category in TAXONOMY.categories:
        assert "](../../concepts/why-decoding-is-slow.md)" in site()[f"categories/{category.id}/index.md"]
    names = {"confidence-and-calibration": "calm", "iterative-refinement": "mask-predict", "token-trees": "medusa"}
    assert all(CONCEPTS[name](TAXONOMY.method(id)) for name, id in names.items())
    assert not CONCEPTS["multimodality"](TAXONOMY.method("jacobi-parallel-decoding"))


def test_concepts_are_called_by_their_titles_and_listed_for_programs() -> None:
    method = TAXONOMY.method("mask-predict")
    written = {"concepts/multimodality.md": front_matter(title="Many modes", description="x") + "\n# x\n"}
    assert concept_links([method], written, "c/") == "[Many modes](c/multimodality.md)"
    assert concept_links([method], {}, "c/") == ""
    for name in CONCEPTS:
        title = read_front_matter(RESULTS.written[f"concepts/{name}.md"])["title"]
        assert f"- [{title}](concepts/{name}/): " in site()["llms.txt"].replace(RESULTS.site or "\0", "")


def test_a_page_without_a_head_is_named() -> None:
    with pytest.raises(ValueError, match="'# Title' has no YAML head"):
        read_front_matter("# Title")


def test_imports_do_not_count_as_the_place_of_a_name() -> None:
    assert place("from a import b\n\nb(1)\n") == {"b": 3}
