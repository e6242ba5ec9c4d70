"""BibTeX, in plain ASCII: accents as commands, capitals protected."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from accelgen.exports.papers import AUTHORS, NAMES, PROJECT, SURVEY, TITLE, YEAR, Kind, kind, split, venue
from accelgen.taxonomy.calls import Baseline
from accelgen.taxonomy.loading import TaxonomyError, suggestion
from accelgen.taxonomy.schema import Method, Paper, Taxonomy

_SPECIAL = {c: f"\\{c}" for c in "&%$#_{}"} | {"~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
_SPECIAL |= {"\\": r"\textbackslash{}", "–": "--", "—": "---", "’": "'", "‘": "`", "“": "``", "”": "''", "\u00a0": "~"}
_LETTER = {"ß": "ss", "ø": "o", "Ø": "O", "ł": "l", "Ł": "L", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ı": "i"}
_LETTER |= {"å": "aa", "Å": "AA"}
_ACCENT = {"\u0300": "`", "\u0301": "'", "\u0302": "^", "\u0303": "~", "\u0304": "=", "\u0306": "u", "\u0307": "."}
_ACCENT |= {"\u0308": '"', "\u030b": "H", "\u030c": "v", "\u0323": "d", "\u0327": "c", "\u0328": "k", "\u0331": "b"}
_TYPES = {  # kind of publication -> BibTeX's entry type, and the field that names the venue
    Kind.PREPRINT: ("misc", ""),
    Kind.JOURNAL: ("article", "journal"),
    Kind.PROCEEDINGS: ("inproceedings", "booktitle"),
    Kind.CODE: ("misc", "howpublished"),
    Kind.WEB: ("misc", "howpublished"),
}


def to_bibtex(taxonomy: Taxonomy, ids: Iterable[str] | None = None) -> str:
    """BibTeX of the methods named by `ids` (a category's id names all of its methods); by default all, and the survey.

    Raises TaxonomyError for an unknown id.
    """
    if ids is None:
        return "\n".join([_paper(SURVEY, taxonomy.survey), *map(method_bibtex, taxonomy.methods)])
    wanted = dict.fromkeys(ids)
    known = {method.id for method in taxonomy.methods} | {category.id for category in taxonomy.categories}
    for name in wanted:
        if name not in known:
            raise TaxonomyError(f"no method or category is called {name!r}{suggestion(name, known)}")
    return "\n".join(method_bibtex(m) for m in taxonomy.methods if m.id in wanted or m.category in wanted)


def method_bibtex(method: Method) -> str:
    """The BibTeX entry of the method's paper; its key is the method's id."""
    return _paper(method.id, method.paper)


def page_bibtex(entry: Method | Baseline | None, taxonomy: Taxonomy, url: str | None = None) -> str:
    """The BibTeX entry of what this project has on a method or baseline, or of the whole taxonomy for None.

    What is not implemented is cited for its notes alone, a baseline for its implementation. `url` is the page's.
    """
    fields = {
        "title": _title(_page_title(entry)),
        "author": f"{{{AUTHORS}}}",
        "year": str(YEAR),
        "howpublished": _latex(f"Project {PROJECT}, version {taxonomy.version}"),
    }
    return _entry("misc", f"{PROJECT}-{entry.id}" if entry else PROJECT, fields | ({"url": url} if url else {}))


def _page_title(entry: Method | Baseline | None) -> str:
    if entry is None:
        return TITLE
    if isinstance(entry, Baseline):
        return f"{entry.name}: reference implementation"
    return f"{entry.name}: {'reference implementation and notes' if entry.is_implemented else 'notes'}"


def _paper(key: str, paper: Paper) -> str:
    fields = {
        "title": _title(paper.title),
        "author": " and ".join(map(_author, paper.authors)),
        "year": str(paper.year),
    }
    entry_type, place = _TYPES[kind(paper)]
    if place:
        fields[place] = _latex(venue(paper))
    if paper.arxiv:
        fields |= {"eprint": paper.arxiv, "archivePrefix": "arXiv"}
    if paper.doi:
        fields["doi"] = paper.doi
    return _entry(entry_type, key, fields | {"url": paper.url})


def _entry(entry_type: str, key: str, fields: dict[str, str]) -> str:
    width = max(map(len, fields))
    lines = [f"  {name:<{width}} = {{{value}}}," for name, value in fields.items()]
    return "\n".join([f"@{entry_type}{{{key},", *lines, "}", ""])


def _title(title: str) -> str:
    """Names keep their capitals in braces: bibliography styles turn all others to lower case.

    What stands before a colon without a blank is a name (Mask-Predict: ...), and so is a word with capitals inside or
    with a digit (LLM, V3), and one of `NAMES`.
    """
    head, colon, _ = title.partition(": ")
    name = head if colon and " " not in head and head != head.lower() else ""
    words = re.findall(r"\w+|\W+", title.removeprefix(name))
    rest = "".join(f"{{{_latex(word)}}}" if _is_name(word) else _latex(word) for word in words)
    return f"{{{_latex(name)}}}{rest}" if name else rest


def _is_name(word: str) -> bool:
    has_digit = word[0].isupper() and any(c.isdigit() for c in word)
    return word in NAMES or has_digit or any(c.isupper() for c in word[1:])


def _author(author: str) -> str:
    """As written, where BibTeX reads that rightly; a group with a comma or an `and` in its name is one author.

    The word `others` at the end of a list is BibTeX's own for et al.
    """
    if "," in author or " and " in author:
        return f"{{{_latex(author)}}}"
    name = split(author)
    return _latex(name.inverted if " " in name.family and name.given else author)


def _latex(text: str) -> str:
    """LaTeX's special characters escaped, and accents as commands in braces, which BibTeX sorts rightly.

    Raises TaxonomyError for a letter of another script.
    """
    return "".join(map(_character, unicodedata.normalize("NFC", text)))


def _character(c: str) -> str:
    if c in _SPECIAL:
        return _SPECIAL[c]
    if c.isascii():
        return c
    if c in _LETTER:
        return f"{{\\{_LETTER[c]}}}"
    decomposed = unicodedata.normalize("NFD", c)
    letter, accent = decomposed[0], _ACCENT.get(decomposed[1:])
    if not letter.isascii() or accent is None:
        raise TaxonomyError(f"no LaTeX command is known for {c!r} ({unicodedata.name(c, 'unnamed')}); transliterate it")
    letter = f"\\{letter}" if letter in "ij" and accent not in "bcdk" else letter  # the accent replaces the dot
    return f"{{\\{accent}{{{letter}}}}}"
