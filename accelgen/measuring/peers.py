"""Measures methods beside transformers' `generate`: the same weights, prompts, limit and dtype, in one process.

A round decodes one prompt with every side, ours and theirs, one right after the other; the order turns and reverses
from round to round, so that a slow moment of the machine hits all alike. Every ratio is taken within a round. Theirs
runs on a checkpoint that `zoo.export` wrote, and nothing stops it before the limit.
"""

from __future__ import annotations

import importlib.metadata
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from torch.profiler import ProfilerActivity, profile

from accelgen.measuring.contests import Plan
from accelgen.measuring.kinds import TEMPERATURES
from accelgen.measuring.machine import one_thread, timed
from accelgen.measuring.pairs import Pair, agreement, merged, spread
from accelgen.measuring.rows import FailedRow, OurSide, PeerRow, TheirCall, TheirSide
from accelgen.measuring.sides import plain_options, setting_name
from accelgen.measuring.their_generate import DEFAULTS, Call, Peer, draft_temperature, silent
from reference_impls.baselines import autoregressive
from reference_impls.core.generation import Generation
from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler
from reference_impls.early_exiting import layerskip
from reference_impls.speculative_decoding import rest, speculative_decoding_leviathan

PLAIN, DRAFTER, EXIT, COPY = "autoregressive", "speculative-decoding-leviathan", "layerskip", "rest"
OURS: Mapping[str, ModuleType] = {
    PLAIN: autoregressive,
    DRAFTER: speculative_decoding_leviathan,
    EXIT: layerskip,
    COPY: rest,
}
LOOKUP = 10  # tokens that prompt lookup copies at most: as many as its author, and as REST reads from its datastore
Options = Mapping[str, dict[str, Any]]  # id of OURS -> models and options of its `generate`
Run = Callable[[Sequence[int], int, float, int], Generation]  # of prompt, limit, temperature, seed
Runs = dict[str, list[tuple[Generation, float]]]  # side -> what each round gave, with its seconds


@dataclass(frozen=True)
class Comparison:
    """What of ours stands beside what of theirs."""

    title: str
    ours: str  # key of OURS
    theirs: Call


def comparisons(options: Options, drafter: Any) -> list[Comparison]:
    """All that is compared, with draft lengths equal to ours, and once more as transformers sets them itself.

    `drafter` is theirs. None of our methods copies from the prompt, so prompt lookup stands beside our plain decoding
    and beside REST, which copies from a datastore.
    """
    exit_layer = options[EXIT]["exit_layer"]
    assisted = ("assistant_model=drafter", {"assistant_model": drafter})
    early = (f"assistant_early_exit={exit_layer}", {"assistant_early_exit": exit_layer})
    lookup = Call(f"prompt_lookup_num_tokens={LOOKUP}", {"prompt_lookup_num_tokens": LOOKUP})
    return [
        Comparison("Plain decoding", PLAIN, Call()),
        Comparison("A separate drafter", DRAFTER, Call(*assisted, options[DRAFTER]["gamma"])),
        Comparison("A separate drafter, their defaults", DRAFTER, Call(*assisted)),
        Comparison("The first layers draft", EXIT, Call(*early, options[EXIT]["gamma"])),
        Comparison("The first layers draft, their defaults", EXIT, Call(*early)),
        Comparison("Plain decoding beside copying from the prompt", PLAIN, lookup),
        Comparison("Copying from a datastore beside copying from the prompt", COPY, lookup),
    ]


@dataclass(frozen=True)
class LineUp:
    """Who takes part: our methods under their ids, their calls under their names."""

    options: Options
    pairs: list[Comparison]
    sides: dict[str, Run]

    def runs(self, plan: Plan) -> int:
        """How many runs `measure` times, for a progress bar."""
        return len(TEMPERATURES) * plan.prompts * plan.repeat * len(self.sides)


# ---- measuring ----------------------------------------------------------------------------------------------------


def line_up(options: Options | None = None) -> LineUp:
    """All sides. The options default to the example of each method: the zoo's models, as all pages use them."""
    options = options or {id: module.example() for id, module in OURS.items()}
    peer = Peer(options[PLAIN]["target"], options[DRAFTER]["drafter"])
    pairs = comparisons(options, peer.drafter)
    sides = {id: _ours(module, options[id]) for id, module in OURS.items()}
    return LineUp(options, pairs, sides | {pair.theirs.name: _theirs(peer, pair.theirs) for pair in pairs})


def measure(lines: LineUp, prompts: Sequence[Sequence[int]], plan: Plan) -> list[PeerRow | FailedRow]:
    """A row for each comparison, greedy and at temperature 0.8. `plan.tick` is called before every run."""
    rows = list[PeerRow | FailedRow]()
    with one_thread(), silent():
        for temperature in TEMPERATURES:
            runs, errors = rounds(lines.sides, prompts, plan, temperature)
            greedy = temperature == 0
            memory = {name: working_memory(lines.sides[name], prompts, plan.limit) for name in runs} if greedy else {}
            for pair in lines.pairs:
                name: dict[str, Any] = {"title": pair.title, "id": pair.ours, "setting": setting_name(temperature)}
                error = errors.get(pair.theirs.name) or errors.get(Call().name)
                if error:
                    rows.append(FailedRow(**name, theirs=TheirCall(call=pair.theirs.name), error=error))
                    continue
                alike = identity(pair, runs, lines.options[PLAIN]["target"], prompts) if greedy else {}
                rows.append(PeerRow(**name, **compared(pair, runs, lines.options, memory), **alike))
    return rows


def settings() -> dict[str, Any]:
    """What is the same in all measurements."""
    drafts = {f"{t:g}": round(draft_temperature(t), 4) for t in TEMPERATURES if t}
    return {"dtype": "float32", "their_defaults": DEFAULTS, "their_draft_temperature": drafts}


def versions() -> dict[str, str]:
    """The versions that theirs depends on, beside those that every measurement names."""
    return {name: installed(name) for name in ("transformers", "scikit-learn")}


def installed(package: str) -> str:
    """The version of a package. With scikit-learn, transformers adapts its confidence threshold while it drafts."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def rounds(
    sides: Mapping[str, Run], prompts: Sequence[Sequence[int]], plan: Plan, temperature: float
) -> tuple[Runs, dict[str, str]]:
    """Decode every prompt with every side, after a warm-up of each; and the sentence of each call that failed."""
    runs: Runs = {name: [] for name in sides}
    errors: dict[str, str] = {}

    def attempt(name: str, prompt: Sequence[int], seed: int) -> tuple[Generation, float] | None:
        try:
            return timed(lambda: sides[name](prompt, plan.limit, temperature, seed))
        except Exception as error:  # whatever a version of transformers raises belongs into its row
            if name in OURS:
                raise
            errors[name] = f"{type(error).__name__}: {error}"
            del runs[name]
            return None

    for name in sides:
        attempt(name, prompts[0], 0)
    turns = [(seed, prompt) for seed in range(plan.repeat) for prompt in prompts]
    for i, (seed, prompt) in enumerate(turns):
        for name in turned(list(sides), i):
            plan.tick(f"{setting_name(temperature)}, {name}")
            if name in runs and (found := attempt(name, prompt, seed)):
                runs[name].append(found)
    return runs, errors


def turned(names: list[str], turn: int) -> list[str]:
    """The order of a round: reversed in every second one, and begun one later after each two."""
    first = turn // 2 % len(names)
    order = names[first:] + names[:first]
    return order[::-1] if turn % 2 else order


def working_memory(run: Run, prompts: Sequence[Sequence[int]], limit: int) -> int:
    """The most bytes of tensors alive at once in a greedy run after the longest prompt, without the weights.

    Caches, activations and workspaces, as torch's profiler sees them allocated and freed; the run is not timed.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler would write about itself on stderr
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run(max(prompts, key=len), limit, 0.0, 0)
    assert profiler.profiler is not None
    events = [e for e in profiler.profiler.kineto_results.events() if e.name() == "[memory]"]
    alive = most = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        alive += event.nbytes()
        most = max(most, alive)
    return most


# ---- rows ---------------------------------------------------------------------------------------------------------


def compared(pair: Comparison, runs: Runs, options: Options, memory: Mapping[str, int]) -> dict[str, Any]:
    """The figures of one comparison, by the names of a `PeerRow`; `speedup` is their time divided by ours.

    `loop` is the same for plain decoding on both sides. `algorithm` is our speedup over our own plain decoding divided
    by theirs over theirs: in every round speedup = loop * algorithm.
    """
    theirs = pair.theirs.name
    seconds = {name: [time for _, time in found] for name, found in runs.items()}
    loop = _ratios(seconds[Call().name], seconds[PLAIN])
    total = _ratios(seconds[theirs], seconds[pair.ours])
    own = _side(pair.ours, PLAIN, runs, memory)
    found = {
        "ours": OurSide(**own, options=plain_options(options[pair.ours])),
        "theirs": TheirSide(call=theirs, switches=pair.theirs.switches, **_side(theirs, Call().name, runs, memory)),
        **vars(spread(total)),
    }
    drafts = {"loop": spread(loop), "algorithm": spread(_ratios(total, loop))}
    return found | (drafts if pair.ours != PLAIN else {})


def identity(pair: Comparison, runs: Runs, target: LanguageModel, prompts: Sequence[Sequence[int]]) -> dict[str, Any]:
    """How far our greedy texts equal theirs; every difference must be a tie of two logits."""
    count = len(prompts)  # further rounds of a greedy text add nothing
    found = zip(runs[pair.theirs.name][:count], runs[pair.ours][:count], strict=True)
    pairs = [Pair([theirs], [ours], baseline, own) for (theirs, baseline), (ours, own) in found]
    return agreement(prompts, pairs, exact=True, target=target)


def _side(name: str, plain: str, runs: Runs, memory: Mapping[str, int]) -> dict[str, Any]:
    """Figures of one side alone: its work, its speedup over its own plain decoding, its memory."""
    total = merged(result for result, _ in runs[name])
    gains = [a[1] / b[1] for a, b in zip(runs[plain], runs[name], strict=True)]
    return {
        "tokens_per_pass": total.tokens_per_pass,
        "drafted_per_pass": sum(len(step.drafted) for step in total.steps) / total.passes,
        "acceptance": total.acceptance,
        "over_plain": spread(gains) if name != plain else None,
        "working_bytes": memory.get(name),
    }


def _ratios(above: Sequence[float], below: Sequence[float]) -> list[float]:
    return [a / b for a, b in zip(above, below, strict=True)]


def _ours(module: ModuleType, options: dict[str, Any]) -> Run:
    def run(prompt: Sequence[int], limit: int, temperature: float, seed: int) -> Generation:
        found: Generation = module.generate(
            prompt=prompt, limit=limit, sampler=Sampler(temperature, seed=seed), **options
        )
        return found

    return run


def _theirs(peer: Peer, call: Call) -> Run:
    return lambda prompt, limit, temperature, seed: peer.run(call, prompt, limit, temperature, seed)
