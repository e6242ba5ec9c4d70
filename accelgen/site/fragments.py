"""What the hand-written pages include: lists, tables and figures made from the taxonomy and the results."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from accelgen.exports import EXPORTS, page_bibtex, to_bibtex
from accelgen.exports.markdown import badge, bullets, fence, join, note, section, table
from accelgen.measuring.rows import BenchRow, rows_of
from accelgen.site import charts, trace_html
from accelgen.site.beside_transformers import beside_transformers
from accelgen.site.method_page import (
    GUARANTEES,
    NEEDS,
    figures_table,
    paper_links,
)
from accelgen.site.predictions import predicted
from accelgen.site.proof_links import KIT, block, suite_address, suite_tests
from accelgen.site.results import Results
from accelgen.site.source_links import listing
from accelgen.taxonomy.schema import Call, Taxonomy
from accelgen.taxonomy.suites import CLAIMS, claims_of


def fragments(taxonomy: Taxonomy, results: Results) -> dict[str, str]:
    """Name -> text of every file below docs/generated/."""
    return {
        "families": _families(taxonomy),
        "glance": _glance(taxonomy, results),
        "lead": _lead(taxonomy),
        "suites": _suites(taxonomy, results),
        "kit": _kit(results),
        "zoo": _zoo(results.zoo),
        "corpus": _corpus(results.zoo),
        "measured": _measured(taxonomy, results.bench),
        "peers": beside_transformers(taxonomy, results.peers),
        "predicted": predicted(taxonomy, results.bench, results.costs),
        "devices": _devices(taxonomy, results.devices),
        "vocabulary": _vocabulary(),
        "cite": _cite(taxonomy, results.site),
        "history": _history(taxonomy),
        "downloads": _download_list(taxonomy),
        **{f"api-{package}": _api(modules) for package, modules in results.modules.items()},
    }


def _families(taxonomy: Taxonomy) -> str:
    cards = []
    for category in taxonomy.categories:
        methods = taxonomy.methods_of(category.id)
        done = [f"[{m.name}](methods/{m.id}.md)" for m in methods if m.is_implemented]
        proved = f"Proved: {', '.join(done)}." if done else ""
        cards.append(
            f'<div class="card card--{category.id}" markdown>\n\n'
            f"**[{category.name}](categories/{category.id}/index.md)**\n\n{category.summary}\n\n"
            f'<p class="card__count" markdown>{len(methods)} methods. {proved}</p>\n\n</div>'
        )
    return '<div class="cards cards--families" markdown>\n\n' + "\n\n".join(cards) + "\n\n</div>\n"


def _glance(taxonomy: Taxonomy, results: Results) -> str:
    """One recorded run for the home page: the first method that has drafts to show."""
    for method in taxonomy.methods:
        run = next(iter(results.traces.get(method.id, {}).get("runs", [])), None)
        if run and any(step["drafted"] for step in run["steps"]):
            (_, html), *_ = trace_html.render(results.traces[method.id])
            lead = (
                "**Watch it decode.** A small model guesses some tokens, the large one checks them all in one pass and"
                f" keeps what is right. This is a real run of [{method.name}](methods/{method.id}.md#a-real-run);"
                " [two methods side by side](explore/replay.md) show which needs fewer passes."
            )
            return f'<div class="glance" markdown>\n\n{lead}\n\n{html}\n\n</div>\n'
    return "\n"


def _lead(taxonomy: Taxonomy) -> str:
    """What this is, for somebody who has ten seconds."""
    done = sum(m.is_implemented for m in taxonomy.methods)
    return (
        "A language model reads all of its weights to write a single token."
        f" Here are {len(taxonomy.methods)} techniques that get more out of each reading: what they promise, what they"
        f" need, where they run today. {done} of them come with a short PyTorch implementation to copy, and with tests"
        " that prove what it promises.\n"
    )


def _suites(taxonomy: Taxonomy, results: Results) -> str:
    blocks, tests = [], suite_tests(results.proofs)
    for suite in CLAIMS:
        methods = [m for m in taxonomy.methods if m.is_implemented and suite in claims_of(m)]
        links = ", ".join(f"[{m.name}](methods/{m.id}.md)" for m in methods if suite.id not in m.implementation.skip)
        blocks.append(f"### {suite.title} {{ #{suite.id} }}\n\n{suite.claim}")
        if test := tests.get(suite.id):
            address = suite_address(suite, results.proofs, "")
            blocks.append(f"The checks: [`{test.name}`]({address}) in {test.place}.")
        blocks.append(f"Proved for: {links}." if links else "No implemented method owes this proof yet.")
    return join(blocks)


def _kit(results: Results) -> str:
    """The files in which the suites stand, and the enumeration they rest on, each closed until a link opens it."""
    shown = [f"{KIT}laws.py", *dict.fromkeys(test.path for test in suite_tests(results.proofs).values())]
    return join(listing(path, results.proofs[path], block(path)) for path in shown if path in results.proofs)


def _zoo(manifest: dict[str, Any] | None) -> str:
    if not manifest:
        body = "The models are trained by `accelgen zoo train`; there are no weights in this checkout."
        return note("Not trained yet", body, "planned") + "\n"
    rows = [
        (f"`{name}`", f"{entry['parameters']:,}", _size(entry["bytes"]), f"`{entry['sha256'][:12]}…`")
        for name, entry in manifest.items()
        if "parameters" in entry
    ]
    blocks = [table(("Model", "Parameters", "File", "sha256"), rows)]
    for name, entry in manifest.items():
        facts = {key: value for key, value in entry.items() if key not in ("parameters", "bytes", "sha256", "corpus")}
        blocks += [f"### {name}", _nested(facts)] if facts else []
    return join(blocks)


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 100_000 else f"{count / 1e3:.1f} kB"


def _corpus(manifest: dict[str, Any] | None) -> str:
    corpora: dict[str, Any] = {}
    for name, entry in (manifest or {}).items():
        if corpus := entry.get("corpus"):
            corpora.setdefault(_nested(corpus), []).append(f"`{name}`")
    return join(f"Of {', '.join(names)}:\n\n{text}" for text, names in corpora.items()) if corpora else "\n"


def _nested(value: Any) -> str:
    """Plain data as Markdown: rows with the same keys as a table, single facts as a list, the rest under its name."""
    if isinstance(value, dict) and (keys := _common_keys(list(value.values()))):
        rows = [[_words(name), *map(_plain, row.values())] for name, row in value.items()]
        return table(["Name", *map(_words, keys)], rows)
    if isinstance(value, list) and (keys := _common_keys(value)):
        return table(list(map(_words, keys)), [list(map(_plain, row.values())) for row in value])
    if not isinstance(value, dict):
        return _plain(value)
    single = {key: item for key, item in value.items() if not _is_deep(item)}
    facts = bullets(f"{_words(key)}: {_plain(item)}" for key, item in single.items())
    deep = [f"*{_words(key)}*\n\n{_nested(item)}" for key, item in value.items() if key not in single]
    return "\n\n".join(filter(None, [facts, *deep]))


def _is_deep(value: Any) -> bool:
    """Whether a value needs more than a line."""
    inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return any(isinstance(item, dict | list) for item in inner) or (isinstance(value, dict) and len(value) > 8)


def _common_keys(rows: list[Any]) -> list[str]:
    """The keys that all rows have, if all are flat mappings with the same keys."""
    flat = all(isinstance(row, dict) and not any(isinstance(v, dict) for v in row.values()) for row in rows)
    return list(rows[0]) if len(rows) > 1 and flat and len({tuple(row) for row in rows}) == 1 else []


def _words(key: Any) -> str:
    return str(key).replace("_", " ")


def _plain(value: Any) -> str:
    if isinstance(value, bool | None):
        return {True: "yes", False: "no", None: "–"}[value]
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int):
        return f"{value:,}" if value >= 10_000 else str(value)
    if isinstance(value, dict):
        return ", ".join(f"{_words(key)} {_plain(item)}" for key, item in value.items())
    return ", ".join(map(_plain, value)) if isinstance(value, list) else str(value)


TOGETHER = (
    "A few texts together, against the same texts one after another: what a batch gains by itself is in the figure."
    " Against plain decoding of the batch, and by its size: [many texts at once](explore/batches.md)."
)


def _measured(taxonomy: Taxonomy, bench: dict[str, Any] | None) -> str:
    if not bench:
        body = "`accelgen bench --store` measures every implemented method; its results are not in this checkout."
        return note("Not measured yet", body, "planned") + "\n"
    plain = {m.id: m.name for m in taxonomy.methods}
    names = {id: f"[{name}](methods/{id}.md)" for id, name in plain.items()}
    language, together, translation = _by_task(taxonomy, bench)
    setup = {key: value for key, value in bench.items() if key != "rows"}
    lead = (
        "Speedup: plain decoding's time divided by the method's, median and quartiles over pairs of runs."
        " [All figures as JSON](downloads/bench.json){ download }."
    )
    return join(
        [
            lead,
            section("Continuing a text", charts.speed(language, plain), figures_table(language, names)),
            section("Several texts at once", TOGETHER, figures_table(together, names)),
            section("Translating a sentence", charts.quality(translation, plain), figures_table(translation, names)),
            section("Setup", _nested(setup)),
        ]
    )


def _by_task(taxonomy: Taxonomy, bench: Mapping[str, Any]) -> tuple[list[BenchRow], list[BenchRow], list[BenchRow]]:
    """The rows in which a text goes on, several texts do, and a sentence is translated."""
    batched = {method.id for method in taxonomy.methods if method.call is Call.BATCH}
    rows = rows_of(BenchRow, bench)
    writes = [row for row in rows if not row.translates]
    alone, together = ([row for row in writes if (row.id in batched) is many] for many in (False, True))
    return alone, together, [row for row in rows if row.translates]


def _devices(taxonomy: Taxonomy, devices: Mapping[str, dict[str, Any]]) -> str:
    """The benchmark on other devices, a dated table for each; nothing if there is none."""
    names = {m.id: f"[{m.name}](methods/{m.id}.md)" for m in taxonomy.methods}
    blocks = []
    for file, found in devices.items():
        tables = [figures_table(rows, names) for rows in _by_task(taxonomy, found) if rows]
        lead = f"`{found['command']}`, torch {found['versions']['torch']}. [As JSON](downloads/{file}){{ download }}."
        title = f"On {found['machine']['device']}, {found['date']}"
        blocks.append(section(title, lead, *tables))
    return join(blocks) if blocks else "\n"


def _vocabulary() -> str:
    guarantees = [(badge(label, kind.value), meaning) for kind, (label, meaning) in GUARANTEES.items()]
    needs = [(label, meaning) for label, meaning in NEEDS.values()]
    return join(
        [
            section(
                "Guarantees",
                table(("Guarantee", "Compared with autoregressive decoding of the same target"), guarantees),
            ),
            section("Needs", table(("Need", "Meaning"), needs)),
        ]
    )


def _history(taxonomy: Taxonomy) -> str:
    """What each version changed, and which entries the survey does not have."""
    blocks = [f"### {release.version}, {release.date}\n\n{bullets(release.changes)}" for release in taxonomy.history]
    later = []
    for category in taxonomy.categories:
        added = [f"[{m.name}](methods/{m.id}.md)" for m in taxonomy.methods_of(category.id) if not m.in_survey]
        later += [f"{category.name} ({len(added)}): {', '.join(added)}."] if added else []
    return join([*blocks, "### Entries that the survey does not have" if later else "", bullets(later)])


def _cite(taxonomy: Taxonomy, site: str) -> str:
    survey = to_bibtex(taxonomy).partition("\n\n")[0]
    return join(
        [
            "The taxonomy:",
            fence(page_bibtex(None, taxonomy, site or None), "bibtex"),
            f"The survey it accompanies ({paper_links(taxonomy.survey)}):",
            fence(survey, "bibtex"),
        ]
    )


def _download_list(taxonomy: Taxonomy) -> str:
    files = {"downloads/taxonomy.yaml": "the source, as people edit it"}
    files |= {f"downloads/{export.file}": export.meaning for export in EXPORTS.values()}
    files |= {f"downloads/{c.id}.bib": f"the papers of the family *{c.name}*" for c in taxonomy.categories}
    files["llms.txt"] = "what the site holds, for language models"
    rows = [(f"[{path.removeprefix('downloads/')}]({path}){{ download }}", text) for path, text in files.items()]
    return table(("File", "What it is"), rows) + "\n"


def _api(modules: Iterable[str]) -> str:
    return join(f"::: {module}" for module in modules)
