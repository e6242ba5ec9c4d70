"""LLMA: guesses copied from references; good ones are copied from the target's own future."""

from typing import Any

import torch

from reference_impls.testing.case import Case, Scene
from reference_impls.testing.tiny import PERIOD, Foresight, seeded


def _options(scene: Scene) -> dict[str, Any]:
    """References of random text, or the greedy text; for `noisy` guesses one reference for each place of it.

    Each is right as far as its place, which the whole of what was written finds, and then wrong at every third place.
    """
    vocab, start = scene.target.shape.vocab, len(scene.prompt)
    if scene.guess == "random":
        with seeded(7):
            return {"references": torch.randint(vocab, (2, 2 * vocab)).tolist()}
    text = Foresight(0, scene).tokens
    if scene.guess == "perfect":
        return {"references": [text[start:]], "longest": len(text)}
    told = [(token + (place % PERIOD == 0)) % vocab for place, token in enumerate(text)]
    ends = ((known, known + scene.guesses) for known in range(start + 1, len(text)))
    return {"references": [[*text[start:known], *told[known:end]] for known, end in ends], "longest": len(text)}


CASE = Case(
    options=_options,
    qualities=("noisy", "perfect"),
    refused={"shortest": (0, 6), "longest": (0,), "references": ([[5, 11]], [[-1]])},
    costs={"verify_chain": "rest"},
)
