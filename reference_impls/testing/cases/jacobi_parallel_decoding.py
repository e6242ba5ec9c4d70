"""Jacobi decoding: the last iterate is the guess, at first padding; so it is right where the text is padding."""

from dataclasses import replace
from typing import Any

from reference_impls.testing.case import Case, Scene
from reference_impls.testing.tiny import table_model

PAD = 0


def _options(scene: Scene) -> dict[str, Any]:
    """Blocks of as many guesses as the scene has; with other numbers of them the other two algorithms."""
    algorithms = {1: "jacobi", 4: "hybrid"} if scene.guess == "random" else {}
    algorithm = algorithms.get(scene.guesses, "gs-jacobi")
    return {"algorithm": algorithm, "block": scene.guesses + 1, "stretch": 2 * scene.guesses, "pad": PAD}


def _scene(scene: Scene) -> Scene:
    """A target that says nothing but padding, where the guesses have to be perfect."""
    if scene.guess != "perfect":
        return scene
    vocab = scene.target.shape.vocab
    return replace(scene, target=table_model([[float(token == PAD) for token in range(vocab)]] * vocab))


CASE = Case(
    options=_options,
    qualities=("perfect",),
    scene=_scene,
    refused={"algorithm": ("newton",), "block": (0,), "stretch": (-1,)},
)
