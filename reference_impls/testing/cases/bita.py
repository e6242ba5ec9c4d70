"""BiTA: masks behind every guess draft the next guesses in the pass that verifies these."""

from functools import partial
from typing import Any

import torch
from torch import Tensor

from reference_impls.core.model import LanguageModel
from reference_impls.speculative_decoding.bita import BidirectionalTuning, look_ahead
from reference_impls.testing.case import Case, Scene
from reference_impls.testing.tiny import foreseeing, randomised


def _tuning(target: LanguageModel, masks: int) -> BidirectionalTuning:
    made = randomised(BidirectionalTuning, target.shape, masks=masks, prompts=2)
    assert isinstance(made, BidirectionalTuning)
    return made


def _ahead(target: LanguageModel, text: Tensor, places: Tensor, masks: int) -> Tensor:
    """What the masks say that the kit makes for this target, behind each place."""
    states = look_ahead(target, _tuning(target, masks), text, (torch.arange(len(text)), None), places, size=masks)
    return target.logits(states[len(text) :]).unflatten(0, (len(places), masks))


def _options(scene: Scene) -> dict[str, Any]:
    """A chain, with a second guess at its beginning where that cannot be right by chance when it ought to be wrong."""
    first = 1 if scene.guess == "noisy" else 2
    return {"tuning": _tuning(scene.target, scene.guesses), "widths": (first, *(1,) * (scene.guesses - 1))}


CASE = Case(
    options=_options,
    qualities=("noisy", "perfect"),
    scene=lambda scene: foreseeing(scene, partial(_ahead, masks=scene.guesses)),
    refused={"widths": ((), (0,), (1, 1, 1, 1), (12,))},
    lacks="tuning (BidirectionalTuning)",
    costs={"verify_tree": "rest"},
)
