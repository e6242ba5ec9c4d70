"""From `taxonomy.yaml` to a `Taxonomy`: every mistake in the file becomes one sentence with its line and field."""

from __future__ import annotations

import datetime as dt
import difflib
import functools
import graphlib
import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, get_args

import yaml
from pydantic import BaseModel, ValidationError

from accelgen.project.places import TAXONOMY
from accelgen.taxonomy.schema import Taxonomy

LISTED = 24  # known names that a sentence counts up, where none is near
Place = tuple[str | int, ...]  # where a value stands: ("methods", 3, "paper", "year")
_NUMBERS = {"tag:yaml.org,2002:int", "tag:yaml.org,2002:float"}
_PLAIN_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?")  # to YAML 1.1, 33:43 is 2023, and 03747, and 2_023
_FIELD = re.compile(r"\s*(- )?[a-z_]+:(\s|$)")
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class TaxonomyError(Exception):
    """The taxonomy cannot be used, or has nothing of the asked name; the message is one sentence for the user."""


class _Document(NamedTuple):
    """A YAML file as plain data, with the line of every value."""

    data: Any
    lines: Mapping[Place, int]


class _Problem(NamedTuple):
    line: int
    place: Place
    message: str


def load_taxonomy(path: Path | None = None) -> Taxonomy:
    """The taxonomy in the file `path`, by default the project's own.

    Raises TaxonomyError for anything that is wrong with it.
    """
    path = path or TAXONOMY
    document = _document(_read(path), path.name)
    try:
        taxonomy = Taxonomy.model_validate(document.data)
    except ValidationError as error:
        found = [(error["loc"], _explain(error)) for error in error.errors(include_url=False)]
        raise _report(path.name, document.data, [_problem(document, *one) for one in found]) from None
    for contradictions in (_double_ids, _contradictions):  # an id that stands twice makes others seem to be missing
        problems = [_problem(document, *one) for one in contradictions(taxonomy)]
        if problems:
            raise _report(path.name, document.data, problems)
    return taxonomy


def source_line(path: Path | None, id: str, *fields: str | int) -> int:
    """The line, counted from 1, where a method or category (or a field of it) begins; for edit links.

    `path` is a file that `load_taxonomy` accepts. Raises TaxonomyError for an id or a field that it does not hold.
    """
    path = path or TAXONOMY
    data, lines = _document(_read(path), path.name)
    places = {item["id"]: (kind, i) for kind in ("methods", "categories") for i, item in enumerate(data[kind])}
    if id not in places:
        raise TaxonomyError(f"{path.name}: no method or category is called {id!r}{suggestion(id, places)}")
    place = (*places[id], *fields)
    if place not in lines:
        raise TaxonomyError(f"{path.name}: {_name(place, data)} is not given")
    return lines[place]


def suggestion(name: str, known: Iterable[str]) -> str:
    """How an error about the unknown `name` goes on: the nearest names, or a few known ones, or nothing."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    if near:
        return f"; did you mean {' or '.join(map(repr, near))}?"
    return f"; there is {', '.join(map(repr, known))}" if 0 < len(known) <= LISTED else ""


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise TaxonomyError(f"{path}: cannot be read ({reason[0].lower()}{reason[1:]})") from None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise TaxonomyError(f"{path.name}, line {line}: is not UTF-8 text; save the file as UTF-8") from None


@functools.lru_cache(maxsize=8)
def _document(text: str, name: str) -> _Document:
    """Compose the nodes once, and read both the data and the lines from them."""
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            needed = [field for field, info in Taxonomy.model_fields.items() if info.is_required()]
            raise TaxonomyError(f"{name}, line 1: is empty; a taxonomy has {', '.join(needed)}")
        reader = _Reader(loader)
        data = reader.read(root, ())
    except yaml.MarkedYAMLError as error:
        if (opened := _unclosed(text)) is not None:
            raise TaxonomyError(f"{name}, line {opened}: has a quote that is not closed") from None
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        reason = ": ".join(filter(None, (error.context, error.problem)))
        raise TaxonomyError(f"{name}, line {line}: is not valid YAML ({reason})") from None
    except yaml.reader.ReaderError as error:
        raise TaxonomyError(f"{name}: character {error.position + 1} is not allowed in YAML ({error.reason})") from None
    except RecursionError:
        raise TaxonomyError(f"{name}: is nested too deeply to be a taxonomy") from None
    finally:
        loader.dispose()
    if reader.problems:
        raise _report(name, data, reader.problems)
    return _Document(data, reader.lines)


def _unclosed(text: str) -> int | None:
    """The line of the first quoted text that goes on over what looks like other fields: its end is missing."""
    lines = text.split("\n")
    for start, end in _quoted(text):
        if end is None or any(_FIELD.match(line) for line in lines[start + 1 : end + 1]):
            return start + 1
    return None


def _quoted(text: str) -> Iterator[tuple[int, int | None]]:
    """First and last line of every quoted text, from 0; no last line where one never ends."""
    try:
        for token in yaml.scan(text, Loader=_Loader):
            if isinstance(token, yaml.ScalarToken) and token.style in {"'", '"'}:
                yield token.start_mark.line, token.end_mark.line
    except yaml.MarkedYAMLError as error:
        if error.context_mark and "quoted" in (error.context or ""):
            yield error.context_mark.line, None


class _Reader:
    """Turns YAML nodes into plain data; notes lines, and what may not stand there: double keys, aliases, tags."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader
        self._seen: set[int] = set()
        self.lines: dict[Place, int] = {}
        self.problems: list[_Problem] = []

    def read(self, node: yaml.Node, place: Place) -> Any:
        """The data of `node`, which stands at `place`."""
        line = self.lines.setdefault(place, node.start_mark.line + 1)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, place)
        if id(node) in self._seen:
            self.problems.append(_Problem(line, place, "is a YAML alias; write the value out"))
            return None
        self._seen.add(id(node))
        if node.tag not in {"tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"}:
            self.problems.append(_Problem(line, place, f"has the YAML tag {_shown(node.tag)}; tags are not allowed"))
        if isinstance(node, yaml.SequenceNode):
            return [self.read(item, (*place, i)) for i, item in enumerate(node.value)]
        return self._mapping(node, place)

    def _scalar(self, node: yaml.ScalarNode, place: Place) -> Any:
        message = "is no value that YAML can read, found {}; put it in quotes if it is text"
        try:
            if node.tag not in _NUMBERS or _PLAIN_NUMBER.fullmatch(node.value):
                return self._loader.construct_object(node)
            message = "is a number in a spelling of YAML alone, found {}; write plain digits, or quotes if it is text"
        except (yaml.YAMLError, ValueError):
            pass
        self.problems.append(_Problem(node.start_mark.line + 1, place, message.format(_shown(node.value))))
        return None

    def _mapping(self, node: yaml.Node, place: Place) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            key = key_node.value
            here = (*place, key) if isinstance(key, str) else place
            if key_node.tag != "tag:yaml.org,2002:str":
                self.problems.append(_Problem(line, here, "has a name that is not plain text; put it in quotes"))
            elif key in data:
                message = f"is given twice, first in line {self.lines[here]}"
                self.problems.append(_Problem(line, here, message))
            else:
                self.lines[here] = line
                data[key] = self.read(value_node, here)
        return data


def _problem(document: _Document, place: Place, message: str) -> _Problem:
    """A problem at the line of `place`, or of what should have held it."""
    known = next(place[:n] for n in range(len(place), -1, -1) if place[:n] in document.lines)
    return _Problem(document.lines[known], place, message)


def _report(name: str, data: Any, problems: list[_Problem]) -> TaxonomyError:
    """The first problem in full, and how many more there are."""
    line, place, message = min(problems, key=lambda problem: problem.line)
    where = ", ".join(filter(None, (name, f"line {line}", _name(place, data))))
    more = len(problems) - 1
    return TaxonomyError(f"{where}: {message}" + (f" (and {more} more error{'s' * (more > 1)})" if more else ""))


def _name(place: Place, data: Any) -> str:
    """How people call a place: `methods[calm].paper.year`."""
    name = ""
    for key in place:
        try:
            data = data[key]
        except (KeyError, IndexError, TypeError):
            data = None
        if isinstance(key, int):
            name += f"[{data['id'] if isinstance(data, dict) and 'id' in data else key}]"
        elif key != "[key]":  # pydantic's own mark
            name += f".{_short(key)}"
    return name.removeprefix(".")


def _explain(error: Any) -> str:
    """What pydantic found, in the words of the file instead of Python's."""
    kind, value, place = error["type"], error["input"], error["loc"]
    if kind == "missing":
        return "is missing"
    if kind == "extra_forbidden":
        return f"is not a known field{suggestion(place[-1], _fields(place[:-1]))}"
    if kind == "too_short":
        return "should have at least one item, found an empty list"
    should = "should " + error["msg"].partition(" should ")[2]
    should = re.sub(r"valid dictionary( or instance of \w+)?", "mapping", should)
    quotes = "; put it in quotes" if kind == "string_type" and not isinstance(value, list | dict | None) else ""
    return f"{should}, found {_shown(value)}{quotes}"


def _shown(value: Any) -> str:
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    if isinstance(value, dt.date):  # YAML's own idea of 2024-01-01
        return str(value)
    return "nothing" if value is None else _short(repr(value))


def _short(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "…" + text[-1]


def _fields(place: Place) -> list[str]:
    """The field names of the model that describes `place`."""
    model: type[BaseModel] = Taxonomy
    for key in place:
        if isinstance(key, str):
            annotation = model.model_fields[key].annotation
            inner = (annotation, *get_args(annotation))
            model = next(t for t in inner if isinstance(t, type) and issubclass(t, BaseModel))
    return list(model.model_fields)


def _double_ids(taxonomy: Taxonomy) -> Iterator[tuple[Place, str]]:
    """Every id stands once among its like."""
    yield from _repeated(("categories",), [category.id for category in taxonomy.categories])
    yield from _repeated(("methods",), [method.id for method in taxonomy.methods])
    yield from _repeated(("glossary",), [term.id for term in taxonomy.glossary])
    for i, category in enumerate(taxonomy.categories):
        yield from _repeated(("categories", i, "subcategories"), [branch.id for branch in category.subcategories])


def _contradictions(taxonomy: Taxonomy) -> Iterator[tuple[Place, str]]:
    """What every field allows by itself, and the fields together do not."""
    yield from _history(taxonomy)
    branches = {category.id: [branch.id for branch in category.subcategories] for category in taxonomy.categories}
    lineage = {method.id: method.builds_on for method in taxonomy.methods}
    for i, method in enumerate(taxonomy.methods):
        at = ("methods", i)
        if method.id in branches:
            yield (*at, "id"), f"{_shown(method.id)} is the id of a category; give the method another one"
        if method.category not in branches:
            yield (
                (*at, "category"),
                f"no category is called {_shown(method.category)}{suggestion(method.category, branches)}",
            )
        elif method.subcategory not in branches[method.category]:
            hint = suggestion(method.subcategory, branches[method.category])
            yield (*at, "subcategory"), f"{method.category} has no subcategory {_shown(method.subcategory)}{hint}"
        for j, parent in enumerate(method.builds_on):
            if parent not in lineage:
                yield (*at, "builds_on", j), f"no method is called {_shown(parent)}{suggestion(parent, lineage)}"
        workloads = [fit.workload for fit in method.fits]
        for j, workload in enumerate(workloads):
            if workload in workloads[:j]:
                yield (*at, "fits", j), f"judges {workload.value!r} again; a workload is judged once"
    yield from _glossary(taxonomy, lineage)
    yield from _circle(lineage)


def _history(taxonomy: Taxonomy) -> Iterator[tuple[Place, str]]:
    """The first release is the file's own version, and every release is newer than those below it."""
    releases = taxonomy.history
    if releases and releases[0].version != taxonomy.version:
        yield ("history", 0, "version"), f"is not the version of this file, {taxonomy.version}; newest comes first"
    for i, (newer, older) in enumerate(itertools.pairwise(releases)):
        if _numbers(newer.version) <= _numbers(older.version) or newer.date < older.date:
            yield ("history", i + 1, "version"), f"stands below {newer.version} and is not older; newest comes first"


def _numbers(version: str) -> list[int]:
    return [int(number) for number in version.split(".")]


def _glossary(taxonomy: Taxonomy, methods: Iterable[str]) -> Iterator[tuple[Place, str]]:
    """A spelling has one tooltip, and the methods exist."""
    taken: dict[str, str] = {}
    for i, term in enumerate(taxonomy.glossary):
        at = ("glossary", i)
        if bool(term.tip) != bool(term.forms):
            yield at, "has a tip and no forms to carry it" if term.tip else "has forms and no tip for them"
        for j, form in enumerate(term.forms):
            if (owner := taken.setdefault(form, term.id)) != term.id:
                yield (*at, "forms", j), f"{_shown(form)} carries the tooltip of {owner!r} already"
        for j, name in enumerate(term.methods):
            if name not in methods:
                yield (*at, "methods", j), f"no method is called {_shown(name)}{suggestion(name, methods)}"


def _repeated(at: Place, ids: list[str]) -> Iterator[tuple[Place, str]]:
    for i, name in enumerate(ids):
        if name in ids[:i]:
            yield (*at, i, "id"), f"{_shown(name)} is the id of an earlier one; every id stands once"


def _circle(lineage: dict[str, list[str]]) -> Iterator[tuple[Place, str]]:
    try:
        graphlib.TopologicalSorter(lineage).prepare()
    except graphlib.CycleError as error:
        ring = error.args[1][:0:-1]  # graphlib names parents first, and the first one twice
        order = list(lineage)
        start = min(range(len(ring)), key=lambda i: order.index(ring[i]))
        ring = ring[start:] + ring[: start + 1]
        yield ("methods", order.index(ring[0]), "builds_on"), f"goes round in a circle: {' -> '.join(ring)}"
