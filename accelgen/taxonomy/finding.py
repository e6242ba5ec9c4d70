"""What people mean: a method by its id, a part of it, its name or its paper's title; and a search through all texts.

The one place that turns what somebody types into an entry; the commands, and whatever else takes an id, ask here.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from accelgen.taxonomy.calls import BASELINES, Baseline
from accelgen.taxonomy.loading import suggestion
from accelgen.taxonomy.schema import Category, ImplementationStatus, Method, Subcategory, Taxonomy

SHOWN = 8  # candidates that a sentence names
ALL = "`accelgen list` shows all"


def find(taxonomy: Taxonomy, name: str) -> Method:
    """The method that `name` means. Raises ValueError with the nearest ids where it is unknown or may be several."""
    return taxonomy.method(resolve(name, _names(taxonomy), "method", more=ALL))


def find_entry(taxonomy: Taxonomy, name: str) -> Method | Baseline:
    """The method or the baseline that `name` means. Raises ValueError as `find` does."""
    names = _names(taxonomy) | {baseline.id: (baseline.name,) for baseline in BASELINES.values()}
    id = resolve(name, names, "method", more=ALL)
    return BASELINES.get(id) or taxonomy.method(id)


def find_implemented(taxonomy: Taxonomy, name: str) -> Method:
    """The implemented method that `name` means. Raises ValueError as `find` does, and for a planned one."""
    return _implemented(find(taxonomy, name))


def find_runnable(taxonomy: Taxonomy, name: str) -> Method | Baseline:
    """The method or the baseline that `name` means: its `module` is there. Raises ValueError as `find_implemented`."""
    entry = find_entry(taxonomy, name)
    return _implemented(entry) if isinstance(entry, Method) else entry


def _implemented(method: Method) -> Method:
    if not method.is_implemented:
        hint = f"`accelgen list --status {ImplementationStatus.PROVED}` shows what can be run, copied and verified"
        raise ValueError(f"{method.id} is not implemented yet; {hint}")
    return method


def find_group(taxonomy: Taxonomy, name: str) -> str:
    """The id of the category, or of the branch of one, that `name` means. Raises ValueError as `find` does."""
    known = {category.id: (category.name,) for category in taxonomy.categories}
    known |= {branch.id: (branch.name,) for category in taxonomy.categories for branch in category.subcategories}
    return resolve(name, known, "category or branch")


def resolve(name: str, known: Mapping[str, Iterable[str]], what: str, *, more: str = "") -> str:
    """The id among `known`, which maps ids to other names, that `name` means.

    In this order: an id or name but for case; the same but for separators, too; the beginning of an id; whole words of
    an id or name; the beginnings of words. Raises ValueError where several fit equally, with these, and where none
    does, with the nearest: `what` is missing then, and `more` says where all stand.
    """
    found = _fitting(name, known)
    if len(found) == 1:
        return found[0]
    if found:
        rest = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
        raise ValueError(f"{name!r} may be {', '.join(found[:SHOWN])}{rest}: name one of them")
    by_name = "" if difflib.get_close_matches(name, known) else _by_name(name, known)
    raise ValueError(f"no {what} is called {name!r}{by_name or suggestion(name, known) or (more and f'; {more}')}")


def _fitting(name: str, known: Mapping[str, Iterable[str]]) -> list[str]:
    """All ids that fit at the first step at which one does."""
    folded, words = name.casefold(), _plain(name)
    steps: tuple[Callable[[list[str]], bool], ...] = (
        lambda names: folded == names[0],
        lambda names: folded in [one.casefold() for one in names],
        lambda names: words.replace("-", "") in [_plain(one).replace("-", "") for one in names],
        lambda names: _plain(names[0]).startswith(words),
        lambda names: any(f"-{words}-" in f"-{_plain(one)}-" for one in names),
        lambda names: any(f"-{words}" in f"-{_plain(one)}" for one in names),
    )
    for fits in steps if words else ():
        found = [id for id, names in known.items() if fits([id, *names])]
        if found:
            return found
    return []


def _by_name(name: str, known: Mapping[str, Iterable[str]]) -> str:
    """The id whose name, or a word of it, is nearest to what was typed, as the end of a sentence."""
    plain = [(id, _plain(one)) for id, names in known.items() for one in (id, *names)]
    words = {word: id for id, one in plain for word in (one, *one.split("-"))}
    near = difflib.get_close_matches(_plain(name), words, n=1, cutoff=0.75)
    return f"; did you mean {words[near[0]]!r}?" if near else ""


def _names(taxonomy: Taxonomy) -> dict[str, tuple[str, ...]]:
    return {method.id: (method.name, method.paper.title) for method in taxonomy.methods}


def _plain(text: str) -> str:
    """Lower-case words joined by hyphens."""
    return "-".join(re.findall(r"[^\W_]+", text.casefold()))


# ---- search -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Hit:
    """An entry of the taxonomy in which all words of a search stand."""

    kind: str  # method, category, branch or term
    id: str
    name: str
    sentence: str
    """The sentence that holds most of the words."""
    score: int


def search(taxonomy: Taxonomy, words: str) -> list[Hit]:
    """What all of `words` stand in, best first: names count before titles, principles before other remarks.

    A word of the text may go on after what was typed, which counts half. Each word counts by the best place where it
    stands; entries that score alike keep the order of the file, terms before categories before methods.
    """
    wanted = [word for word in _plain(words).split("-") if word]
    hits = []
    for kind, id, name, texts in _entries(taxonomy):
        plain = [(weight, f"-{_plain(text)}-") for weight, text in texts]
        scores = [max(weight * _fit(text, word) for weight, text in plain) for word in wanted]
        if wanted and all(scores):
            hits.append(Hit(kind, id, name, _sentence([text for _, text in texts[1:]], wanted), sum(scores)))
    return sorted(hits, key=lambda hit: -hit.score)


def _entries(taxonomy: Taxonomy) -> Iterator[tuple[str, str, str, list[tuple[int, str]]]]:
    """Kind, id and name of every entry, and its texts by weight; the first is the name."""
    for term in taxonomy.glossary:
        yield "term", term.id, term.term, [(9, " ".join([term.id, term.term, *term.forms])), (3, term.definition)]
    for category in taxonomy.categories:
        yield "category", category.id, category.name, _group_texts(category)
        for branch in category.subcategories:
            yield "branch", branch.id, branch.name, _group_texts(branch)
    for method in taxonomy.methods:
        remarks = " ".join([*method.advantages, *method.limitations, *method.when_to_use, *method.when_not])
        texts = [(9, f"{method.id} {method.name}"), (3, method.principle or ""), (1, remarks)]
        yield "method", method.id, method.name, [*texts, (5, method.paper.title), (4, method.paper.byline)]


def _group_texts(group: Category | Subcategory) -> list[tuple[int, str]]:
    return [(8, f"{group.id} {group.name}"), (3, group.summary)]


def _fit(text: str, word: str) -> int:
    """2 where the word stands in the hyphenated text, 1 where a longer word begins with it, else 0."""
    return 2 if f"-{word}-" in text else int(f"-{word}" in text)


def _sentence(texts: list[str], words: list[str]) -> str:
    """The first sentence in which most of the words stand."""
    sentences = [one for text in texts for one in re.split(r"(?<=[.!?;])\s+", " ".join(text.split())) if one]
    return max(sentences, key=lambda one: sum(_fit(f"-{_plain(one)}-", word) for word in words), default="")
