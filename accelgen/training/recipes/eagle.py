"""EAGLE's drafter of features, learnt on the frozen target."""

from __future__ import annotations

from typing import Any

from accelgen.training.parts import Windows, learn
from accelgen.training.quality import feature_accuracy
from accelgen.training.recipe import Part, Recipe
from accelgen.training.shelf import Shelf
from reference_impls.core.sampling import Sampler
from reference_impls.speculative_decoding import eagle as method

LIMIT, PROMPTS = 48, 24  # of the greedy texts that its tokens a pass are counted in


def train(shelf: Shelf, settings: Windows) -> Part:
    """One layer that drafts the target's features."""
    target = shelf.load("target")
    part = Part.of(method.EagleDrafter, shape=target.shape)
    learn(shelf, settings, part.module, lambda x, _: method.loss(target, part.module, x))
    return part


def measure(shelf: Shelf, _settings: Windows, drafter: method.EagleDrafter) -> dict[str, Any]:
    """How often its best token is the target's at each depth, and tokens a pass of greedy text."""
    target = shelf.load("target")
    runs = [
        method.generate(target, prompt, LIMIT, drafter=drafter, sampler=Sampler(0))
        for prompt in shelf.prompts(count=PROMPTS)
    ]
    tokens, passes = sum(len(run.tokens) for run in runs), sum(run.passes for run in runs)
    found = feature_accuracy(target, drafter, shelf.held_out())
    return found | {"greedy_tokens_per_pass": round(tokens / passes, 3)}


RECIPE = Recipe("eagle-drafter", Windows(steps=2_000), train, measure, needs=("target",))
