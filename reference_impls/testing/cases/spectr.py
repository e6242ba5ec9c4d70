"""SpecTr: two drafts where that is not more than the guesses of a step."""

from typing import Any

from reference_impls.testing.case import Case, Scene


def _drafts(scene: Scene) -> dict[str, Any]:
    """Two drafts, of one token each where laws are found; one with a single guess a step."""
    few = {1: {"drafts": 1}, 2: {"drafts": 2, "gamma": 1} if scene.guess == "random" else {"drafts": 2}}
    return few.get(scene.guesses, {"drafts": 2})


CASE = Case(
    options=_drafts,
    refused={"drafts": (0,)},
    checkpoint={"drafts": 2, "gamma": 2},
    costs={"verify_drafts": "rest"},
)
