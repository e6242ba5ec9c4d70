"""The decision guide and the glossary: nobody is missing or recommended against their entry, words are used."""

import itertools
import re
from html.parser import HTMLParser

import markdown
import pytest
import yaml

from accelgen.exports.markdown import cell
from accelgen.project.files import read_json
from accelgen.project.places import RESULTS, ROOT
from accelgen.site.method_page import GUARANTEES
from accelgen.site.pages import pages
from accelgen.site.results import Results
from accelgen.site.views import comparison, glossary, guide
from accelgen.taxonomy.loading import TaxonomyError, load_taxonomy
from accelgen.taxonomy.schema import Workload

TAXONOMY = load_taxonomy()
RESULT = Results(bench=read_json(RESULTS / "bench.json"))
PAGE = guide.page(TAXONOMY, RESULT)
GLOSSARY = glossary.page(TAXONOMY, RESULT)
ROW = re.compile(r"^\| \[[^]]+\]\(\.\./methods/([a-z0-9-]+)\.md\).*?\{ (data-[^}]*) \}", re.MULTILINE)


def tables() -> dict[tuple[Workload, bool], list[str]]:
    """The ids of every table of the page, by workload and verdict, top to bottom."""
    parts = re.split(r'<div class="verdicts" data-workload="([\w-]+)" data-label="[^"]*" data-good="(yes|no)"', PAGE)[
        1:
    ]
    return {
        (Workload(workload), good == "yes"): [id for id, _ in ROW.findall(body)]
        for workload, good, body in zip(parts[::3], parts[1::3], parts[2::3], strict=True)
    }


def test_every_verdict_of_the_taxonomy_stands_once_in_its_table():
    expected = {(m.id, fit.workload, fit.good) for m in TAXONOMY.methods for fit in m.fits}
    found = [(id, *key) for key, ids in tables().items() for id in ids]
    assert set(found) == expected
    assert len(found) == len(set(found))


def test_nothing_is_recommended_for_what_it_is_marked_bad_for():
    shown = tables()
    for workload in Workload:
        assert not set(shown.get((workload, True), [])) & set(shown.get((workload, False), []))


def test_the_order_is_the_rule():
    for ids in tables().values():
        for first, second in itertools.pairwise(ids):
            a, b = TAXONOMY.method(first), TAXONOMY.method(second)
            engines = len(comparison.engines(a)) - len(comparison.engines(b))
            proved = a.is_implemented - b.is_implemented
            trains = guide.TRAINING.index(comparison.training(b)) - guide.TRAINING.index(comparison.training(a))
            better = next((value for value in (engines, proved, trains) if value), 0)
            assert better > 0 or (better == 0 and a.name.casefold() <= b.name.casefold()), (first, second)


def test_every_reason_and_its_source_is_shown():
    for method in TAXONOMY.methods:
        for fit in method.fits:
            assert cell(guide.reason(fit)) in PAGE
            assert not fit.url or f"([source]({fit.url}))" in guide.reason(fit)


def test_a_speedup_is_shown_only_where_the_benchmark_speaks_about_the_workload():
    ends = {"speedup_q1": 1.0, "speedup_q3": 2.0, "pairs": 9, "tokens_per_pass": 2.0}
    row = {"id": TAXONOMY.methods[0].id, "setting": "greedy", "speedup": 1.5} | ends
    results = Results(bench={"rows": [row, row | {"setting": "temperature 0.8", "speedup": 1.25}]})
    shown = {w: guide.figures(TAXONOMY.methods[0], w, results).split(" here")[0] for w in Workload}
    assert shown[Workload.ONE_STREAM].startswith("[1.25× to 1.50×")
    assert shown[Workload.SAMPLING].startswith("[1.25×")
    assert not any(shown[w].startswith("[1.") for w in set(Workload) - {Workload.ONE_STREAM, Workload.SAMPLING})


def test_every_question_keeps_and_drops_something():
    """An answer that keeps all or nothing is no question; values are those that the cells carry."""
    facts = [dict(re.findall(r'data-(\w+)="([^"]*)"', attributes)) for _, attributes in ROW.findall(PAGE)]
    options = re.findall(r'data-field="(\w+)" data-keep="([^"]*)"', PAGE)
    assert {field for field, _ in options} == {"promise", "training", "runs"}
    for field, keep in options:
        kept = [bool(set(keep.split(",")) & set(one[field].split(","))) for one in facts]
        assert any(kept), (field, keep)
        assert not all(kept), (field, keep)
    named = set(re.findall(r'(?:option|name="text") value="([\w-]+)"', PAGE))
    assert set(Workload) <= named


# ---- the script ---------------------------------------------------------------------------------------------------


def extensions() -> list[str]:
    """The Markdown extensions of mkdocs.yml but `snippets`, which needs the generated fragments."""
    loader = type("Loader", (yaml.SafeLoader,), {})
    loader.add_constructor("!ENV", lambda *_: None)
    config = yaml.load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), loader)  # noqa: S506
    names = [name for item in config["markdown_extensions"] for name in ([item] if isinstance(item, str) else item)]
    return [name for name in names if name != "pymdownx.snippets"]


def render(text: str) -> str:
    """The page as the site's extensions make it, with tooltips."""
    settings = {"abbr": {"glossary": dict(glossary.tooltips(TAXONOMY))}, "pymdownx.arithmatex": {"generic": True}}
    body = text.split("---\n", 2)[-1] if text.startswith("---\n") else text
    return markdown.markdown(body, extensions=extensions(), extension_configs=settings)


class _Cells(HTMLParser):
    """Collects the attributes of table cells."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        if tag == "td" and attrs:
            self.found.append(dict(attrs))


def test_the_facts_of_a_row_reach_the_cell():
    cells = _Cells()
    html = render(PAGE)
    cells.feed(html)
    ids = [id for ids in tables().values() for id in ids]
    assert [found["data-id"] for found in cells.found] == ids
    for found in cells.found:
        method = TAXONOMY.method(found["data-id"])
        assert found["data-promise"] == GUARANTEES[method.guarantee][0]
        assert found["data-training"] == comparison.training(method)
        runs = [*comparison.engines(method), *([guide.HERE] if method.is_implemented else [])]
        assert found["data-runs"] == ",".join(runs)
    assert "{ data-" not in html


# ---- the glossary -------------------------------------------------------------------------------------------------


def test_every_term_has_its_entry_and_links():
    assert len(TAXONOMY.glossary) >= 35
    for term in TAXONOMY.glossary:
        assert f'<span id="{term.id}">' in GLOSSARY
        entry = GLOSSARY.split(f'<span id="{term.id}">')[1].split("<span id=")[0]
        assert all(f"(../methods/{id}.md)" in entry for id in term.methods)
    assert set(glossary.PAGES) <= {term.id for term in TAXONOMY.glossary}
    written = pages(TAXONOMY, Results())
    linked = re.findall(r"\]\(([\w./-]+\.md)\)", GLOSSARY)
    for target in linked:
        path = (ROOT / "docs" / "explore" / target).resolve().relative_to(ROOT / "docs")
        assert path.as_posix() in written or (ROOT / "docs" / path).is_file(), target


def test_definitions_are_short():
    for term in TAXONOMY.glossary:
        text = re.sub(r"\$[^$]*\$", "x", term.definition)
        assert 1 <= len(re.findall(r"[.!?](?= |$)", text)) <= 3, term.id
        assert term.tip is None or (len(term.tip) <= 110 and not re.search(r"[$`*\[\]]", term.tip)), term.id


def test_every_spelling_with_a_tooltip_is_used_beside_the_glossary():
    by_hand = [path.read_text(encoding="utf-8") for path in (ROOT / "docs").glob("*.md")]
    made = [
        text for name, text in pages(TAXONOMY, Results()).items() if name.endswith(".md") and "glossary" not in name
    ]
    text = "\n".join(by_hand + made)
    unused = [term.id for term in TAXONOMY.glossary if term.forms and not any(uses(f, text) for f in term.forms)]
    assert not unused


def uses(form: str, text: str) -> bool:
    return re.search(rf"\b{re.escape(form)}\b", text) is not None


def test_tooltips_leave_code_formulas_and_addresses_alone():
    text = (
        'A token tree, `token tree`, $BLEU$ and [CRF](CRF.md "CRF") <span title="CTC">x</span>.\n\n'
        "```python\nfertility = CRF\n```\n\n    canvas\n"
    )
    html = render(text)
    assert re.findall(r"<abbr [^>]*>([^<]*)</abbr>", html) == ["token tree", "CRF"]
    assert 'href="CRF.md" title="CRF"' in html
    assert "\\(BLEU\\)" in html


def test_the_glossary_page_has_no_tooltips():
    assert "<abbr" not in render(GLOSSARY)
    assert "*[" not in render(GLOSSARY)


def test_a_glossary_that_contradicts_itself_is_refused(tmp_path):
    text = (ROOT / "taxonomy.yaml").read_text(encoding="utf-8")
    bleu = next(term for term in TAXONOMY.glossary if term.id == "bleu")
    broken = {
        "\n    forms: [CTC]": "has a tip and no forms to carry it",
        f"\n    tip: {bleu.tip}": "has forms and no tip for them",
    }
    for old, message in broken.items():
        refused(tmp_path, text.replace(old, "", 1), message)
    refused(tmp_path, text.replace("forms: [CTC]", "forms: [CRF]", 1), "'CRF' carries the tooltip of 'crf' already")
    linked = next(term.methods for term in TAXONOMY.glossary if term.methods)
    listed, wrong = f"methods: [{', '.join(linked)}]", f"methods: [{linked[0]}x]"
    refused(tmp_path, text.replace(listed, wrong, 1), f"no method is called '{linked[0]}x'; did you mean '{linked[0]}'")
    refused(tmp_path, text.replace("  - id: ctc\n", "  - id: crf\n", 1), "every id stands once")


def test_a_workload_is_judged_once(tmp_path):
    text = (ROOT / "taxonomy.yaml").read_text(encoding="utf-8")
    first = re.search(r"^    fits:\n(      - .*?)(?=^      - |^    \w)", text, re.DOTALL | re.MULTILINE)
    refused(tmp_path, text[: first.end()] + first[1] + text[first.end() :], "a workload is judged once")


def refused(tmp_path, text, message):
    path = tmp_path / "taxonomy.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(TaxonomyError, match=re.escape(message)):
        load_taxonomy(path)
