"""Predicts every method's speedup from what the calls of its models cost, and never from how long the method took.

`accelgen bench --costs` runs the methods twice. On prompts that the benchmark does not use, each call of a model and
each drawing and verification is timed where it really stands, inside the loop: a drafter that is called again and
again alone has its weights at hand, and looks three times cheaper than it is. The medians of equal calls of all methods
together are the unit costs: c of a drafter's pass, r(k) of the target's pass over k new tokens, both against a plain
step. On the benchmark's own prompts the calls are only counted. Counts times unit costs is the predicted time:

    speedup = tau / (r(k) + d c + v),    tau tokens and d drafter passes for each pass of the target, v for the rest.

What it cannot see is all that happens between the calls. So it can be wrong, and where it is, that is what one learns.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import itertools
import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from accelgen.measuring import bench
from accelgen.measuring.bench import Plan, Row, Run
from accelgen.taxonomy.schema import Method, Taxonomy
from reference_impls.baselines import autoregressive, translation
from reference_impls.core.cache import Cache
from reference_impls.core.generation import Generation
from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler
from reference_impls.core.seq2seq import EncoderDecoder
from reference_impls.core.tree import Tree

# What a loop calls that is no model: drawing, masks, repairs of the cache, acceptance rules. A name that a method's
# module does not have is passed over there.
SHARED: tuple[tuple[type, str], ...] = (
    (Sampler, "probs"), (Sampler, "draw"), (Sampler, "accept"), (Tree, "layout"), (Cache, "keep"),
)  # fmt: skip
RULES = ("verify_chain", "verify_tree", "verify_block", "count_kept", "accept_typical", "viterbi", "least_certain")
# Functions of a method that run the target's blocks themselves; a thinned target is a drafter.
BY_HAND = {"run_with_queries": "target", "confidence": "target", "sketch": "draft"}
PARTS = ("target", "draft", "rest")
LEFT_OUT = ("new_cache", "forget_angles", "loss")  # of a model's public methods
TIMED = 8  # prompts or sentences that calls are timed on, where so many are left over


@dataclass(frozen=True, order=True)
class Call:
    """A kind of call: calls that agree in all of this are taken to cost the same."""

    part: str  # one of PARTS
    who: str  # "target", "drafter of 2 layers", a class, or a function
    name: str  # of the method that was called, if it was one
    how: str  # what else its cost depends on: the mask of a tree, the number of layers, greedy or not
    new: int  # tokens, rows, places or nodes


class Recorder:
    """Notes every outermost call of what it watches, with its seconds; calls inside calls belong to the outer one."""

    def __init__(self) -> None:
        self.calls: list[tuple[Call, float]] = []
        self._inside = False

    def wrap(self, part: str, who: str, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, noted down."""

        @functools.wraps(function)
        def noted(*args: Any, **kwargs: Any) -> Any:
            if self._inside:
                return function(*args, **kwargs)
            self._inside, call = True, Call(part, who, name, manner(args, kwargs), size(args))
            start = bench.now()
            try:
                return function(*args, **kwargs)
            finally:
                self.calls.append((call, bench.now() - start))
                self._inside = False

        return noted

    @contextmanager
    def watching(self, module: ModuleType, options: Mapping[str, Any]) -> Iterator[None]:
        """While it lasts, the models among the options, the sampler and the module's rules are noted down."""
        patched: list[tuple[Any, str, Any]] = []

        def patch(owner: Any, attribute: str, part: str, who: str, name: str) -> None:
            patched.append((owner, attribute, owner.__dict__.get(attribute)))
            setattr(owner, attribute, self.wrap(part, who, name, getattr(owner, attribute)))

        try:
            for model, (part, who) in roles(options):
                for name in public_methods(type(model)):
                    patch(model, name, part, who, name)
                for name, child in model.named_children():  # a loop may ask a part of a model alone
                    if "forward" in public_methods(type(child)):
                        patch(child, "forward", part, who, name)
            for owner, name in SHARED:
                patch(owner, name, "rest", owner.__name__, name)
            for name in (*RULES, *BY_HAND):
                if function := vars(module).get(name):
                    own = "" if ".core." in function.__module__ else f"{module.__name__.rpartition('.')[2]}."
                    patch(module, name, BY_HAND.get(name, "rest"), own + name, "")
            yield
        finally:
            for owner, attribute, before in reversed(patched):
                delattr(owner, attribute) if before is None else setattr(owner, attribute, before)


def roles(options: Mapping[str, Any]) -> list[tuple[nn.Module, tuple[str, str]]]:
    """The models among the options, each with its part and its name; a model that is there twice comes once."""
    found: dict[int, tuple[nn.Module, tuple[str, str]]] = {}
    for key, value in options.items():
        for model in value if isinstance(value, list | tuple) else [value]:
            if isinstance(model, nn.Module):
                found.setdefault(id(model), (model, _role(key, model)))
    return list(found.values())


def _role(key: str, model: nn.Module) -> tuple[str, str]:
    if isinstance(model, EncoderDecoder):
        return "target", type(model).__name__
    if key == "target":
        return "target", "target"
    if isinstance(model, LanguageModel):
        return "draft", f"drafter of {model.shape.layers} layers"
    return "draft", type(model).__name__


def public_methods(kind: type) -> list[str]:
    """The names of the public methods that a model's class and its bases define, those of torch left out."""
    found = dict.fromkeys(
        name
        for base in kind.__mro__
        if base.__module__.startswith("reference_impls")
        for name, value in vars(base).items()
        if inspect.isfunction(value) and not name.startswith("_") and name not in LEFT_OUT
    )
    return list(found)


def size(args: Sequence[Any]) -> int:
    """How many tokens, rows, places or nodes a call is about: the size of its first argument that has one."""
    for value in args:
        if isinstance(value, Tensor):
            rows = value.numel() // value.shape[-1] if value.is_floating_point() and value.dim() else value.numel()
            return max(1, rows)
        if isinstance(value, list | tuple | Tree):
            return len(value)
    return 1


def manner(args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """What else the cost of a call depends on."""
    sampler = next((value for value in args if isinstance(value, Sampler)), None)
    found = ["greedy" if sampler.temperature == 0 else "sampling"] if sampler is not None else []
    if kwargs.get("visible") is not None:
        found.append("masked")
    if kwargs.get("layers") is not None:
        found.append(f"{len(kwargs['layers'])} layers")
    return ", ".join(found)


# ---- unit costs ---------------------------------------------------------------------------------------------------


class Units:
    """The median seconds of every kind of call, and between two sizes of a kind what lies between them."""

    def __init__(self, calls: Sequence[tuple[Call, float]]) -> None:
        seconds: dict[Call, list[float]] = defaultdict(list)
        for call, each in calls:
            seconds[call].append(each)
        self.found = {call: (statistics.median(each), len(each)) for call, each in sorted(seconds.items())}
        self.kinds: dict[tuple[str, ...], dict[int, float]] = defaultdict(dict)
        for call, (median, _) in self.found.items():
            self.kinds[_kind(call)][call.new] = median

    def seconds(self, call: Call) -> float:
        """What the call costs. Raises ValueError if no call of its kind was ever timed."""
        known = self.kinds.get(_kind(call))
        if not known:
            raise ValueError(
                f"no call like {call} was timed, so its cost is unknown: time more runs with a larger --prompts"
            )
        return known[call.new] if call.new in known else between(known, call.new)

    def rows(self) -> list[Row]:
        """As plain data: microseconds, and how many calls the median is over."""
        return [
            {"part": c.part, "who": c.who, "call": c.name, "how": c.how, "new": c.new}
            | {"microseconds": round(1e6 * median, 2), "calls": count}
            for c, (median, count) in self.found.items()
        ]


def _kind(call: Call) -> tuple[str, ...]:
    return call.part, call.who, call.name, call.how


def between(known: Mapping[int, float], new: int) -> float:
    """A straight line between the neighbouring sizes; outside, the line through the smallest and the largest."""
    if len(known) == 1:
        return next(iter(known.values()))
    sizes = sorted(known)
    inside = sizes[0] < new < sizes[-1]
    low = max(s for s in sizes if s < new) if inside else sizes[0]
    high = min(s for s in sizes if s > new) if inside else sizes[-1]
    value = known[low] + (new - low) / (high - low) * (known[high] - known[low])
    return max(value, min(known.values()))


# ---- runs ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """A row of the benchmark: how it is called, and the runs of baseline and method on the i-th prompt or sentence."""

    id: str
    setting: str
    module: ModuleType
    options: dict[str, Any]  # the method's
    plain: tuple[ModuleType, dict[str, Any]]  # the baseline's module and model
    way: str  # in which the baseline decodes: its i-th run makes the same calls in every case of that way
    runs: Callable[[int], tuple[Run, Run]]

    def record(self, i: int, *, baseline: bool) -> tuple[Generation, list[tuple[Call, float]]]:
        """What the i-th run of the baseline or of the method gives, and its calls."""
        module, options = self.plain if baseline else (self.module, self.options)
        recorder = Recorder()
        with recorder.watching(module, options):
            return self.runs(i)[0 if baseline else 1](), recorder.calls


def cases(method: Method, plan: Plan) -> Iterator[Case]:
    """The rows of one method; the i-th run is the benchmark's for i below the plan's number of runs."""
    make = _translation_cases if bench.is_sequence_to_sequence(method) else _language_cases
    yield from make(method, plan)


def _language_cases(method: Method, plan: Plan) -> Iterator[Case]:
    from reference_impls import zoo

    module = importlib.import_module(method.module)
    options = bench.moved(module.example(), plan.device)
    target, prompts = options["target"], [zoo.encode(text) for text in zoo.prompts()]
    order = _order(plan)
    for temperature in bench.settings_of(method):

        def runs(i: int, temperature: float = temperature) -> tuple[Run, Run]:
            place, seed = order[i]
            shared: dict[str, Any] = {"prompt": prompts[place], "limit": plan.limit}

            def sampler() -> Sampler:
                return Sampler(temperature, seed=seed)

            return (
                lambda: autoregressive.generate(target, sampler=sampler(), **shared),
                lambda: module.generate(sampler=sampler(), **shared, **options),
            )

        setting = ", ".join([bench.setting_name(temperature), *bench.plain_options(options)])
        yield Case(
            method.id,
            setting,
            module,
            options,
            (autoregressive, {"target": target}),
            bench.setting_name(temperature),
            runs,
        )


def _translation_cases(method: Method, plan: Plan) -> Iterator[Case]:
    from reference_impls import zoo
    from reference_impls.zoo.tasks import END, task

    module, lite = importlib.import_module(method.module), task("lite")
    options, baseline = bench.moved((module.example(), zoo.load("translation-ar")), plan.device)
    examples = itertools.islice(lite.examples(held_out=True), plan.prompts + 1 + timed_runs(plan))
    sources = [lite.encode(example.source) for example in examples]
    order = _order(plan)
    for varied in bench.settings_of(method):
        own = options | varied

        def runs(i: int, own: dict[str, Any] = own) -> tuple[Run, Run]:
            source = sources[order[i][0]]
            return (
                lambda: translation.generate(baseline, source, plan.limit, sampler=Sampler(temperature=0), eos=END),
                lambda: module.generate(source=source, **own),
            )

        setting = ", ".join(bench.plain_options(own))
        yield Case(method.id, setting, module, own, (translation, {"model": baseline}), "translation", runs)


def _order(plan: Plan) -> list[tuple[int, int]]:
    """Place and seed of every run: first the benchmark's, then those on prompts that it leaves over, for the timing."""
    own = [(place, seed) for seed in range(plan.repeat) for place in range(plan.prompts)]
    return own + [(plan.prompts + i, 0) for i in range(1 + timed_runs(plan))]


# ---- the report ---------------------------------------------------------------------------------------------------


def measure(taxonomy: Taxonomy, plan: Plan) -> dict[str, list[Row]]:
    """The unit costs, and a prediction for every row of the benchmark with the same plan.

    Timed runs go round: one prompt after the other, and on each all methods, so that a slow moment hits all alike.
    """
    methods = [m for m in taxonomy.methods if m.is_implemented]
    with bench.one_thread():
        every = [case for method in methods for case in cases(method, plan)]
        timed, own = list[tuple[Call, float]](), plan.prompts * plan.repeat
        for i in range(own, own + 1 + timed_runs(plan)):
            for case in every:
                plan.tick(f"timing {case.id}")
                calls = [entry for which in (True, False) for entry in case.record(i, baseline=which)[1]]
                timed += calls if i > own else []  # the first run of a model is slower
        units = Units(timed)
        known: dict[tuple[str, int], tuple[int, float]] = {}
        rows = [prediction(case, plan, units, known) for case in every]
    return {"units": units.rows(), "rows": rows}


def timed_runs(plan: Plan) -> int:
    """How many prompts or sentences the calls are timed on, after one to warm up. Raises ValueError if none is left."""
    from reference_impls import zoo

    left = len(zoo.prompts()) - plan.prompts - 1
    if left < 1:
        most = len(zoo.prompts()) - 2
        raise ValueError(f"--prompts {plan.prompts} leaves no held-out prompt to time calls on: take at most {most}")
    return min(TIMED, left)


def prediction(case: Case, plan: Plan, units: Units, known: dict[tuple[str, int], tuple[int, float]]) -> Row:
    """Counted calls times unit costs, for the baseline and the method on each of the benchmark's prompts.

    `predicted` is the median of the ratios. `target`, `draft` and `rest` are what a step costs on the average, in plain
    steps of the baseline; a step is a pass of the target. `known` keeps the tokens and the expected seconds of the
    baseline's runs from case to case.
    """
    spent, ratios, results = dict.fromkeys(PARTS, 0.0), list[float](), list[Generation]()
    tokens, plain = 0, 0.0
    for i in range(plan.prompts * plan.repeat):
        plan.tick(f"counting {case.id}")
        if (case.way, i) not in known:
            result, calls = case.record(i, baseline=True)
            known[case.way, i] = len(result.tokens), sum(units.seconds(call) for call, _ in calls)
        count, expected = known[case.way, i]
        tokens, plain = tokens + count, plain + expected
        result, calls = case.record(i, baseline=False)
        results.append(result)
        ratios.append(expected / sum(units.seconds(call) for call, _ in calls))
        for call, _ in calls:
            spent[call.part] += units.seconds(call)
    total, step = bench.merged(iter(results)), plain / tokens
    return {
        "id": case.id,
        "setting": case.setting,
        "tokens_per_pass": total.tokens_per_pass,
        **{part: seconds / total.passes / step for part, seconds in spent.items()},
        "predicted": statistics.median(ratios),
        "runs": len(ratios),
    }


def runs_of(taxonomy: Taxonomy, plan: Plan) -> int:
    """How many runs of baseline and method `measure` will announce, for a progress bar."""
    rows = sum(len(bench.settings_of(m)) for m in taxonomy.methods if m.is_implemented)
    return rows * (plan.prompts * plan.repeat + 1 + timed_runs(plan))
