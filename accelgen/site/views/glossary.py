"""The glossary: the words of the field, and which of them carry a tooltip on every page."""

from __future__ import annotations

from collections.abc import Mapping

from accelgen.exports.markdown import front_matter, indent, join
from accelgen.site.results import Results
from accelgen.taxonomy.schema import Taxonomy, Term

LEAD = "The words and symbols of this site, each in one to three sentences."
PAGES = {  # term -> the page that says more
    "acceptance-rate": "[What acceptance means](acceptance.md)",
    "exact-distribution": "[How correctness is proved](../proofs.md)",
}


def page(taxonomy: Taxonomy, _: Results) -> str:
    """The Markdown of docs/explore/glossary.md."""
    terms = sorted(taxonomy.glossary, key=lambda term: term.id)
    return join(
        [
            front_matter(title="Glossary", description=LEAD, hide=["toc"]),
            "# Glossary",
            f'<p class="lead">{LEAD}</p>',
            f'<div class="glossary" markdown>\n\n{join(_entry(term, taxonomy) for term in terms)}\n</div>',
            "\n\n".join(f"*[{form}]: ''" for form in tooltips(taxonomy)),  # here the definitions themselves stand
        ]
    )


def tooltips(taxonomy: Taxonomy) -> Mapping[str, str]:
    """Spelling -> tooltip, for the Markdown extension `abbr`."""
    return {form: term.tip for term in taxonomy.glossary for form in term.forms if term.tip}


def _entry(term: Term, taxonomy: Taxonomy) -> str:
    links = [f"[{taxonomy.method(id).name}](../methods/{id}.md)" for id in term.methods]
    links += [PAGES[term.id]] if term.id in PAGES else []
    source = f"([source]({term.url}))" if term.url else ""
    text = " ".join(filter(None, [term.definition, source, f"See {', '.join(links)}." if links else ""]))
    return f'<span id="{term.id}">{term.term}</span>\n:   {indent(text, 4).lstrip()}'
