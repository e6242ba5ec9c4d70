"""Pages that look across all methods: one module each, a pure function from taxonomy and results to Markdown."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from reference_impls.knowledge.results import Results
from reference_impls.knowledge.taxonomy import Taxonomy
from reference_impls.knowledge.views import acceptance, comparison, engines, gaps, lineage, timeline

View = Callable[[Taxonomy, Results], str]

# file name below docs/explore/ -> title in the navigation, and what makes the page
VIEWS: Mapping[str, tuple[str, View]] = {
    "comparison": ("Table", comparison.page),
    "engines": ("Engines", engines.page),
    "lineage": ("Lineage", lineage.page),
    "timeline": ("Timeline", timeline.page),
    "acceptance": ("What acceptance means", acceptance.page),
    "gaps": ("Gap map", gaps.page),
}
