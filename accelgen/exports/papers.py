"""What every format of references needs to know: which kind of publication, and whose name is what."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import NamedTuple

from accelgen.taxonomy.schema import OTHERS, Paper, Taxonomy

PROJECT = "accelerated-generation"
TITLE = "A taxonomy of accelerated generation"
AUTHORS = "The accelerated-generation authors"
YEAR = 2026  # of this release, as in LICENSE and CITATION.cff
NAMES = {"Jacobi", "Levenshtein", "Markov", "Medusa"}  # of people and methods in titles, which nothing else shows
SURVEY = f"{PROJECT}-survey"  # the key of the survey; a method's key is its id

_JOURNAL = re.compile(r"\b(Applications|Journal|JMLR|TACL|TMLR|Transactions)\b")
_WEB = re.compile(r"\bBlog\b")
_GROUP = re.compile(r",| and |\b(Group|Labs?|Team)$")  # names of several people at once
_PARTICLES = {"da", "de", "del", "della", "den", "der", "di", "dos", "du", "el", "la", "le", "van", "von"}


class Kind(StrEnum):
    """How a paper was published, as far as citation styles tell apart."""

    PREPRINT = "preprint"
    JOURNAL = "journal"
    PROCEEDINGS = "proceedings"
    CODE = "code"
    WEB = "web"


class Name(NamedTuple):
    """An author; a group has only a family name."""

    family: str
    given: str = ""

    @property
    def inverted(self) -> str:
        """As bibliographies sort it."""
        return f"{self.family}, {self.given}" if self.given else self.family


def references(taxonomy: Taxonomy) -> dict[str, Paper]:
    """Key -> paper: the survey, and every method's."""
    return {SURVEY: taxonomy.survey} | {method.id: method.paper for method in taxonomy.methods}


def kind(paper: Paper) -> Kind:
    """The kind of publication, from the name of its venue."""
    if paper.venue.startswith("arXiv"):
        return Kind.PREPRINT
    if paper.venue == "GitHub":
        return Kind.CODE
    if _WEB.search(paper.venue):
        return Kind.WEB
    return Kind.JOURNAL if _JOURNAL.search(paper.venue) else Kind.PROCEEDINGS


def venue(paper: Paper) -> str:
    """The venue without the year of the paper at its end, which has a field of its own in every format."""
    return paper.venue.removesuffix(str(paper.year)).rstrip() or paper.venue


def names(paper: Paper) -> list[Name]:
    """The authors that are known by name, in the paper's order."""
    return [split(author) for author in paper.authors if author != OTHERS]


def split(author: str) -> Name:
    """The last word, with the particles before it, is the family name; a single word or a group is not split."""
    words = author.split()
    if len(words) == 1 or _GROUP.search(author):
        return Name(author)
    start = len(words) - 1
    while start > 1 and words[start - 1].lower() in _PARTICLES:
        start -= 1
    return Name(" ".join(words[start:]), " ".join(words[:start]))
