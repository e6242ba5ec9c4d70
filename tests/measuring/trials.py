"""Made-up methods, one for each way of being called, on tiny random models: no real method stands in these tests."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec
from types import ModuleType
from typing import Any

import pytest
import speculation
import torch
from speculation import SIZES, VOCAB, model

from accelgen.taxonomy.schema import Call, Method, Taxonomy
from reference_impls import zoo
from reference_impls.baselines import autoregressive, translation
from reference_impls.core.generation import Generation, Step
from reference_impls.core.layers import Shape
from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler
from reference_impls.core.seq2seq import EncoderDecoder
from reference_impls.testing.case import Case
from reference_impls.zoo.tasks import task

MASK = VOCAB - 1
PROMPTS = ["def f(x):", "import ", "a = 1", "for i in", "class A:", "return"]


def translator(seed: int) -> EncoderDecoder:
    """A random encoder-decoder with the words of the zoo's task."""
    lite = task("lite")
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return EncoderDecoder(Shape(vocab=len(lite.vocabulary), layers=1, **SIZES), lite.longest).eval()


@torch.inference_mode()
def refine(model: EncoderDecoder, source: Any, *, iterations: int = 2) -> Generation:
    """Writes four words at once and anew in every pass."""
    result, memory, canvas = Generation(), model.encode(source), [5, 5, 5, 5]
    for left in reversed(range(iterations)):
        canvas = (
            model.logits(model.decode(canvas, memory, visible=torch.ones(4, 4, dtype=torch.bool))).argmax(-1).tolist()
        )
        result.steps.append(Step([] if left else canvas, canvas=canvas))
    result.tokens = canvas
    return result


@torch.inference_mode()
def fill(model: LanguageModel, prompt: Any, length: int, *, sampler: Sampler, steps: int = 2) -> Generation:
    """Fills `length` places from the left, as many of them in a pass as `steps` passes need."""
    result, canvas, done = Generation(), [MASK] * length, 0
    while done < length:
        p = sampler.probs(model([*prompt, *canvas], visible=torch.ones(2 * [len(prompt) + length], dtype=torch.bool)))
        new = sampler.draw(p[len(prompt) :]).tolist()[done : done + -(-length // steps)]
        canvas[done : done + len(new)], done = new, done + len(new)
        result.steps.append(Step(new, canvas=list(canvas)))
    result.tokens = canvas
    return result


@torch.inference_mode()
def together(target: LanguageModel, prompts: Any, limits: Any, *, sampler: Sampler) -> list[Generation]:
    """Sequences in turn, a token each."""
    rows = [
        (list(prompt), target.new_cache(), Generation(), limit) for prompt, limit in zip(prompts, limits, strict=True)
    ]
    open_rows = [row for row in rows if row[3]]
    while open_rows:
        for row in list(open_rows):
            tokens, cache, result, limit = row
            tokens.append(int(sampler.draw(sampler.probs(target(tokens[len(cache) :], cache, last=1)[0]))))
            if not result.add(Step(tokens[-1:]), limit):
                open_rows.remove(row)
    return [result for _, _, result, _ in rows]


@torch.inference_mode()
def label(model: LanguageModel, tokens: Any, *, exit_layer: int = 2) -> Step:
    """One of three labels, read after `exit_layer` layers."""
    x = model.run(model.embed(tokens), layers=range(exit_layer))
    return Step([int(model.logits(x)[-1, :3].argmax())], layers=[exit_layer])


Example = Callable[[], dict[str, Any]]
TRIALS: Mapping[Call, tuple[Callable[..., Any], Example, Case]] = {
    Call.CONTINUE: (speculation.generate, speculation.example, Case(costs={"check": "rest"})),
    Call.TRANSLATE: (refine, lambda: {"model": translator(2), "iterations": 2}, Case()),
    Call.CANVAS: (fill, lambda: {"model": model(3), "steps": 2}, Case()),
    Call.BATCH: (together, lambda: {"target": model(0)}, Case()),
    Call.CLASSIFY: (
        label,
        lambda: {"model": model(4), "exit_layer": 1},
        Case(exits=[{"exit_layer": 1}, {"exit_layer": 2}]),
    ),
}


def trial(call: Call, **more: Any) -> Method:
    """The entry of a trial method."""
    paper = {"title": "T", "authors": ["A"], "year": 2020, "venue": "V", "url": "https://example.org/x"}
    entry = {
        "id": f"trial-{call.value}", "name": "Trial", "category": "speculative-decoding", "subcategory": "branch",
        "call": call.value, "in_survey": False, "paper": paper, "guarantee": "lossy", "guarantee_reason": "None.",
        "trained": "nothing", "needs": ["target-only"], "implementation": {"status": "proved"},
    }  # fmt: skip
    return Method.model_validate(entry | more, strict=False)


def taxonomy(*methods: Method) -> Taxonomy:
    """As much of a taxonomy as a measurement asks for."""
    return Taxonomy.model_construct(methods=list(methods))


def _module(name: str, **content: Any) -> ModuleType:
    module = module_from_spec(ModuleSpec(name, None))
    vars(module).update(content)
    return module


def install(patch: pytest.MonkeyPatch) -> None:
    """The trial methods as modules with cases, and a zoo of tiny models, for as long as the patch lasts."""
    for call, (function, example, case) in TRIALS.items():
        method = trial(call)
        name = "predict" if call is Call.CLASSIFY else "generate"
        own = {name: function, "example": example}
        module = speculation if function is speculation.generate else _module(method.module, **own)
        patch.setitem(sys.modules, method.module, module)
        case_name = f"reference_impls.testing.cases.{method.module.rpartition('.')[2]}"
        patch.setitem(sys.modules, case_name, _module(case_name, CASE=case))
    patch.setattr(translation, "example", lambda: {"model": translator(3)})
    patch.setattr(autoregressive, "example", lambda: {"target": model(0)})
    patch.setattr(zoo, "prompts", lambda: list(PROMPTS))
    patch.setattr(zoo, "encode", lambda text: list(text.encode("ascii")))
    patch.setattr(zoo, "decode", lambda tokens: "".join(map(chr, tokens)))
    patch.setattr(zoo, "pieces", lambda tokens: [chr(token) for token in tokens])
