"""Measures methods beside transformers' `generate`: the same weights, prompts, limit and dtype, in one process.

A round decodes one prompt with every side, ours and theirs, one right after the other; the order turns and reverses
from round to round, so that a slow moment of the machine hits all alike. Every ratio is taken within a round. Theirs
runs on a checkpoint that `zoo.export` wrote, and nothing stops it before the limit.
"""

from __future__ import annotations

import importlib.metadata
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from accelgen.checkpoints.writing import write_checkpoint
from accelgen.measuring.bench import (
    TEMPERATURES,
    Pair,
    Plan,
    Row,
    agreement,
    merged,
    one_thread,
    plain_options,
    setting_name,
    spread,
    timed,
)
from reference_impls.baselines import autoregressive
from reference_impls.core.generation import Generation, Step
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
DEFAULTS = {  # transformers' own, for the page; a test compares them with the installed version
    "num_assistant_tokens": 20,
    "num_assistant_tokens_schedule": "constant",
    "assistant_confidence_threshold": 0.4,
}

Options = Mapping[str, dict[str, Any]]  # id of OURS -> models and options of its `generate`
Run = Callable[[Sequence[int], int, float, int], Generation]  # of prompt, limit, temperature, seed
Runs = dict[str, list[tuple[Generation, float]]]  # side -> what each round gave, with its seconds


@dataclass(frozen=True)
class Call:
    """One way to call transformers' `generate`."""

    argument: str = ""  # what asks for drafts, as people write it
    arguments: Mapping[str, Any] = field(default_factory=dict)  # the same, as `generate` takes it
    gamma: int | None = None  # the length of every draft; None leaves it to transformers

    @property
    def name(self) -> str:
        """How it is called on the page."""
        drafts = [f"{self.gamma} guesses"] if self.gamma else ["default drafts"] * ("assistant" in self.argument)
        return ", ".join([f"generate({self.argument})", *drafts])

    @property
    def switches(self) -> dict[str, Any]:
        """What `generation_config` of the model that drafts has to say; transformers reads it nowhere else."""
        if self.gamma is None:
            return {}
        return {
            "num_assistant_tokens": self.gamma,
            "num_assistant_tokens_schedule": "constant",
            "assistant_confidence_threshold": 0.0,
        }


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


# ---- transformers -------------------------------------------------------------------------------------------------


class Peer:
    """Transformers' copies of a target and a drafter; every call is traced, so that both sides are counted alike."""

    def __init__(self, target: LanguageModel, drafter: LanguageModel) -> None:
        """Load both from checkpoints. Raises ValueError where transformers is not installed."""
        self.target, self.drafter = load(target), load(drafter)
        from transformers import GenerationConfig

        self._settings: Any = GenerationConfig
        self._depth = self.target.config.num_hidden_layers
        self._passes: list[tuple[Tensor | None, int]] = []  # tokens [1, new] (None: a pass that drafts), tokens cached
        for model in (self.target, self.drafter):
            model.register_forward_pre_hook(self._note, with_kwargs=True)

    def run(self, call: Call, prompt: Sequence[int], limit: int, temperature: float, seed: int) -> Generation:
        """What `call` gives after `prompt`, with a trace like ours. Raises ValueError if it is not `limit` tokens."""
        drafting, other = self.target, self.drafter
        if call.arguments.get("assistant_model") is self.drafter:
            drafting, other = other, drafting
        drafting.generation_config = self._settings(**call.switches)  # new ones, as generate may change them
        other.generation_config = self._settings()
        law = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0} if temperature else {}
        tokens = torch.tensor([prompt], device=self.target.device)  # [1, prompt]
        try:
            with torch.random.fork_rng():
                torch.manual_seed(seed)
                text = self.target.generate(
                    tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=limit, **law, **call.arguments
                )[0].tolist()
            if len(text) != len(prompt) + limit:
                raise ValueError(f"it gave {len(text) - len(prompt)} of {limit} tokens")
            return self._trace(text, len(prompt), limit)
        finally:
            self._passes.clear()
            self.target.config.num_hidden_layers = self._depth  # a failed early exit would leave it shallow

    def _note(self, model: Any, _: tuple[Any, ...], arguments: dict[str, Any]) -> None:
        """Before every pass. While the target drafts by early exit, transformers calls it less deep."""
        if model is self.drafter or model.config.num_hidden_layers < self._depth:
            self._passes.append((None, 0))
        else:
            self._passes.append((arguments["input_ids"], arguments["past_key_values"].get_seq_length()))

    def _trace(self, text: list[int], start: int, limit: int) -> Generation:
        """The passes as steps. All of the text but its last token is cached before every pass except the first."""
        result, drafts = Generation(), 0
        passes = [(tokens, past) for tokens, past in self._passes if tokens is not None]
        ends = [*(past + 1 for _, past in passes[1:]), len(text)]
        for tokens, past in self._passes:
            if tokens is None:
                drafts += 1
                continue
            guesses = past + tokens.shape[1] - start
            draft, emitted = tokens[0, tokens.shape[1] - guesses :].tolist(), text[start : ends[len(result.steps)]]
            kept = next((i for i, (a, b) in enumerate(zip(draft, emitted, strict=False)) if a != b), None)
            kept = min(len(draft), len(emitted)) if kept is None else kept
            start, step = start + len(emitted), Step(emitted, draft, kept=kept, draft_passes=drafts)
            result.add(step, limit)
            drafts = 0
        return result


def load(model: LanguageModel) -> Any:
    """The same weights as a transformers model. Raises ValueError where transformers is not installed."""
    try:
        from transformers import AutoModelForCausalLM
    except ImportError:
        raise ValueError(
            "transformers is not installed, beside which `accelgen bench --peers` measures: pip install transformers"
        ) from None
    with tempfile.TemporaryDirectory() as folder, silent():
        write_checkpoint(Path(folder) / "model", model)
        theirs: Any = AutoModelForCausalLM.from_pretrained(Path(folder) / "model", dtype=model.embedding.dtype)
        return theirs.eval().to(model.device)


@contextmanager
def silent() -> Iterator[None]:
    """Transformers without its progress bars and its advice, and afterwards as before."""
    from transformers import utils

    logging: Any = utils.logging
    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()


def draft_temperature(temperature: float) -> float:
    """At which temperature transformers draws its guesses: version 5.23 divides a drafter's logits by it twice.

    `generate` hands its processors to the drafter's `generate`, which adds its own (utils.py, `_get_logits_processor`).
    The law of the text is kept, for the same q is what guesses are judged by; a test watches over it.
    """
    return temperature**2


# ---- measuring ----------------------------------------------------------------------------------------------------


def line_up(options: Options | None = None) -> LineUp:
    """All sides. The options default to the example of each method: the zoo's models, as all pages use them."""
    options = options or {id: module.example() for id, module in OURS.items()}
    peer = Peer(options[PLAIN]["target"], options[DRAFTER]["drafter"])
    pairs = comparisons(options, peer.drafter)
    sides = {id: _ours(module, options[id]) for id, module in OURS.items()}
    return LineUp(options, pairs, sides | {pair.theirs.name: _theirs(peer, pair.theirs) for pair in pairs})


def measure(lines: LineUp, prompts: Sequence[Sequence[int]], plan: Plan) -> list[Row]:
    """A row for each comparison, greedy and at temperature 0.8. `plan.tick` is called before every run."""
    rows: list[Row] = []
    with one_thread(), silent():
        for temperature in TEMPERATURES:
            runs, errors = rounds(lines.sides, prompts, plan, temperature)
            greedy = temperature == 0
            memory = {name: working_memory(lines.sides[name], prompts, plan.limit) for name in runs} if greedy else {}
            for pair in lines.pairs:
                row: Row = {"title": pair.title, "id": pair.ours, "setting": setting_name(temperature)}
                error = errors.get(pair.theirs.name) or errors.get(Call().name)
                if error:
                    row |= {"theirs": {"call": pair.theirs.name}, "error": error}
                else:
                    row |= compared(pair, runs, lines.options, memory)
                    if greedy:
                        row |= identity(pair, runs, lines.options[PLAIN]["target"], prompts)
                rows.append(row)
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


def compared(pair: Comparison, runs: Runs, options: Options, memory: Mapping[str, int]) -> Row:
    """The figures of one comparison; `speedup` is their time divided by ours.

    `loop` is the same for plain decoding on both sides. `algorithm` is our speedup over our own plain decoding divided
    by theirs over theirs: in every round speedup = loop * algorithm.
    """
    theirs = pair.theirs.name
    seconds = {name: [time for _, time in found] for name, found in runs.items()}
    loop = _ratios(seconds[Call().name], seconds[PLAIN])
    total = _ratios(seconds[theirs], seconds[pair.ours])
    row: Row = {
        "ours": _side(pair.ours, PLAIN, runs, memory) | {"options": plain_options(options[pair.ours])},
        "theirs": {"call": theirs, "switches": pair.theirs.switches, **_side(theirs, Call().name, runs, memory)},
        **spread(total),
    }
    if pair.ours != PLAIN:
        row |= {"loop": spread(loop), "algorithm": spread(_ratios(total, loop))}
    return row


def identity(pair: Comparison, runs: Runs, target: LanguageModel, prompts: Sequence[Sequence[int]]) -> Row:
    """How far our greedy texts equal theirs; every difference must be a tie of two logits."""
    count = len(prompts)  # further rounds of a greedy text add nothing
    found = zip(runs[pair.theirs.name][:count], runs[pair.ours][:count], strict=True)
    pairs = [Pair(theirs, ours, baseline, own) for (theirs, baseline), (ours, own) in found]
    return agreement(target, prompts, pairs, exact=True)


def _side(name: str, plain: str, runs: Runs, memory: Mapping[str, int]) -> Row:
    """Figures of one side alone: its work, its speedup over its own plain decoding, its memory."""
    total = merged(result for result, _ in runs[name])
    row: Row = {
        "tokens_per_pass": total.tokens_per_pass,
        "drafted_per_pass": sum(len(step.drafted) for step in total.steps) / total.passes,
        "acceptance": total.acceptance,
    }
    if name != plain:
        row["over_plain"] = spread([a[1] / b[1] for a, b in zip(runs[plain], runs[name], strict=True)])
    return row | ({"working_bytes": memory[name]} if name in memory else {})


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
