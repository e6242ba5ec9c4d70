"""What a method still lacks to be done. Every row is found by looking at files and by running proofs."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from accelgen.exports.bundle import bundle
from accelgen.project.files import read_json
from accelgen.project.places import REFERENCE, RESULTS, ROOT, TAXONOMY, TRACES
from accelgen.site.pages import pages
from accelgen.site.results import read_results
from accelgen.taxonomy.schema import Method, Taxonomy
from accelgen.workshop.manners import code_lines, of_a_method

OWN_MUTANTS = 6  # bugs that one could make in this very method
PAGE = ("Idea", "Algorithm", "Guarantee", "Why it works", "When to use it, and when not", "Source", "Run it",
        "A real run", "Measured here", "Differences from the paper", "Lineage", "Cite", "Sources")  # fmt: skip
UNWRITTEN = "To be written."  # what a skeleton puts where a text is missing


@dataclass(frozen=True)
class Finding:
    """One part of a method: what is there of it, or what is lacking and how to make it."""

    part: str
    found: str = ""
    lacking: str = ""

    @property
    def is_there(self) -> bool:
        """Whether nothing is lacking."""
        return not self.lacking

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return asdict(self) | {"is_there": self.is_there}


class Workbench:
    """The project as it is now; what is slow to make is made once for all methods."""

    def __init__(self, taxonomy: Taxonomy) -> None:
        self.taxonomy = taxonomy

    @cached_property
    def pages(self) -> dict[str, str]:
        """The pages of the site."""
        return pages(self.taxonomy, read_results(self.taxonomy, TAXONOMY))

    @cached_property
    def rows(self) -> dict[str, set[str]]:
        """The ids that have a row, by file of results."""
        found = {name: read_json(RESULTS / f"{name}.json") or {"rows": []} for name in ("bench", "costs")}
        return {name: {row["id"] for row in data["rows"]} for name, data in found.items()}

    @cached_property
    def zoo(self) -> dict[str, Any]:
        """The manifest of the trained models."""
        return read_json(REFERENCE / "zoo" / "weights" / "manifest.json") or {}

    @cached_property
    def changelog(self) -> str:
        """CHANGELOG.md as one line of small letters."""
        return " ".join((ROOT / "CHANGELOG.md").read_text(encoding="utf-8").lower().split())


def status(method: Method, bench: Workbench, *, proofs: bool = True) -> Iterator[Finding]:
    """The parts of a method, one by one; where there is no file yet, the rest is not looked for.

    `proofs` says whether the conformance kit is run, which takes seconds.
    """
    path = REFERENCE.joinpath(*method.module.split(".")[1:]).with_suffix(".py")
    yield _entry(method)
    if not path.is_file():
        yield Finding("file", lacking=f"{path.relative_to(ROOT)} is not there: `accelgen new {method.id}` begins it")
        return
    source = path.read_text(encoding="utf-8")
    yield _file(source)
    for look in (_case, _tests, _mutants, *([_proofs] if proofs else []), _copy):
        yield look(method)
    yield _recorded(method)
    yield from _measured(method, bench)
    yield _zoo(source, bench)
    yield from _page(method, bench)
    yield _changelog(method, bench)


def _entry(method: Method) -> Finding:
    wanted = ("principle", "advantages", "limitations", "when_to_use", "when_not", "fits", "sources")
    empty = [name for name in wanted if not getattr(method, name)]
    if empty:
        return Finding("entry", lacking=f"taxonomy.yaml says nothing under {', '.join(empty)}")
    if not method.is_implemented:
        return Finding("entry", lacking="taxonomy.yaml says `status: planned`: `proved` lets the proofs run")
    return Finding("entry", f"{method.call}, {method.guarantee}")


def _file(source: str) -> Finding:
    complaints = list(of_a_method(source))
    if UNWRITTEN in source:
        complaints.insert(0, f"a text is still {UNWRITTEN.lower().rstrip('.')}")
    if complaints:
        more = f" (and {len(complaints) - 1} more)" if len(complaints) > 1 else ""
        return Finding("file", lacking=complaints[0] + more)
    return Finding("file", f"{len(code_lines(source))} lines of code")


def _case(method: Method) -> Finding:
    name = f"reference_impls.testing.cases.{method.module.rpartition('.')[2]}"
    if importlib.util.find_spec(name) is None:
        return Finding("case", lacking=f"{name} is not there: it says how its tiny models are made")
    return Finding("case", name)


def test_file(method: Method) -> Path:
    """Where the method's own tests stand."""
    _, family, name = method.module.split(".")
    return ROOT / "tests" / "methods" / family / f"test_{name}.py"


def _tests(method: Method) -> Finding:
    path = test_file(method)
    names = [node.name for node in _body(path) if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")]
    if not names:
        return Finding("tests", lacking=f"{path.relative_to(ROOT)} holds no test")
    return Finding("tests", f"{len(names)} of its own")


def _mutants(method: Method) -> Finding:
    path = test_file(method)
    lists = [node for node in _body(path) if isinstance(node, ast.Assign | ast.AnnAssign) and "MUTANTS" in _names(node)]
    count = sum(len(node.value.elts) for node in lists if isinstance(node.value, ast.List | ast.Tuple))
    if count < OWN_MUTANTS:
        wanted = f"at least {OWN_MUTANTS} are wanted: MUTANTS at the top of {path.relative_to(ROOT)}"
        return Finding("mutants", lacking=f"{count} of its own, and {wanted}")
    return Finding("mutants", f"{count} of its own")


def _body(path: Path) -> list[ast.stmt]:
    return ast.parse(path.read_text(encoding="utf-8")).body if path.is_file() else []


def _names(node: ast.Assign | ast.AnnAssign) -> set[str]:
    """The names that a statement gives a value to."""
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return {target.id for target in targets if isinstance(target, ast.Name)}


def _proofs(method: Method) -> Finding:
    from accelgen.workshop.proving import proof

    try:
        report = proof(method.id, method)
    except Exception as error:  # noqa: BLE001 - a method that is begun may raise anything
        return Finding("proofs", lacking=f"the proofs do not run ({type(error).__name__}: {error})")
    counts = Counter(result.outcome for result in report.results)
    if not report.passed:
        failed = f"{counts['failed']} of {counts.total()} proofs fail"
        return Finding("proofs", lacking=f"{failed}: `accelgen verify {method.id}` says which")
    return Finding("proofs", ", ".join(f"{count} {outcome}" for outcome, count in counts.items()))


def _copy(method: Method) -> Finding:
    text = bundle(method.id)
    try:
        compile(text, method.id, "exec")
    except SyntaxError as error:
        return Finding("copy", lacking=f"the standalone file is no Python ({error})")
    return Finding("copy", f"{len(text.splitlines())} lines that run alone")


def _recorded(method: Method) -> Finding:
    if not (TRACES / f"{method.id}.json").is_file():
        return Finding("trace", lacking=f"no run is recorded: `accelgen trace {method.id}`")
    return Finding("trace", "recorded")


def _measured(method: Method, bench: Workbench) -> Iterator[Finding]:
    commands = {"bench": f"accelgen bench {method.id} --store", "costs": f"accelgen bench {method.id} --costs --store"}
    for name, command in commands.items():
        if method.id in bench.rows[name]:
            yield Finding(name, "measured")
        else:
            yield Finding(name, lacking=f"no row in {name}.json: `{command}`")


def _zoo(source: str, bench: Workbench) -> Finding:
    """The trained parts that `example` loads."""
    used = re.findall(r"zoo\.load\(\"([^\"]+)\"", source)
    bare = [name for name in used if not bench.zoo.get(name, {}).get("quality")]
    if bare:
        return Finding("zoo", lacking=f"{bare[0]} has no held-out figure in the zoo: `accelgen zoo train {bare[0]}`")
    return Finding("zoo", ", ".join(dict.fromkeys(used)) or "needs no trained part")


def _page(method: Method, bench: Workbench) -> Iterator[Finding]:
    text = bench.pages.get(f"methods/{method.id}.md", "")
    headings = re.findall(r"^## (.+?)(?: \{.*\})?$", text, flags=re.MULTILINE)
    missing = [name for name in PAGE if name not in headings]
    if missing:
        yield Finding("page", lacking=f"its page has no section {', '.join(missing)}")
    else:
        yield Finding("page", f"{len(headings)} sections")
    drawn = "<trace-player" in text or "<svg" in text
    yield Finding("picture", "shown") if drawn else Finding("picture", lacking="its page shows no picture and no run")


def _changelog(method: Method, bench: Workbench) -> Finding:
    if method.id in bench.changelog or method.name.lower() in bench.changelog:
        return Finding("changelog", "mentioned")
    return Finding("changelog", lacking=f"CHANGELOG.md does not mention {method.name}")
