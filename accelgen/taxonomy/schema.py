"""The model of `taxonomy.yaml`: what may stand there, and what the fields mean."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Id = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$")]
Text = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]
Url = Annotated[str, StringConstraints(pattern=r"^https://\S+$")]
Version = Annotated[str, StringConstraints(pattern=r"^\d+\.\d+\.\d+$")]
OTHERS = "others"  # the last author of a paper of which only the first are known
Choice = TypeVar("Choice", bound=StrEnum)
ByValue = Annotated[Choice, Field(strict=False)]  # a file spells a choice by its value; all else stays strict


class Strict(BaseModel):
    """Unknown fields and loose types are errors."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, use_attribute_docstrings=True)


class Guarantee(StrEnum):
    """What is promised about the output, compared with autoregressive decoding of the same target."""

    EXACT_DISTRIBUTION = "exact-distribution"
    EXACT_GREEDY = "exact-greedy"
    LOSSY = "lossy"
    NOT_APPLICABLE = "not-applicable"


class Call(StrEnum):
    """How a method is called; `accelgen.taxonomy.calls` says what follows from it."""

    CONTINUE = "continue"  # generate(target, prompt, limit, *, sampler, …, eos=None)
    TRANSLATE = "translate"  # generate(model, source, …)
    CANVAS = "canvas"  # generate(model, prompt, length, *, steps, …): a text of fixed length is filled
    BATCH = "batch"  # generate(target, prompts, limits, *, …): several sequences
    CLASSIFY = "classify"  # predict(model, tokens, …)


class FigureStatus(StrEnum):
    """How a reported figure reached this file."""

    SEEN = "seen"  # read in the paper, its official abstract or the official repository
    SECONDARY = "secondary"  # read in somebody else's account of the paper
    THIRD_PARTY = "third-party"  # measured by others and read at their place


class ImplementationStatus(StrEnum):
    """How far the reference implementation is."""

    PLANNED = "planned"
    PROVED = "proved"  # implemented, and every suite its fields select passes


class Need(StrEnum):
    """What a method asks for beside the target model."""

    DRAFTER = "drafter"  # a separate smaller model
    TRAINED_HEADS = "trained-heads"  # extra modules trained on the target
    TARGET_TRAINING = "target-training"  # the target itself is trained or fine-tuned for it
    EXITS = "exits"  # a target readable after several layers
    DATASTORE = "datastore"  # text to retrieve from
    TREE_ATTENTION = "tree-attention"  # attention with a custom mask
    CALIBRATION = "calibration"  # held-out prompts to set a threshold
    DISTILLED_DATA = "distilled-data"  # outputs of a teacher to train on
    LENGTH_PREDICTION = "length-prediction"
    SEQUENCE_TO_SEQUENCE = "sequence-to-sequence"  # an encoder-decoder model
    TARGET_ONLY = "target-only"  # nothing else


class Workload(StrEnum):
    """What people decode for; a method fits some of it better than others."""

    ONE_STREAM = "one-stream"  # latency of one request, or a few
    LARGE_BATCH = "large-batch"  # throughput of many requests at once
    SAMPLING = "sampling"  # temperatures well above 0
    LONG_CONTEXT = "long-context"  # reading the cache costs more than reading the weights
    COPY_HEAVY = "copy-heavy"  # the output repeats the prompt or known documents
    TRANSLATION = "translation"  # a source sentence determines most of the output


class Paper(Strict):
    """The publication that introduced the method."""

    title: Text
    authors: list[Text] = Field(min_length=1)
    """In full, in the paper's order; the word `others` ends a list of which only the beginning is known."""
    year: int = Field(ge=1990, le=2100)
    """Year of the venue named below."""
    venue: Text
    arxiv: Annotated[str, StringConstraints(pattern=r"^\d{4}\.\d{4,5}$")] | None = None
    doi: Annotated[str, StringConstraints(pattern=r"^10\.\d{4,}/\S+$")] | None = None
    url: Url

    @property
    def byline(self) -> str:
        """The authors as people read them."""
        known = ", ".join(author for author in self.authors if author != OTHERS)
        return f"{known} et al." if OTHERS in self.authors else known


class Code(Strict):
    """Code that the authors published."""

    url: Url
    licence: Text
    """SPDX id, or `none stated`."""
    note: Text | None = None


class Reported(Strict):
    """A figure that a source reports; never one of ours."""

    figure: Text
    setup: Text
    place: Text
    """Table, section or abstract."""
    url: Url
    status: ByValue[FigureStatus]


class Production(Strict):
    """Support in an inference engine."""

    engine: Text
    switch: Text
    """Exact option, or `absent`, or `removed in …`."""
    command: Text | None = None
    """A command or configuration that turns it on, ready to copy."""
    version: Text
    """The release or commit in which this was read."""
    url: Url


class Fit(Strict):
    """Whether a method suits a workload, with the reason; what says nothing either way is left out."""

    workload: ByValue[Workload]
    good: bool
    reason: Text
    url: Url | None = None
    """Where that was read; none where it follows from the method itself."""


class Implementation(Strict):
    """Our reference implementation."""

    status: ByValue[ImplementationStatus]
    skip: dict[Text, Text] = Field(default_factory=dict)
    """Proof suites that do not apply, each with the reason; shown on the page."""


class Method(Strict):
    """One technique."""

    id: Id
    name: Text
    category: Id
    subcategory: Id
    call: ByValue[Call]
    in_survey: bool
    paper: Paper
    code: list[Code] = Field(default_factory=list)
    guarantee: ByValue[Guarantee]
    guarantee_reason: Text
    trained: Text
    """What has to be trained, and with which loss; `nothing` where nothing is."""
    needs: list[ByValue[Need]] = Field(min_length=1)
    builds_on: list[Id] = Field(default_factory=list)
    """Methods of this file that it extends; no cycles."""
    principle: Text | None = None
    """Three to six exact sentences with the key formula, Markdown with `$…$`."""
    advantages: list[Text] = Field(default_factory=list)
    limitations: list[Text] = Field(default_factory=list)
    advancements: list[Text] = Field(default_factory=list)
    """What later work made of it."""
    when_to_use: list[Text] = Field(default_factory=list)
    when_not: list[Text] = Field(default_factory=list)
    fits: list[Fit] = Field(default_factory=list)
    reported: list[Reported] = Field(default_factory=list)
    production: list[Production] = Field(default_factory=list)
    notes: list[Text] = Field(default_factory=list)
    """Corrections to the survey's list and other remarks, each with its ground."""
    sources: list[Url] = Field(default_factory=list)
    """Where the statements above were read."""
    implementation: Implementation

    @property
    def module(self) -> str:
        """Name of the reference implementation's module."""
        return f"reference_impls.{self.category.replace('-', '_')}.{self.id.replace('-', '_')}"

    @property
    def is_implemented(self) -> bool:
        """Whether there is a reference implementation."""
        return self.implementation.status is not ImplementationStatus.PLANNED


class Subcategory(Strict):
    """A branch of a category."""

    id: Id
    name: Text
    summary: Text
    principle: Text | None = None
    """What its methods have in common and why it works, in a few sentences with the key formula."""
    advantages: list[Text] = Field(default_factory=list)
    limitations: list[Text] = Field(default_factory=list)
    advancements: list[Text] = Field(default_factory=list)
    open_problems: list[Text] = Field(default_factory=list)


class Category(Strict):
    """One of the three families."""

    id: Id
    name: Text
    summary: Text
    principles: list[Text] = Field(min_length=1)
    advantages: list[Text] = Field(min_length=1)
    limitations: list[Text] = Field(min_length=1)
    advancements: list[Text] = Field(min_length=1)
    open_problems: list[Text] = Field(min_length=1)
    subcategories: list[Subcategory] = Field(min_length=1)


class Term(Strict):
    """A word or symbol of the field."""

    id: Id
    term: Text
    definition: Text
    """One to three exact sentences, Markdown with `$…$`."""
    tip: Text | None = None
    """The definition in a line of plain text, shown as a tooltip where one helps."""
    forms: list[Text] = Field(default_factory=list)
    """The spellings in running text that carry the tooltip, on every page."""
    methods: list[Id] = Field(default_factory=list)
    """Methods of this file for which it matters most."""
    url: Url | None = None
    """Where the usage was read; none where it is common or follows from the methods."""


class Release(Strict):
    """What changed in the taxonomy with a version."""

    version: Version
    date: Annotated[str, StringConstraints(pattern=r"^\d{4}-\d{2}-\d{2}$")]
    changes: list[Text] = Field(min_length=1)


class Taxonomy(Strict):
    """The whole file."""

    version: Version
    history: list[Release] = Field(default_factory=list)
    """Newest first; the first entry is the version above."""
    survey: Paper
    categories: list[Category] = Field(min_length=1)
    glossary: list[Term] = Field(default_factory=list)
    methods: list[Method] = Field(min_length=1)

    def category(self, id: str) -> Category:
        """The category with this id; KeyError if there is none."""
        return {c.id: c for c in self.categories}[id]

    def method(self, id: str) -> Method:
        """The method with this id; KeyError if there is none."""
        return {m.id: m for m in self.methods}[id]

    def methods_of(self, category: str, subcategory: str | None = None) -> list[Method]:
        """The methods of a category, or of one of its branches, in the order of the file."""
        return [m for m in self.methods if m.category == category and subcategory in (None, m.subcategory)]
