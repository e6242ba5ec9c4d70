"""SpecInfer: one or several drafters grow a tree, as wide at each depth as `expansion` says."""

from reference_impls.testing.case import Case, Scene


def _expansion(scene: Scene) -> tuple[int, ...]:
    """Children of a node at each depth, few where laws are found; one for a noisy drafter, whose second could be right.

    With one guess a step there is one child.
    """
    few = {1: (1,), 2: (2,) if scene.guess == "random" else (1, 1)}
    return few.get(scene.guesses, (1, 1 if scene.guess == "noisy" else 2) + (1,) * (scene.guesses - 2))


CASE = Case(
    options=lambda scene: {"expansion": _expansion(scene)},
    refused={"expansion": ((), (0,), (2, 12)), "drafters": ((),)},
    checkpoint={"expansion": (2, 1)},
    costs={"verify_tree": "rest"},
)
