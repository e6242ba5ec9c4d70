"""Measures every implemented method on the zoo against autoregressive decoding, in pairs of successive runs.

A pair decodes one prompt with both, in one process and one thread, in alternating order; a slow moment of the machine
hits both alike. `speedup` is the baseline's time divided by the method's, over the same number of tokens or the same
sentence; its median and quartiles are over all pairs. A method gets its rows by being implemented in the taxonomy:
`example()` says with which models and options it runs.
"""

from __future__ import annotations

import datetime as dt
import importlib
import importlib.metadata
import inspect
import itertools
import os
import platform
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from accelgen.taxonomy.schema import Guarantee, Method, Need, Taxonomy
from reference_impls.baselines import autoregressive
from reference_impls.baselines.translation import generate as translate
from reference_impls.core.generation import Generation
from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler
from reference_impls.testing.tiny import variants

EXACT = (Guarantee.EXACT_DISTRIBUTION, Guarantee.EXACT_GREEDY)
TEMPERATURES = (0.0, 0.8)
ITERATIONS = (1, 4, 10)  # a method that refines for a number of iterations is measured at these
CPU = torch.device("cpu")
TIE = 1e-4  # two logits this close may swap when the same sum is taken in another order
PACKAGES = ("torch", "numpy", "safetensors", "tokenizers")

Row = dict[str, Any]
Run = Callable[[], Generation]


@dataclass(frozen=True)
class Plan:
    """How much is measured. Raises ValueError for a number below 1."""

    prompts: int
    limit: int  # tokens after each prompt
    repeat: int = 1  # how often each prompt is run, each time with another seed
    device: torch.device = CPU
    tick: Callable[[str], None] = lambda _: None  # called with a row's title before every pair

    def __post_init__(self) -> None:
        for name in ("prompts", "limit", "repeat"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")


@dataclass(frozen=True)
class Pair:
    """The baseline's run and the method's run of one prompt, with the seconds that each took."""

    baseline: Generation
    own: Generation
    baseline_seconds: float
    own_seconds: float

    @property
    def speedup(self) -> float:
        """The baseline's time divided by the method's."""
        return self.baseline_seconds / self.own_seconds


def measure(taxonomy: Taxonomy, plan: Plan) -> Iterator[Row]:
    """Rows of all implemented methods. Raises ZooError where a model is missing."""
    with one_thread():
        for method in taxonomy.methods:
            if method.is_implemented:
                rows = translation_rows if is_sequence_to_sequence(method) else language_rows
                yield from rows(method, plan)


def pairs_of(taxonomy: Taxonomy, plan: Plan) -> int:
    """How many pairs `measure` will run, for a progress bar."""
    methods = [m for m in taxonomy.methods if m.is_implemented]
    return plan.prompts * plan.repeat * sum(len(settings_of(m)) for m in methods)


def is_sequence_to_sequence(method: Method) -> bool:
    """Whether it maps a source sentence to a target sentence instead of continuing a prompt."""
    return Need.SEQUENCE_TO_SEQUENCE in method.needs


def settings_of(method: Method) -> Sequence[Any]:
    """What is varied: the temperature of a language model; in a translation the iterations, or a choice of words."""
    if is_sequence_to_sequence(method):
        generate = importlib.import_module(method.module).generate
        iterated = "iterations" in inspect.signature(generate).parameters
        return [{"iterations": n} for n in ITERATIONS] if iterated else variants(generate)
    return TEMPERATURES[:1] if method.guarantee is Guarantee.EXACT_GREEDY else TEMPERATURES


# ---- language models ----------------------------------------------------------------------------------------------


def language_rows(method: Method, plan: Plan) -> Iterator[Row]:
    """One row for each temperature: greedy, and 0.8 where the method promises something about sampling."""
    from reference_impls import zoo

    module = importlib.import_module(method.module)
    options = moved(module.example(), plan.device)
    prompts = [zoo.encode(text) for text in take(zoo.prompts(), plan.prompts, "held-out prompts")]
    for temperature in settings_of(method):
        title = f"{method.id}, {setting_name(temperature)}"
        pairs = language_pairs(module.generate, options, prompts, temperature, plan=plan, title=title)
        row = language_row(method.id, temperature, options, pairs)
        if temperature == 0:
            first = pairs[: len(prompts)]  # further runs of a greedy text add nothing
            row |= agreement(options["target"], prompts, first, exact=method.guarantee in EXACT)
        yield row


def language_pairs(
    generate: Callable[..., Generation],
    options: dict[str, Any],
    prompts: Sequence[Sequence[int]],
    temperature: float,
    *,
    plan: Plan,
    title: str = "",
) -> list[Pair]:
    """Paired runs of all prompts, again and again with other seeds."""
    target, limit = options["target"], plan.limit

    def runs(prompt: Sequence[int], seed: int) -> tuple[Run, Run]:
        return (
            lambda: autoregressive.generate(target, prompt, limit, sampler=Sampler(temperature, seed=seed)),
            lambda: generate(prompt=prompt, limit=limit, sampler=Sampler(temperature, seed=seed), **options),
        )

    return paired([runs(prompt, seed) for seed in range(plan.repeat) for prompt in prompts], title, plan.tick)


def language_row(id: str, temperature: float, options: dict[str, Any], pairs: Sequence[Pair]) -> Row:
    """The figures of one method at one temperature."""
    total = merged(pair.own for pair in pairs)
    return {
        "id": id,
        "setting": ", ".join([setting_name(temperature), *plain_options(options)]),
        "tokens_per_pass": total.tokens_per_pass,
        "acceptance": total.acceptance,
        "mean_layers": total.mean_layers,
        **spread([pair.speedup for pair in pairs]),
    }


def agreement(target: LanguageModel, prompts: Sequence[Sequence[int]], pairs: Sequence[Pair], *, exact: bool) -> Row:
    """How far the texts equal the baseline's; in an exact method every difference must be a tie of two logits."""
    differing = [(p, pair) for p, pair in zip(prompts, pairs, strict=True) if pair.own.tokens != pair.baseline.tokens]
    matches = [a == b for pair in pairs for a, b in zip(pair.baseline.tokens, pair.own.tokens, strict=False)]
    row: Row = {
        "texts": len(pairs),
        "identical_texts": len(pairs) - len(differing),
        "identical_tokens": sum(matches) / max(1, sum(len(pair.baseline.tokens) for pair in pairs)),
    }
    if exact:
        ties = sum(is_tie(target, prompt, pair) for prompt, pair in differing)
        row |= {"rounding_ties": ties, "as_promised": ties == len(differing)}
    return row


@torch.inference_mode()
def is_tie(target: LanguageModel, prompt: Sequence[int], pair: Pair) -> bool:
    """Whether the first two different tokens have the same logit up to rounding, so that either is the greedy one.

    One pass over several tokens adds the same numbers in another order than several passes over one.
    """
    ours, theirs = pair.own.tokens, pair.baseline.tokens
    place = next((i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), None)
    if place is None:  # one text is a beginning of the other
        return False
    logits = target([*prompt, *theirs[:place]], last=1)[0]
    return bool((logits[ours[place]] - logits[theirs[place]]).abs() < TIE)


# ---- sequence to sequence -----------------------------------------------------------------------------------------


def translation_rows(method: Method, plan: Plan) -> Iterator[Row]:
    """One row for each setting, on held-out sentences, against the autoregressive translation model."""
    from reference_impls import zoo
    from reference_impls.zoo.tasks import END, task

    module = importlib.import_module(method.module)
    options, baseline = moved((module.example(), zoo.load("translation-ar")), plan.device)
    examples = list(itertools.islice(task("lite").examples(held_out=True), plan.prompts))
    sources = [task("lite").encode(example.source) for example in examples]

    def correct(results: Iterator[Generation]) -> float:
        found = zip(results, itertools.cycle(examples), strict=False)
        return statistics.fmean(task("lite").is_correct(result.tokens, example) for result, example in found)

    for varied in settings_of(method):
        own = options | varied
        title = ", ".join([method.id, *plain_options(varied)])

        def runs(source: list[int], own: dict[str, Any] = own) -> tuple[Run, Run]:
            return (
                lambda: translate(baseline, source, plan.limit, sampler=Sampler(temperature=0), eos=END),
                lambda: module.generate(source=source, **own),
            )

        pairs = paired([runs(source) for _ in range(plan.repeat) for source in sources], title, plan.tick)
        total = merged(pair.own for pair in pairs)
        yield {
            "id": method.id,
            "setting": ", ".join(plain_options(own)),
            "tokens_per_pass": total.tokens_per_pass,
            "passes_per_sentence": total.passes / len(pairs),
            "exact_match": correct(pair.own for pair in pairs),
            "exact_match_autoregressive": correct(pair.baseline for pair in pairs),
            **spread([pair.speedup for pair in pairs]),
        }


# ---- shared -------------------------------------------------------------------------------------------------------


def paired(runs: Sequence[tuple[Run, Run]], title: str, tick: Callable[[str], None]) -> list[Pair]:
    """Run each (baseline, method) once, one right after the other, each first in every second pair."""
    for warm_up in runs[0]:
        warm_up()
    found = []
    for i, (baseline, own) in enumerate(runs):
        tick(title)
        if i % 2:
            own_result, own_seconds = timed(own)
            baseline_result, baseline_seconds = timed(baseline)
        else:
            baseline_result, baseline_seconds = timed(baseline)
            own_result, own_seconds = timed(own)
        found.append(Pair(baseline_result, own_result, baseline_seconds, own_seconds))
    return found


def timed(run: Run) -> tuple[Generation, float]:
    """What a run gives, and its seconds of wall time."""
    start = now()
    result = run()
    return result, now() - start


def now() -> float:
    """Seconds on the wall's clock; a graphics processor, where one is in use, has finished its work by then."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


def moved(value: Any, device: torch.device) -> Any:
    """The same value; every model in it, in lists, mappings and objects of ours too, is now on `device`."""
    if isinstance(value, nn.Module):
        return value.to(device)
    if isinstance(value, list | tuple):
        inner: Iterable[Any] = value
    elif isinstance(value, dict):
        inner = value.values()
    else:
        ours = type(value).__module__.startswith("reference_impls")
        inner = vars(value).values() if ours and hasattr(value, "__dict__") else ()
    for each in inner:
        moved(each, device)
    return value


def merged(results: Iterator[Generation]) -> Generation:
    """All runs as one, so that its figures are means over tokens, passes and guesses, not over prompts."""
    found = list(results)
    return Generation([t for r in found for t in r.tokens], [s for r in found for s in r.steps])


def spread(speedups: Sequence[float]) -> Row:
    """Median and quartiles of paired ratios, and how many there are."""
    ends = statistics.quantiles(speedups, n=4, method="inclusive") if len(speedups) > 1 else [speedups[0]] * 3
    return {"speedup": ends[1], "speedup_q1": ends[0], "speedup_q3": ends[2], "pairs": len(speedups)}


def setting_name(temperature: float) -> str:
    """How a temperature is called."""
    return "greedy" if temperature == 0 else f"temperature {temperature:g}"


def plain_options(options: dict[str, Any]) -> list[str]:
    """The options that are numbers or words, as people write them; models are left out."""
    return [f"{name} {value}" for name, value in options.items() if isinstance(value, int | float | str)]


def take(items: Sequence[str], count: int, what: str) -> Sequence[str]:
    """The first `count` items. Raises ValueError if there are fewer."""
    if count > len(items):
        raise ValueError(f"{count} {what} were asked for, but there are {len(items)}")
    return items[:count]


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch with a single thread, and afterwards with as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def environment(device: torch.device | None = None) -> dict[str, Any]:
    """The machine and the versions that figures depend on; nothing that names a person or a host.

    A `device` other than the processor is named too.
    """
    graphics = device is not None and device.type == "cuda"
    named = torch.cuda.get_device_name(device) if graphics else str(device)
    return {
        "machine": {
            **({} if device is None or device.type == "cpu" else {"device": named}),
            "processor": processor(),
            "cores": os.cpu_count(),
            "threads": 1,
            "system": f"{platform.system()} {platform.machine()}",
        },
        "versions": {"python": platform.python_version()} | {p: importlib.metadata.version(p) for p in PACKAGES},
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
    }


def processor() -> str:
    """The processor's name as the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
