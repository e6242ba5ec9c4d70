"""What a measurement gives, row by row, and how each figure is called and written, wherever it is shown.

A row is stored under the names of its fields; `read` makes rows of a stored report again and refuses what does not fit.
The columns declared here are those of the terminal, the pages and the charts. No torch: the site reads what is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import ConfigDict, TypeAdapter

R = TypeVar("R")
R_contra = TypeVar("R_contra", contravariant=True)
ADAPTERS: dict[Any, TypeAdapter[Any]] = {}  # class of a row -> what reads and writes it


# ---- rows ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Row:
    """Anything measured, as it is stored. A field without a value is left out."""

    __pydantic_config__: ClassVar[ConfigDict] = ConfigDict(extra="forbid")

    def as_data(self) -> dict[str, Any]:
        """Plain data for JSON."""
        found: dict[str, Any] = _adapter(type(self)).dump_python(self, mode="json", exclude_none=True)
        return found


@dataclass(frozen=True, kw_only=True)
class Measured(Row):
    """A row of a report: whose figures it has, and at which setting."""

    id: str
    setting: str

    @property
    def key(self) -> tuple[str, str]:
        """What the rows of one method at one setting have in common, whatever was measured."""
        return self.id, self.setting


@dataclass(frozen=True, kw_only=True)
class Spread(Row):
    """Ratios of paired wall times: the baseline's divided by the method's."""

    speedup: float  # the median
    speedup_q1: float  # the lower quartile
    speedup_q3: float  # the upper one
    pairs: int

    @property
    def quartiles(self) -> str:
        """Both quartiles, as they stand behind a median."""
        return f"({self.speedup_q1:.2f}–{self.speedup_q3:.2f})"


@dataclass(frozen=True, kw_only=True)
class Agreement(Row):
    """How far greedy texts equal the baseline's; empty where that was not asked."""

    texts: int | None = None
    identical_texts: int | None = None
    identical_tokens: float | None = None  # share of the baseline's
    rounding_ties: int | None = None  # texts of an exact method that differ where two logits are equal
    as_promised: bool | None = None  # of an exact method: whether all differences are such ties

    @property
    def equal_texts(self) -> str:
        """How many are equal, and why others are not."""
        if self.texts is None or self.identical_texts is None:
            return ""
        ties = self.rounding_ties or 0
        broken = self.texts - self.identical_texts - ties if self.as_promised is False else 0
        parts = [f"{self.identical_texts} of {self.texts}"]
        parts += [f"{ties} by a rounding tie"] * bool(ties) + [f"{broken} not as promised"] * bool(broken)
        return "; ".join(parts)


@dataclass(frozen=True, kw_only=True)
class BenchRow(Measured, Spread, Agreement):
    """A method at one setting, against its baseline."""

    tokens_per_pass: float
    acceptance: float | None = None  # kept guesses / all guesses
    mean_layers: float | None = None  # layers that stand one after the other, a token
    mean_work: float | None = None  # layers that are computed at all, a token
    passes_per_sentence: float | None = None
    exact_match: float | None = None  # translations that are one of the right ones
    exact_match_autoregressive: float | None = None

    @property
    def translates(self) -> bool:
        """Whether sentences were translated; they can be right or wrong, a text that goes on cannot."""
        return self.exact_match is not None


@dataclass(frozen=True, kw_only=True)
class ForcedRow(Measured, Spread, Agreement):
    """A method whose drafter was right as often as asked."""

    gamma: int
    tokens_per_pass: float
    expected_tokens: float  # by equation 1 of Leviathan et al. (2023)
    cost_ratio: float  # a drafter's pass in target passes over one token
    verify_cost: float  # a target pass over gamma + 1 tokens, likewise
    predicted: float  # the speedup that follows


@dataclass(frozen=True, kw_only=True)
class Unit(Row):
    """What a kind of call costs: the median, and how many calls it is over."""

    part: str
    who: str
    call: str
    how: str
    new: int
    microseconds: float
    calls: int

    @property
    def kind(self) -> tuple[str, str, str]:
        """Who is called, what, and how; the size is left out."""
        return self.who, self.call, self.how


@dataclass(frozen=True, kw_only=True)
class Prediction(Measured):
    """A row of the benchmark as the costs of single calls promise it. Costs are in steps of plain decoding."""

    tokens_per_pass: float
    target: float
    draft: float
    rest: float
    predicted: float
    runs: int


@dataclass(frozen=True)
class Verdict:
    """A row of the benchmark beside its prediction."""

    measured: BenchRow
    promised: Prediction
    number: int | None = None  # of the reason, where the two differ

    @property
    def id(self) -> str:
        """The method."""
        return self.measured.id

    @property
    def deviation(self) -> float:
        """Measured / predicted - 1."""
        return self.measured.speedup / self.promised.predicted - 1


@dataclass(frozen=True, kw_only=True)
class SideFigures(Row):
    """Figures of one side of a comparison alone."""

    tokens_per_pass: float
    drafted_per_pass: float
    acceptance: float | None = None
    over_plain: Spread | None = None  # its gain over its own plain decoding; None if that is what it is
    working_bytes: int | None = None  # the most that were alive at once, weights left out; greedy runs alone


@dataclass(frozen=True, kw_only=True)
class OurSide(SideFigures):
    """Ours, with its options."""

    options: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class TheirCall(Row):
    """How transformers was called."""

    call: str


@dataclass(frozen=True, kw_only=True)
class TheirSide(SideFigures, TheirCall):
    """Theirs, with what its configuration had to say."""

    switches: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Compared(Measured):
    """What of ours stands beside what of theirs."""

    title: str


@dataclass(frozen=True, kw_only=True)
class PeerRow(Compared, Spread, Agreement):
    """A method beside transformers; `speedup` is their time divided by ours."""

    ours: OurSide
    theirs: TheirSide
    loop: Spread | None = None  # the same ratio of plain decoding; None where that is what is compared
    algorithm: Spread | None = None  # our gain over plain decoding divided by theirs


@dataclass(frozen=True, kw_only=True)
class FailedRow(Compared):
    """A call that transformers did not answer."""

    theirs: TheirCall
    error: str


@dataclass(frozen=True, kw_only=True)
class AcceptanceFigures(Row):
    """What people call acceptance rate: figures of one and the same run."""

    prompts: int
    limit: int
    temperature: float
    rounds: int
    gamma: int
    expected_overlap: float
    conditional: list[float]
    unconditional: list[float]
    kept_of_drafted: float
    matches_anywhere: float
    tokens_per_pass: float
    kept_per_pass: float
    promised_tokens_per_pass: float
    first_rounds: list[list[bool]]


@dataclass(frozen=True, kw_only=True)
class CopyingRow(Row):
    """What copying from references gives on texts of one workload, at one match length and one copy length."""

    workload: str
    shortest: int
    gamma: int
    texts: int
    tokens: int
    match_rate: float  # passes that found something to copy / passes after the first, which has nothing to look up
    copied: float  # tokens a copy
    kept: float  # kept tokens / copied tokens
    tokens_per_pass: float


@dataclass(frozen=True, kw_only=True)
class WarmthRow(Row):
    """What drafts gain that come from a trie which has learned from other texts before, or from none."""

    setting: str
    trie: str  # what it had learned before these texts
    texts: int
    tokens: int
    learned: int  # nodes of the trie at the beginning
    drafted_per_pass: float
    tokens_per_pass: float


NAMES = {"forward-kl": "forward KL", "reverse-kl": "reverse KL", "jensen-shannon": "Jensen-Shannon"}  # of divergences


@dataclass(frozen=True, kw_only=True)
class DistilledRow(Row):
    """How often a drafter's guesses are kept, by the way in which it learned: prompts of one side, one temperature."""

    way: str  # the divergence, or what it is compared with
    on_policy: float  # share of the steps that learned from the drafter's own texts
    side: str
    temperature: float
    acceptance: float  # mean of sum_x min(p(x), q(x)) over the places of texts that the target wrote
    gain: float  # over the plain drafter on the same texts
    margin: float  # half of the 95% interval of the gain, over texts

    @property
    def learned_from(self) -> str:
        """The way in words."""
        return NAMES.get(self.way, self.way.replace("-", " ")) + (
            f", {self.on_policy:.0%} own texts" if self.on_policy else ""
        )


@dataclass(frozen=True, kw_only=True)
class ContrastRow(Row):
    """One strength of the contrast of two models at one temperature: what the text is worth, and what it costs."""

    alpha: float  # 0: no mask
    beta: float  # 0: no contrast
    temperature: float
    right: float  # share of next tokens of the prompts that its law likes best, whatever the temperature
    varied: float  # different 3-grams / all 3-grams of a text that it writes
    tokens_per_pass: float
    draft_passes: float  # a token


@dataclass(frozen=True, kw_only=True)
class ContrastFigures(Row):
    """Quality beside speed where a drafter is the contrast as well."""

    id: str  # of the method
    prompts: int
    limit: int
    gamma: int
    read: int  # tokens that were to be foretold
    drafter_right: float  # how many of them the drafter likes best
    rows: list[ContrastRow]


@dataclass(frozen=True, kw_only=True)
class RelaxedRow(Row):
    """One rule by which guesses stay: what the translations are worth, and what they cost."""

    beta: int  # how many of the likeliest words pass
    tau: float  # and how far behind the first, in nats
    right: float  # share of sentences
    same: float  # share of sentences that are those of plain decoding
    acceptance: float
    tokens_per_pass: float


@dataclass(frozen=True, kw_only=True)
class RelaxedFigures(Row):
    """Quality beside speed where guesses may stay that are not the model's own."""

    id: str  # of the method
    sentences: int
    gamma: int
    right: float  # share of sentences by plain decoding
    rows: list[RelaxedRow]


@dataclass(frozen=True, kw_only=True)
class Setup(Row):
    """What stored figures come from: the command, the machine and the settings."""

    command: str
    machine: dict[str, Any]
    versions: dict[str, str]
    date: str
    settings: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Profile(Row):
    """What passes over a batch cost, and the draft length that follows."""

    rows: int
    target: list[float]  # milliseconds of a pass over 1, 2, 3, … tokens of each row
    drafter: float  # milliseconds of a pass over one token of each
    best: int


@dataclass(frozen=True, kw_only=True)
class Served(Spread):
    """A batch decoded to its end; `speedup` is over the same batch without drafts."""

    rows: int
    length: int | None = None  # None: as the table says
    tokens_per_second: float


@dataclass(frozen=True, kw_only=True)
class DraftLengths(Setup):
    """How long drafts should be in batches of several sizes, and what that gains."""

    kept: list[float]  # of 0, 1, 2, … guesses, on average
    profile: list[Profile]
    served: list[Served]


@dataclass(frozen=True, kw_only=True)
class Share(Row):
    """What a text had of a pass."""

    turn: int  # number of the pass, from 0
    text: int
    tokens: int  # that it fed
    writes: bool  # whether a token of it came out


@dataclass(frozen=True, kw_only=True)
class Chunked(Spread):
    """A queue served under a budget; times in milliseconds, `speedup` over prompts that are read at once."""

    budget: int | None = None  # tokens a pass; None: prompts are not cut
    passes: int
    median_gap: float  # between two tokens of a text
    longest_gap: float
    first_token: float  # of the first long prompt, from the start
    tokens_per_second: float
    times: list[float]  # when each pass began, and when the last one ended
    shares: list[Share]


@dataclass(frozen=True, kw_only=True)
class Chunks(Setup):
    """Time between tokens, with prompts in chunks and without."""

    rows: list[Chunked]


def _adapter(kind: Any) -> TypeAdapter[Any]:
    if kind not in ADAPTERS:  # making one takes longer than reading a row
        ADAPTERS[kind] = TypeAdapter(kind)
    return ADAPTERS[kind]


def read(kind: type[R], data: Mapping[str, Any]) -> R:
    """A row of plain data. Raises pydantic's ValidationError, a ValueError, for a key or a value that does not fit."""
    found: R = _adapter(kind).validate_python(data)
    return found


def rows_of(kind: type[R], report: Mapping[str, Any] | None) -> list[R]:
    """The rows of a stored report; none of a report that is not there."""
    return [read(kind, row) for row in (report or {}).get("rows", ())]


def peer_rows(report: Mapping[str, Any]) -> list[PeerRow | FailedRow]:
    """The rows of a comparison with transformers."""
    return [read(FailedRow, row) if "error" in row else read(PeerRow, row) for row in report["rows"]]


# ---- columns ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Column(Generic[R_contra]):
    """One figure of a row: how it is called, in which unit, and how it is written."""

    title: str
    value: Callable[[R_contra], Any]  # None where the row does not have it
    style: str = ""  # as `format` takes it
    unit: str = ""
    symbol: str = ""  # in the formulas of the pages
    more: Callable[[R_contra], str] = lambda _: ""  # what stands behind the figure

    @property
    def head(self) -> str:
        """Title and unit, as they stand above a column."""
        return f"{self.title} ({self.unit})" if self.unit else self.title

    def figure(self, row: R_contra) -> str:
        """The figure alone; nothing where the row does not have it."""
        value = self.value(row)
        return "" if value is None else format(value, self.style)

    def show(self, row: R_contra) -> str:
        """The figure with what belongs to it."""
        return " ".join(filter(None, [self.figure(row), self.more(row)]))


def _speedup(title: str) -> Column[Any]:
    return Column(title, lambda row: row.speedup, ".2f", more=lambda row: row.quartiles)


SETTING: Column[Measured] = Column("Setting", lambda row: row.setting)
SPEEDUP: Column[Spread] = _speedup("Speedup")
EQUAL_TEXTS: Column[Agreement] = Column("Texts equal to plain greedy decoding", lambda row: row.equal_texts or None)
EQUAL_TOKENS: Column[Agreement] = Column("Tokens equal", lambda row: row.identical_tokens, ".1%")
TOKENS: Column[BenchRow] = Column("Tokens per pass", lambda row: row.tokens_per_pass, ".2f")
RIGHT: Column[BenchRow] = Column("Right sentences", lambda row: row.exact_match, ".1%")
PASSES: Column[BenchRow] = Column("Passes a sentence", lambda row: row.passes_per_sentence, ".3g")

BENCH: tuple[Column[BenchRow], ...] = (
    SETTING,
    TOKENS,
    PASSES,
    Column("Guesses kept", lambda row: row.acceptance, ".0%"),
    Column("Depth", lambda row: row.mean_layers, ".1f", unit="layers a token"),
    Column("Work", lambda row: row.mean_work, ".1f", unit="layers a token"),
    SPEEDUP,
    EQUAL_TEXTS,
    EQUAL_TOKENS,
    RIGHT,
    Column("Right, autoregressive", lambda row: row.exact_match_autoregressive, ".1%"),
)

FORCED: tuple[Column[ForcedRow], ...] = (
    SETTING,
    Column("Tokens per pass", lambda row: row.tokens_per_pass, ".2f"),
    Column("Expected", lambda row: row.expected_tokens, ".2f"),
    Column("Drafter pass", lambda row: row.cost_ratio, ".2f", symbol="c"),
    Column("Target pass", lambda row: row.verify_cost, ".2f", symbol="r"),
    Column("Predicted", lambda row: row.predicted, ".2f"),
    SPEEDUP,
    EQUAL_TEXTS,
)

PREDICTED: Column[Prediction] = Column("Predicted", lambda row: row.predicted, ".2f")
COSTS: tuple[Column[Prediction], ...] = (
    Column("Tokens", lambda row: row.tokens_per_pass, ".2f", symbol=r"$\tau$"),
    Column("Target", lambda row: row.target, ".2f", symbol="$r(k)$"),
    Column("Drafts", lambda row: row.draft, ".2f", symbol=r"$d\,c$"),
    Column("Rest", lambda row: row.rest, ".2f", symbol="$v$"),
)


CONTRASTS: tuple[Column[ContrastRow], ...] = (
    Column("Mask", lambda row: row.alpha, "g", symbol=r"$\alpha$"),
    Column("Contrast", lambda row: row.beta, "g", symbol=r"$\beta$"),
    Column("Temperature", lambda row: row.temperature, "g"),
    Column("Right next tokens", lambda row: row.right, ".1%"),
    Column("Different 3-grams", lambda row: row.varied, ".0%"),
    Column("Tokens per pass", lambda row: row.tokens_per_pass, ".2f"),
    Column("Drafter's passes", lambda row: row.draft_passes, ".2f", unit="a token"),
)

RELAXED: tuple[Column[RelaxedRow], ...] = (
    Column("Words that pass", lambda row: row.beta, "g", symbol=r"$\beta$"),
    Column("Distance", lambda row: row.tau, "g", symbol=r"$\tau$", unit="nats"),
    Column("Right sentences", lambda row: row.right, ".1%"),
    Column("As plain decoding", lambda row: row.same, ".1%"),
    Column("Accepted", lambda row: row.acceptance, ".0%"),
    Column("Tokens per pass", lambda row: row.tokens_per_pass, ".2f"),
)


def _both(show: Callable[[SideFigures], str]) -> Callable[[PeerRow], str | None]:
    """The figure of our side and of theirs; nothing where neither has it."""

    def cell(row: PeerRow) -> str | None:
        ours, theirs = show(row.ours), show(row.theirs)
        return f"{ours or '–'} / {theirs or '–'}" if ours or theirs else None

    return cell


def _gain(side: SideFigures) -> str:
    return SPEEDUP.figure(side.over_plain) if side.over_plain else ""


def _guesses(side: SideFigures) -> str:
    return f"{side.drafted_per_pass:.1f}" if side.drafted_per_pass else ""


def _megabytes(side: SideFigures) -> str:
    return f"{side.working_bytes / 1e6:.1f}" if side.working_bytes is not None else ""


def _parts(row: PeerRow) -> str | None:
    return f"{SPEEDUP.figure(row.loop)} × {SPEEDUP.figure(row.algorithm)}" if row.loop and row.algorithm else None


EQUAL: Column[PeerRow] = Column("Equal texts", lambda row: row.equal_texts or None)
CALL: Column[PeerRow | FailedRow] = Column("transformers", lambda row: row.theirs.call)
RATIO: Column[PeerRow] = _speedup("Their time / ours")
PEER_TIMES: tuple[Column[PeerRow], ...] = (
    RATIO,
    Column("Loop × drafting", _parts),
    Column("Gain over own plain decoding, ours / theirs", _both(_gain)),
    Column("Tokens per pass, ours / theirs", _both(lambda side: f"{side.tokens_per_pass:.2f}")),
)
PEER_WORK: tuple[Column[PeerRow], ...] = (
    Column("Guesses per pass, ours / theirs", _both(_guesses)),
    EQUAL,
    Column("Working memory, ours / theirs", _both(_megabytes), unit="MB"),
)


def cells(columns: tuple[Column[Any], ...], row: Any) -> list[str]:
    """What stands in each column; of a call that failed its names, and its sentence where the ratio would be."""
    if not isinstance(row, FailedRow):
        return [column.show(row) for column in columns]
    known = {CALL.title: CALL.show(row), SETTING.title: SETTING.show(row), RATIO.title: f"failed: {row.error}"}
    return [known.get(column.title, "") for column in columns]
