"""What the words mean: five figures called acceptance rate, worked out on one and the same run."""

from __future__ import annotations

from collections.abc import Sequence

from accelgen.exports.markdown import front_matter, join, note, section, table
from accelgen.measuring.rows import AcceptanceFigures, read
from accelgen.site import charts
from accelgen.site.results import Results
from accelgen.taxonomy.schema import Taxonomy

COMMAND = "python -m accelgen.measuring.acceptance_rates"
LEAD = "Five different figures are called acceptance rate. Here they are, side by side, on one run of one method."
WHY = (
    "Before you compare two numbers, ask three questions. Given what, that is, are guesses counted that an earlier"
    " rejection had already lost? Divided by what: by guesses made, or by guesses reached? And does the length include"
    " the token that the target adds itself?"
)


def page(_: Taxonomy, results: Results) -> str:
    """The Markdown of docs/explore/acceptance.md."""
    head = [
        front_matter(title="What acceptance means", description=LEAD),
        "# What acceptance means",
        f'<p class="lead">{LEAD}</p>',
    ]
    if not results.acceptance:
        return join([*head, note("Not computed yet", f"`{COMMAND}` computes it.", "planned")])
    found = read(AcceptanceFigures, results.acceptance)
    return join(
        [
            *head,
            WHY,
            section("The run", _run(found)),
            section("Five figures", _figures(found)),
            section("By place in the draft", _places(found)),
            section("Length, and what a formula promises", _lengths(found)),
        ]
    )


def _run(found: AcceptanceFigures) -> str:
    rows = [[str(i), *("kept" if coin else "no" for coin in coins)] for i, coins in enumerate(found.first_rounds, 1)]
    for row, coins in zip(rows, found.first_rounds, strict=True):
        lost = (*coins, False).index(False) + 1
        row[lost + 1 :] = ["yes, but lost" if coin else "no, and lost" for coin in coins[lost:]]
    head = ("Round", *(f"guess {i}" for i in range(1, found.gamma + 1)))
    lead = (
        "[Speculative decoding](../methods/speculative-decoding-leviathan.md) with the zoo's two-layer drafter,"
        f" $\\gamma = {found.gamma}$ guesses a pass, temperature {found.temperature}, {found.limit} tokens"
        f" after each of {found.prompts} held-out prompts: {found.rounds} rounds. Each guess has a coin of its"
        " own, which says yes with probability $\\min(1, p/q)$; the first no ends the round. The first rounds:"
    )
    return f"{lead}\n\n{table(head, rows)}"


def _figures(found: AcceptanceFigures) -> str:
    rows = [
        ("$\\alpha = \\mathbb{E} \\sum_x \\min(p(x), q(x))$", "[Leviathan et al. (2023)](https://arxiv.org/abs/2211.17192)",
         "how alike the two laws are, at the places that are reached", _percent(found.expected_overlap)),
        ("kept given that all before were kept", "EAGLE's $n$-$\\alpha$ ([thread](https://github.com/SafeAILab/EAGLE/issues/191))",
         "one figure for each place, see below",
         _range(found.conditional)),
        ("kept ÷ drafted", "the logs of vLLM and llama.cpp ([thread](https://github.com/ggml-org/llama.cpp/pull/24536))",
         "falls when $\\gamma$ grows, with the same models",
         _percent(found.kept_of_drafted)),
        ("coins that say yes ÷ drafted", "vLLM's first engine ([thread](https://github.com/vllm-project/vllm/issues/9565))",
         "counts guesses after the first rejection, which nobody can use", _percent(found.matches_anywhere)),
        ("kept at all, by place", "the vectors of vLLM and llama.cpp", "the chance that a draft gets this far",
         _range(found.unconditional)),
    ]  # fmt: skip
    return table(("Figure", "Who means it", "What it tells", "In this run"), rows)


def _places(found: AcceptanceFigures) -> str:
    head = ("Chance", *(f"guess {i}" for i in range(1, found.gamma + 1)))
    rows = [
        ("kept if all before were", *map(_percent, found.conditional)),
        ("kept at all", *map(_percent, found.unconditional)),
        ("$\\alpha^i$, if the chance were the same everywhere",
         *(_percent(found.expected_overlap ** i) for i in range(1, found.gamma + 1))),
    ]  # fmt: skip
    data = "[The figures of this page as JSON](../downloads/acceptance.json){ download }."
    return "\n\n".join([charts.places(found), table(head, rows), data])


def _lengths(found: AcceptanceFigures) -> str:
    rows = [
        ("kept guesses a pass", f"{found.kept_per_pass:.2f}"),
        ("tokens a pass, with the one that the target adds", f"{found.tokens_per_pass:.2f}"),
        (
            "$(1 - \\alpha^{\\gamma+1})/(1 - \\alpha)$, promised by the formula",
            f"{found.promised_tokens_per_pass:.2f}",
        ),
    ]
    words = (
        "Some authors call the first of these the acceptance length, some the second. The formula takes every guess to"
        " be kept with the same chance, whatever came before. Real chances differ from place to place, and a draft that"
        " has come far stands where drafting is easy: so the formula may err either way."
    )
    return "\n\n".join([table(("Length", "In this run"), rows), words])


def _percent(value: float) -> str:
    return f"{value:.0%}"


def _range(values: Sequence[float]) -> str:
    return f"{_percent(min(values))} to {_percent(max(values))}"
