"""Staged speculative decoding: n-grams prepare the drafter's tree, as wide at each depth as `widths` says."""

from reference_impls.testing.case import Case, Scene


def _widths(scene: Scene) -> tuple[int, ...]:
    """Children of a node at each depth, few where laws are found; one for a noisy drafter, whose second could be right.

    With one guess a step there is one child.
    """
    few = {1: (1,), 2: (2,) if scene.guess == "random" else (1, 1)}
    return few.get(scene.guesses, (1, 1 if scene.guess == "noisy" else 2) + (1,) * (scene.guesses - 2))


CASE = Case(
    options=lambda scene: {"widths": _widths(scene)},
    refused={"widths": ((), (0,), (2, 12))},
    lacks="ngrams (Ngrams)",
    costs={"verify_tree": "rest"},
)
