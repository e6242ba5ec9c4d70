"""The concept pages, written by hand below docs/concepts/, and which methods each of them helps to understand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from accelgen.exports.markdown import read_front_matter
from accelgen.taxonomy.schema import Guarantee, Method, Need

EXACT = (Guarantee.EXACT_DISTRIBUTION, Guarantee.EXACT_GREEDY)


def _speculates(method: Method) -> bool:
    return method.category == "speculative-decoding" or method.subcategory == "exact-early-exit-speculation"


# name of the page -> the methods it explains, in reading order
CONCEPTS: Mapping[str, Callable[[Method], bool]] = {
    "why-decoding-is-slow": lambda _: True,
    "acceptance-and-residual": lambda m: _speculates(m) and m.guarantee is Guarantee.EXACT_DISTRIBUTION,
    "token-trees": lambda m: Need.TREE_ATTENTION in m.needs or m.subcategory == "tree-verification",
    "caches-and-rollback": lambda m: _speculates(m) or m.category == "early-exiting",
    "lossless": lambda m: m.guarantee in EXACT,
    "when-speculation-loses": _speculates,
    "confidence-and-calibration": lambda m: (
        Need.CALIBRATION in m.needs
        or m.subcategory in ("confidence-gated-decoding", "exit-predictors", "dynamic-draft-length")
    ),
    "multimodality": lambda m: (
        m.category == "non-autoregressive" and (m.guarantee not in EXACT or Need.DISTILLED_DATA in m.needs)
    ),
    "iterative-refinement": lambda m: (
        m.subcategory in ("iterative-refinement", "fixed-point-decoding", "masked-diffusion", "block-diffusion")
    ),
}


def concept_links(methods: Iterable[Method], written: Mapping[str, str], folder: str) -> str:
    """Links to the pages that explain one of the methods, in reading order; `folder` leads to docs/concepts/.

    `written` holds the texts of the pages, from which the titles are read; a page that it lacks is left out.
    """
    methods = list(methods)
    found = {name: f"concepts/{name}.md" for name, explains in CONCEPTS.items() if any(map(explains, methods))}
    titles = {name: read_front_matter(written[path])["title"] for name, path in found.items() if path in written}
    return ", ".join(f"[{title}]({folder}{name}.md)" for name, title in titles.items())
