"""Transformers' `generate`: the same weights, the switches that make its drafts like ours, and a trace like ours."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from accelgen.checkpoints.writing import write_checkpoint
from reference_impls.core.generation import Generation, Step
from reference_impls.core.model import LanguageModel

DEFAULTS = {  # transformers' own, for the page; a test compares them with the installed version
    "num_assistant_tokens": 20,
    "num_assistant_tokens_schedule": "constant",
    "assistant_confidence_threshold": 0.4,
}


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
