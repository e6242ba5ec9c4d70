"""The parts of a method's page that show code: what it adds to its parent, the source, and the tests that prove it."""

from __future__ import annotations

from collections.abc import Callable

from accelgen.exports.markdown import bullets, collapsible, fence, section, table
from accelgen.site.lineage_diff import Difference, compare, parent_of
from accelgen.site.proof_links import own_tests, suite_address, suite_tests
from accelgen.site.results import Results
from accelgen.site.source_links import SourceLinks, anchor, listing
from accelgen.taxonomy.calls import BASELINE
from accelgen.taxonomy.schema import Method, Taxonomy
from accelgen.taxonomy.suites import claims_of

CODE, TESTS = "code", "tests"  # ids of the blocks with the source of the method and with that of its own tests
PROOFS = "../proofs.md"


def source(method: Method, results: Results) -> str:
    """The section with the method's source, the file to copy, and its own tests."""
    text, bundle, tests = results.sources[method.id], results.bundles.get(method.id, ""), results.tests.get(method.id)
    path = method.module.replace(".", "/") + ".py"
    boxes = [listing(f"The method, as it stands in the project: {path}", text, CODE)]
    lead = "The method imports `torch` and this project's [core](../api/core.md), nothing else."
    if bundle:
        lead += (
            " To use it elsewhere, take the one file below: the method and exactly those core definitions that it uses."
            f" [Download {method.id}.py](../downloads/{method.id}.py){{ download }} or run"
            f" `accelgen copy {method.id}`."
        )
        boxes.append(collapsible("Copy as one file: runs alone, needs only torch", fence(bundle, "python")))
    if tests and tests in results.proofs:
        boxes.append(listing(f"Its own tests: {tests}", results.proofs[tests], TESTS))
    return "\n\n".join([lead, *boxes])


# ---- proofs -------------------------------------------------------------------------------------------------------


def proofs(method: Method, results: Results) -> str:
    """The suites that a method owes and its own tests, each a link to the test."""
    rows, tests = [], suite_tests(results.proofs)
    for suite in claims_of(method):
        claim = suite.claim
        for key, reason in method.implementation.skip.items():
            name, _, check = key.partition("/")
            if name == suite.id:
                claim = f"{claim} Left out, the check *{check}*: {reason}" if check else f"Does not apply: {reason}"
        test = tests[suite.id].place if suite.id in tests else "what it checks"
        link = f"[{test}]({suite_address(suite, results.proofs, PROOFS)})"
        rows.append((f"[{suite.title}]({PROOFS}#{suite.id})", claim, link))
    text = "The tests that prove it, on every change:\n\n" + table(("Suite", "What it shows", "The test"), rows)
    return "\n\n".join(filter(None, [text, _own(method, results)]))


def _own(method: Method, results: Results) -> str:
    path = results.tests.get(method.id)
    if not path or path not in results.proofs:
        return ""
    tests = own_tests(path, results.proofs[path])
    links = bullets(f"[{test.sentence}]({anchor(TESTS, test.line)})" for test in tests)
    lead = f"What is special to this method is tested in `{path}`. Each line leads to its test."
    return collapsible(f"{len(tests)} tests of its own", f"{lead}\n\n{links}")


# ---- what it adds -------------------------------------------------------------------------------------------------


def additions(
    method: Method, taxonomy: Taxonomy, results: Results, character: Callable[[Method, Results], dict[str, str]]
) -> str:
    """The section that compares a method with its parent: where their `character` differs, and the code."""
    parent = parent_of(method, taxonomy, results.sources)
    old = results.sources.get(parent.id if parent else BASELINE)
    if not old:
        return ""
    name, beside = "plain decoding", ""
    if parent:
        name, before, after = parent.name, character(parent, results), character(method, results)
        rows = [(title, before[title], after[title]) for title in after if before[title] != after[title]]
        beside = table(("Property", f"[{parent.name}]({parent.id}.md)", method.name), rows)
    found = compare(old, results.sources[method.id])
    title = f"Diff to {name}: {found.count('+')} lines added, {found.count('-')} removed"
    return section(
        f"What it adds to {name}",
        why(method, parent, taxonomy),
        beside,
        _names(method, parent, found, results),
        f"<div data-search-exclude markdown>\n\n{collapsible(title, fence(found.text, 'diff'))}\n\n</div>",
        attributes="#what-it-adds",
    )


def why(method: Method, parent: Method | None, taxonomy: Taxonomy) -> str:
    """What the method is compared with, and why that."""
    named = " and ".join(f"[{m.name}]({m.id}.md)" for m in map(taxonomy.method, method.builds_on))
    if parent is None:
        ground = (
            f"{named}, which it builds on, has no code here" if named else f"{method.name} builds on no method here"
        )
        return f"The code is compared with plain autoregressive decoding, one token a pass, because {ground}."
    if parent.id not in method.builds_on:
        nearest = f"the nearest ancestor with code here is [{parent.name}]({parent.id}.md)"
        return f"{method.name} builds on {named}; {nearest}."
    one = f"; the code is compared with that of {parent.name}" if len(method.builds_on) > 1 else ""
    return f"{method.name} builds on {named}{one}."


def _names(method: Method, parent: Method | None, found: Difference, results: Results) -> str:
    """The definitions that changed, came and went, each a link to its line."""
    here = SourceLinks.of(results.sources[method.id], CODE)
    new = [name for name, lines in found.changed.items() if all(line[0] == "+" for line in lines)]
    parts = {"Changed": [name for name in found.changed if name not in new], "New": new}
    said = [f"{title}: {', '.join(map(here.name, names))}." for title, names in parts.items() if names]
    if found.left and parent:
        there = SourceLinks.of(results.sources[parent.id], CODE)
        said.append(f"Not needed: {', '.join(there.name(name, f'{parent.id}.md') for name in found.left)}.")
    return " ".join(said)
