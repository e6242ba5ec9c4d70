"""Pages that look across all methods: one module each, a pure function from taxonomy and results to Markdown."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from accelgen.site.results import Results
from accelgen.site.views import (
    calculator,
    cold_and_warm,
    comparison,
    distilled,
    engines,
    five_rates,
    gaps,
    glossary,
    guide,
    lineage,
    many_texts,
    match_rates,
    mistakes,
    replay,
    timeline,
)
from accelgen.taxonomy.schema import Taxonomy

View = Callable[[Taxonomy, Results], str]

# file name below docs/explore/ -> title in the navigation, and what makes the page
VIEWS: Mapping[str, tuple[str, View]] = {
    "comparison": ("Table", comparison.page),
    "guide": ("Which for my workload?", guide.page),
    "replay": ("Side by side", replay.page),
    "calculator": ("Calculator", calculator.page),
    "batches": ("Many texts at once", many_texts.page),
    "engines": ("Engines", engines.page),
    "lineage": ("Lineage", lineage.page),
    "timeline": ("Timeline", timeline.page),
    "acceptance": ("What acceptance means", five_rates.page),
    "copying": ("What copying gains", match_rates.page),
    "warming": ("Cold and warm", cold_and_warm.page),
    "distilling": ("What distilling gains", distilled.page),
    "glossary": ("Glossary", glossary.page),
    "gaps": ("Gap map", gaps.page),
    "errata": ("Errata", mistakes.page),
}
