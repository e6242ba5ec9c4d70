"""What the pages show beside the taxonomy: sources, recorded runs, measurements, held-out figures."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from accelgen.project.files import read_json
from accelgen.project.places import REFERENCE, RESULTS, ROOT, SOURCE, TRACES
from accelgen.taxonomy.calls import BASELINE
from accelgen.taxonomy.loading import TaxonomyError
from accelgen.taxonomy.schema import Method, Taxonomy

_SITE_URL = re.compile(r"""^site_url:[ ]*(?:(["'])(?P<quoted>.*?)\1|(?P<plain>.*?))[ ]*(?:[ ]#.*)?$""", re.MULTILINE)
Stored = dict[str, Any] | None  # a measurement: field `draft_lengths` is results/draft-lengths.json, if there is one
TAXONOMY = ["accelgen.taxonomy.schema", "accelgen.taxonomy.loading", "accelgen.exports", "accelgen.exports.bundle"]


@dataclass(frozen=True)
class Results:
    """Everything is plain text or plain data; what does not exist yet is empty."""

    taxonomy_file: str = ""  # taxonomy.yaml as it is
    sources: Mapping[str, str] = field(default_factory=dict)  # method id or BASELINE -> source of its module
    bundles: Mapping[str, str] = field(default_factory=dict)  # method id -> the same as one file that runs alone
    traces: Mapping[str, dict[str, Any]] = field(default_factory=dict)  # method id or BASELINE -> `traces.record`
    tests: Mapping[str, str] = field(default_factory=dict)  # method id -> the file of its own tests
    proofs: Mapping[str, str] = field(default_factory=dict)  # path of a file of tests, or of the kit -> its source
    bench: Stored = None
    devices: Mapping[str, dict[str, Any]] = field(default_factory=dict)  # file -> the benchmark on another device
    costs: Stored = None  # the costs of single calls, and the speedups that follow
    acceptance: Stored = None  # the worked example of `accelgen.measuring.acceptance_rates`
    copying: Stored = None  # texts that quote, by `accelgen.measuring.copying`
    warming: Stored = None  # a trie cold and warm, by `accelgen.measuring.warming`
    contrasts: Stored = None  # quality beside speed, by `accelgen.measuring.contrasts`
    relaxations: Stored = None  # quality beside speed, by `accelgen.measuring.relaxations`
    draft_lengths: Stored = None  # in batches, by `accelgen.measuring.draft_lengths`
    divergences: Stored = None  # ways to distil, by `accelgen.measuring.divergences`
    chunks: Stored = None  # time between tokens, by `accelgen.measuring.chunks`
    peers: Stored = None  # beside transformers, by `accelgen bench --peers`
    errata: Stored = None  # the examples of `accelgen.measuring.counterexamples`
    zoo: dict[str, Any] | None = None  # the manifest of the trained models
    directories: bool = True  # whether a page becomes a folder with an index, as addresses on the web have it
    modules: Mapping[str, list[str]] = field(default_factory=dict)  # package -> its modules, for the API pages
    written: Mapping[str, str] = field(default_factory=dict)  # path below docs/ -> text of a hand-written page
    site: str = ""  # the site's address, ending in a slash, if it has one

    @property
    def measurements(self) -> dict[str, dict[str, Any]]:
        """All stored figures that there are, by the names of their files without the ending."""
        found = {name.replace("_", "-"): getattr(self, name) for name in _stored()}
        found |= {name.removesuffix(".json"): data for name, data in self.devices.items()}
        return {name: data for name, data in found.items() if data}


def read_results(taxonomy: Taxonomy, taxonomy_file: Path) -> Results:
    """Read what exists. Imports no torch, so the site builds without it."""
    implemented = [m for m in taxonomy.methods if m.is_implemented]
    ids = [m.id for m in implemented]
    tests = {m.id: name for m in implemented if (ROOT / (name := _test_file(m))).is_file()}
    measured: dict[str, Any] = {name: read_json(RESULTS / f"{name.replace('_', '-')}.json") for name in _stored()}
    modules = {BASELINE: f"reference_impls.baselines.{BASELINE}"} | {m.id: m.module for m in implemented}
    return Results(
        taxonomy_file=taxonomy_file.read_text(encoding="utf-8"),
        sources={id: _source(module) for id, module in modules.items()},
        bundles={m.id: _bundle(m.id) for m in implemented},
        traces={id: data for id in (*ids, BASELINE) if (data := read_json(TRACES / f"{id}.json"))},
        tests=tests,
        proofs={name: (ROOT / name).read_text(encoding="utf-8") for name in (*tests.values(), *_kit())},
        **measured,
        devices={path.name: data for path in sorted(RESULTS.glob("bench-*.json")) if (data := read_json(path))},
        zoo=read_json(REFERENCE / "zoo" / "weights" / "manifest.json"),
        written=_written(taxonomy_file.parent / "docs"),
        site=site_address(taxonomy_file.parent),
        modules={"core": _modules("core"), "testing": _modules("testing"), "taxonomy": TAXONOMY},
    )


def _stored() -> list[str]:
    return [each.name for each in fields(Results) if each.type == "Stored"]


def site_address(root: Path = SOURCE) -> str:
    """`site_url` of mkdocs.yml, which may stay empty. Raises TaxonomyError if it is not an address of a folder."""
    file = root / "mkdocs.yml"
    found = _SITE_URL.search(file.read_text(encoding="utf-8")) if file.is_file() else None
    if found is None:
        return ""
    address = found["quoted"] or found["plain"] or ""
    if address and not re.fullmatch(r"https?://[^\s?#]+/", address):
        raise TaxonomyError(f"mkdocs.yml: site_url should be an address that ends in a slash, found {address!r}")
    return address


def _written(docs: Path) -> dict[str, str]:
    paths = [path for folder in (".", "api", "concepts") for path in docs.glob(f"{folder}/*.md")]
    return {path.relative_to(docs).as_posix(): path.read_text(encoding="utf-8") for path in sorted(paths)}


def _source(module: str) -> str:
    return REFERENCE.joinpath(*module.split(".")[1:]).with_suffix(".py").read_text(encoding="utf-8")


def _test_file(method: Method) -> str:
    category, name = method.module.split(".")[1:]
    return f"tests/methods/{category}/test_{name}.py"


def _kit() -> list[str]:
    """The files of the conformance kit."""
    return sorted(path.relative_to(ROOT).as_posix() for path in (REFERENCE / "testing").glob("[!_]*.py"))


def _bundle(id: str) -> str:
    from accelgen.exports.bundle import bundle

    return bundle(id)


def _modules(package: str) -> list[str]:
    found = sorted(path.stem for path in (REFERENCE / package).glob("*.py") if not path.stem.startswith("_"))
    return [f"reference_impls.{package}.{name}" for name in found]
