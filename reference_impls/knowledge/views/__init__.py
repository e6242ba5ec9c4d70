"""Pages that look across all methods: one module each, a pure function from taxonomy and results to Markdown."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from reference_impls.knowledge.results import Results
from reference_impls.knowledge.taxonomy import Taxonomy
from reference_impls.knowledge.views import (
    acceptance,
    calculator,
    comparison,
    engines,
    errata,
    gaps,
    glossary,
    guide,
    lineage,
    replay,
    timeline,
)

View = Callable[[Taxonomy, Results], str]

# file name below docs/explore/ -> title in the navigation, and what makes the page
VIEWS: Mapping[str, tuple[str, View]] = {
    "comparison": ("Table", comparison.page),
    "guide": ("Which for my workload?", guide.page),
    "replay": ("Side by side", replay.page),
    "calculator": ("Calculator", calculator.page),
    "engines": ("Engines", engines.page),
    "lineage": ("Lineage", lineage.page),
    "timeline": ("Timeline", timeline.page),
    "acceptance": ("What acceptance means", acceptance.page),
    "glossary": ("Glossary", glossary.page),
    "gaps": ("Gap map", gaps.page),
    "errata": ("Errata", errata.page),
}
