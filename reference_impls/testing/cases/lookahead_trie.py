"""Lookahead: guesses from a trie that learns; perfect ones from one that has learned the greedy text."""

from typing import Any

from reference_impls.speculative_decoding.lookahead_trie import Trie
from reference_impls.testing.case import Case, Scene
from reference_impls.testing.tiny import Foresight


def _options(scene: Scene) -> dict[str, Any]:
    """Branches of as many tokens as there are guesses, in a tree that is small where laws are found."""
    trie = Trie(gamma=scene.guesses)
    if scene.guess == "perfect":
        trie.end(Foresight(0, scene).tokens)
    elif scene.target.shape.vocab <= 3:
        trie.end([0, 1, 1, 0, 1, 1, 0, 0])
    return {"trie": trie, "nodes": 3 if scene.target.shape.vocab <= 3 else 63}


CASE = Case(
    options=_options,
    qualities=("perfect",),
    refused={"longest": (0,), "nodes": (0,)},
    costs={"verify_tree": "rest"},
    learns=("trie",),
)
