"""The speedup calculator: what acceptance, draft length, cost and batch promise, and where the promise fails.

`docs/assets/calculator.js` shows the form and works with the formulas of `accelgen.measuring.speedup`; without it the
page holds the result of the numbers that the form starts with, tables of more, the formulas, and our own example.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from accelgen.exports.markdown import escape, front_matter, join, section, table
from accelgen.measuring.rows import AcceptanceFigures, BenchRow, Prediction, read, rows_of
from accelgen.measuring.speedup import (
    LARGEST,
    best_gamma,
    expected_tokens,
    operations,
    ridge_point,
    speedup,
    verification,
)
from accelgen.site.results import Results
from accelgen.taxonomy.schema import Taxonomy

LEAD = "What drafting should gain, from how often guesses are kept, how many there are, what they cost, and the batch."
LEVIATHAN = "[Leviathan et al. (2023)](https://arxiv.org/abs/2211.17192)"
ROOFLINE = "[Williams et al. (2009)](https://doi.org/10.1145/1498765.1498785)"
UNITS = (
    "Costs are counted in passes of the target over one token. The formulas and their sources stand"
    " [below](#the-formulas). The page's address holds what you enter, so that you can send it to somebody."
)
DRAFTER = "speculative-decoding-leviathan"  # the method whose run and benchmark are the example


@dataclass(frozen=True)
class Machine:
    """A machine of which arithmetic and bandwidth were read, with the page that says so."""

    name: str
    operations: float  # dense bfloat16 operations a second
    bandwidth: float  # bytes a second
    source: str

    @property
    def ridge(self) -> int:
        """Tokens of one pass at which arithmetic takes as long as reading 16-bit weights."""
        return round(ridge_point(self.operations, self.bandwidth))


MACHINES = (
    Machine("H100 SXM", 989e12, 3.35e12, "[specification](https://archive-lib.hpctech.co.jp/gpuproduct/nvidia-h100.html)"),
    Machine("A100 40 GB", 312e12, 1.555e12, "[data sheet, as quoted](https://glennklockwood.com/garden/processors/A100)"),
)  # fmt: skip


@dataclass(frozen=True)
class Field:
    """An entry of the form; `start` is what stands in it at first."""

    name: str
    label: str
    symbol: str
    hint: str
    start: str
    attributes: str = 'inputmode="decimal"'


FIELDS = (
    Field("acceptance", "Acceptance", "α", "One chance, or one for each place: 0.61, 0.66, 0.71", "0.8", ""),
    Field("gamma", "Draft length", "γ", "Guesses a draft", "4", f'type="number" min="0" max="{LARGEST}"'),
    Field("c", "Cost ratio", "c", "A drafter pass, in target passes", "0.1"),
    Field("batch", "Batch", "b", "Texts decoded together", "1", 'type="number" min="1"'),
    Field("ridge", "Ridge", "ρ", "Tokens a pass has for free; empty: all", str(MACHINES[0].ridge)),
)  # fmt: skip
ALPHAS, COSTS = (0.3, 0.5, 0.6, 0.7, 0.8, 0.9), (0.01, 0.02, 0.05, 0.1, 0.2, 0.4)
BATCHES, GAMMAS = (1, 16, 32, 64, 128, 256), (1, 2, 4, 8)


def page(_: Taxonomy, results: Results) -> str:
    """The Markdown of docs/explore/calculator.md."""
    return join(
        [
            front_matter(title="Speedup calculator", description=LEAD),
            "# Speedup calculator",
            f'<p class="lead">{LEAD}</p>',
            section("Calculator", UNITS, _calculator(), _machines()),
            section("The formulas", FORMULAS),
            section("At a glance", _by_cost(), _by_batch()),
            section("Where the formula fails", *_fails(results)),
        ]
    )


# ---- the form and its first result --------------------------------------------------------------------------------


def start() -> dict[str, float]:
    """The numbers that the form starts with."""
    return {field.name: float(field.start) for field in FIELDS}


def figures(acceptance: float, gamma: int, c: float, batch: int, ridge: float) -> dict[str, str]:
    """What the calculator shows for one set of numbers, by name; the script shows the same."""

    def check(tokens: int) -> float:
        return verification(tokens, batch, ridge)

    def gain(length: int) -> float:
        return speedup(acceptance, length, c, check(length + 1))

    best = best_gamma(acceptance, c, check)
    return {
        "Tokens a pass, n": f"{expected_tokens(acceptance, gamma):.2f}",
        "Check, r": f"{check(gamma + 1):.2f}",
        "Draft and check, γc + r": f"{gamma * c + check(gamma + 1):.2f}",
        "Speedup, S": f"{gain(gamma):.2f}",
        "Best draft length": f"{best} ({gain(best):.2f})",
        "Target's arithmetic a token": f"× {operations(acceptance, gamma):.2f}",
    }


def _calculator() -> str:
    """The form, hidden until the script shows it, and what its first numbers give."""
    first = start()
    shown = figures(first["acceptance"], int(first["gamma"]), first["c"], int(first["batch"]), first["ridge"])
    words = ", ".join(f"{field.symbol} = {field.start}" for field in FIELDS)
    rows = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in shown.items())
    buttons = [(f"{m.name}: {m.ridge}", str(m.ridge)) for m in MACHINES] + [("no ridge", "")]
    presets = "".join(f'<button type="button" data-ridge="{value}">{name}</button>' for name, value in buttons)
    return "\n".join(
        [
            '<div class="calc">',
            '<form class="sift__form calc__form" hidden>',
            *(_field(field) for field in FIELDS),
            f'<p class="calc__presets"><span>Known ρ:</span>{presets}<button type="reset">Reset</button></p>',
            '<p class="calc__says"><output></output></p>',
            "</form>",
            f'<div class="calc__answer"><p>With {escape(words)}:</p><dl>{rows}</dl></div>',
            "</div>",
        ]
    )


def _field(field: Field) -> str:
    id = f"calc-{field.name}"
    return (
        f'<div class="calc__field"><label for="{id}">{field.label} {field.symbol}</label>'
        f'<input id="{id}" name="{field.name}" value="{field.start}" autocomplete="off" {field.attributes} '
        f'aria-describedby="{id}-hint {id}-wrong"><small id="{id}-hint">{field.hint}</small>'
        f'<p class="calc__wrong" id="{id}-wrong" role="alert"></p></div>'
    )


def _machines() -> str:
    known = " and ".join(
        f"{m.ridge} for an {m.name} ({m.operations / 1e12:g} · 10<sup>12</sup> operations and"
        f" {m.bandwidth / 1e12:g} · 10<sup>12</sup> bytes a second: {m.source})"
        for m in MACHINES
    )
    return (
        "The ridge $\\rho$ is the number of tokens in one pass at which computing takes as long as reading the weights:"
        " operations a second divided by bytes a second, times half the bytes of a weight, because a token asks for two"
        f" operations with each. For 16-bit weights and dense bfloat16 arithmetic that is {known}. A weight of one byte"
        " halves $\\rho$ where the arithmetic stays the same. It is an ideal: real passes bend earlier and more gently,"
        " and [ours](../concepts/why-decoding-is-slow.md#what-we-measured), on a processor core, know no ridge at all."
    )


# ---- formulas -----------------------------------------------------------------------------------------------------

FORMULAS = rf"""**Tokens of a pass.** With one chance $\alpha$ for every guess, kept independently
({LEVIATHAN}, equation 1):

$$
n = 1 + \alpha + \dots + \alpha^\gamma = \frac{{1 - \alpha^{{\gamma+1}}}}{{1 - \alpha}} .
$$

With a chance $a_i$ for each place, that its guess is kept *if all before it were*, the draft gets past place $i$ with
chance $a_1 \cdots a_i$, and no independence is assumed:

$$
n = 1 + a_1 + a_1 a_2 + \dots + a_1 a_2 \cdots a_\gamma .
$$

**Speedup.** A draft takes $\gamma$ passes of the drafter, each $c$ passes of the target, and its check takes $r$.
Where checking costs no more than a single token, $r = 1$, and this is theorem 3.8 of the same paper:

$$
S(\gamma) = \frac{{n}}{{\gamma c + r}} .
$$

**The check.** $b$ texts bring $b$ tokens to a pass without drafts and $b(\gamma + 1)$ with them. A pass takes the
longer of two times: of reading the weights, which is always the same, and of computing, which has caught up at $\rho$
tokens (the roofline of {ROOFLINE}). In passes of the same batch without drafts,

$$
r = \frac{{\max(1,\; b(\gamma + 1) / \rho)}}{{\max(1,\; b / \rho)}} .
$$

The drafter's passes grow like the target's, so $c$ stays. The cache is left out, and with it what long contexts change.

**Best draft length.** The $\gamma$ from 0 to {LARGEST} with the greatest $S(\gamma)$, found by trying (section 3.5).
If $r = 1$ and $\alpha > c$, some draft gains, and the best one at least $(1 + \alpha) / (1 + c)$ (corollary 3.9).

**Arithmetic.** The target computes $\gamma + 1$ tokens and $n$ come of it: $(\gamma + 1) / n$ times as much for each as
plain decoding (theorem 3.11, without the drafter's part). This is what a full batch has to pay.

All of it stands in `accelgen/measuring/speedup.py`; a test follows every outcome of every coin and finds the same."""


# ---- tables -------------------------------------------------------------------------------------------------------


def _by_cost() -> str:
    rows = [(f"α = {alpha}", *(_best(alpha, c) for c in COSTS)) for alpha in ALPHAS]
    lead = "The best speedup and its draft length, for one text and a free check ($r = 1$):"
    return f"{lead}\n\n{table(('Acceptance', *(f'c = {c:g}' for c in COSTS)), rows)}"


def _best(alpha: float, c: float, batch: int = 1, ridge: float = math.inf) -> str:
    def check(tokens: int) -> float:
        return verification(tokens, batch, ridge)

    best = best_gamma(alpha, c, check)
    return f"{speedup(alpha, best, c, check(best + 1)):.2f} (γ {best})" if best else "none gains"


def _by_batch() -> str:
    first, machine = start(), MACHINES[0]
    alpha, c = first["acceptance"], first["c"]
    rows = [
        (
            str(batch),
            *(f"{speedup(alpha, g, c, verification(g + 1, batch, machine.ridge)):.2f}" for g in GAMMAS),
            _best(alpha, c, batch, machine.ridge),
        )
        for batch in BATCHES
    ]
    lead = f"What a batch leaves of it: $\\alpha = {alpha}$, $c = {c}$, $\\rho = {machine.ridge}$ ({machine.name})."
    head = ("Batch", *(f"γ = {gamma}" for gamma in GAMMAS), "best")
    return f"{lead}\n\n{table(head, rows)}"


# ---- our own example ----------------------------------------------------------------------------------------------


def _fails(results: Results) -> Iterable[str]:
    yield (
        "Equation 1 takes every guess to be kept with the same chance, whatever came before. Real chances depend on the"
        " place and on the text: some passages are easy, and a draft that has come far stands in one."
    )
    if not results.acceptance:
        yield "Our own example is not computed yet: `python -m accelgen.measuring.acceptance_rates` does it."
        return
    found = read(AcceptanceFigures, results.acceptance)
    yield _places(found)
    yield from _elsewhere(found, results)


def _places(found: AcceptanceFigures) -> str:
    """The chances by place against one chance for all, and the lengths that both promise on the same run."""
    gamma, alpha, chances = found.gamma, found.expected_overlap, found.conditional
    reached = [found.rounds * share for share in (1.0, *found.unconditional[:-1])]
    errors = [math.sqrt(a * (1 - a) / count) for a, count in zip(chances, reached, strict=True)]
    head = ("Chance", *(f"guess {i}" for i in range(1, gamma + 1)), "tokens a pass")
    rows = [
        ("one chance for all, $\\alpha$", *[f"{alpha:.3f}"] * gamma, f"{expected_tokens(alpha, gamma):.3f}"),
        ("kept if all before were", *(f"{a:.3f}" for a in chances), f"{expected_tokens(chances, gamma):.3f}"),
        ("its standard error", *(f"± {error:.3f}" for error in errors), "–"),
        ("measured", *["–"] * gamma, f"{found.tokens_per_pass:.3f}"),
    ]
    lead = (
        f"In [one run of ours](acceptance.md), {found.rounds} drafts of {gamma} by the zoo's two-layer drafter at"
        f" temperature {found.temperature}, $\\alpha$ is {alpha:.3f}, the mean over all guesses that were reached:"
    )
    after = (
        "That the second row gives the run back exactly is no merit: the product of its chances is how often a draft"
        " got that far. What it says about *another* run is a prediction, like the first, and where two chances differ"
        " by less than twice their error, that may be luck."
    )
    query = f"?acceptance={','.join(f'{a:.4f}' for a in chances)}&gamma={gamma}#calculator"
    link = f'<p><a href="{escape(query)}">Put these chances into the calculator</a></p>'
    return "\n\n".join([lead, table(head, rows), after, link])


def _elsewhere(found: AcceptanceFigures, results: Results) -> Iterable[str]:
    """The same drafter in the benchmark: another run, so both are predictions there, of tokens and of time."""
    gamma, alpha, chances = found.gamma, found.expected_overlap, found.conditional
    key = DRAFTER, f"temperature {found.temperature:g}, gamma {gamma}"
    row = next((row for row in rows_of(BenchRow, results.bench) if row.key == key), None)
    cost = next((row for row in rows_of(Prediction, results.costs) if row.key == key), None)
    if row is None or results.bench is None:
        return
    tokens, gain, prompts = row.tokens_per_pass, row.speedup, results.bench["settings"]["prompts"]
    predicted = {"one chance for all": expected_tokens(alpha, gamma), "by place": expected_tokens(chances, gamma)}
    yield (
        f"The [benchmark](../measured.md) runs the same drafter with the same settings after {prompts} prompts, not"
        f" {found.prompts}: {tokens:.3f} tokens a pass. Predicted from the run above:"
    )
    rows = [(name, f"{value:.3f}", _error(value, tokens)) for name, value in predicted.items()]
    yield table(("Prediction", "tokens a pass", "error"), rows)
    if cost:
        yield from _time(predicted, cost, gamma, gain)
    yield "Measure on your own machine before you believe any speedup, ours included."


def _time(predicted: Mapping[str, float], cost: Prediction, gamma: int, gain: float) -> Iterable[str]:
    """The speedups that these tokens promise, first with a free check and then with the costs that were measured."""
    c, check = cost.draft / gamma, cost.target + cost.rest
    yield (
        "Tokens are not yet time. [Single calls, timed inside the loop](../measured.md#prediction-beside-measurement),"
        f" tell what a round costs: {gamma} guesses $\\gamma c$ = {cost.draft:.2f} passes over one token, the"
        f" target's pass {cost.target:.2f}, drawing and verification {cost.rest:.2f}. That predicts the speedup:"
    )
    constant, by_place = predicted
    rows = [
        (f"{name}, {how}", gamma * c + verify, predicted[name] / (gamma * c + verify))
        for name, how, verify in (
            (constant, "$r = 1$ (theorem 3.8)", 1.0),
            (constant, "measured costs", check),
            (by_place, "measured costs", check),
        )
    ]
    cells = [(name, f"{total:.2f}", f"{speed:.2f}", _error(speed, gain)) for name, total, speed in rows]
    head = ("Prediction", "draft and check", "speedup", "error")
    yield table(head, [*cells, ("measured", "–", f"{gain:.2f}", "–")])


def _error(predicted: float, measured: float) -> str:
    return f"{predicted / measured - 1:+.1%}".replace("-", "−")
