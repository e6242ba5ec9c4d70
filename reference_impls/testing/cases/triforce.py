"""TriForce: the target with a part of its cache drafts for itself, and a drafter for that."""

from typing import Any

from reference_impls.testing.case import Case, Scene


def _options(scene: Scene) -> dict[str, Any]:
    return {"gamma_2": 1 if scene.target.shape.vocab <= 3 else 2 * scene.guesses}  # short where laws are found


CASE = Case(
    options=_options,
    refused={"gamma_2": (0,)},
    checkpoint={"budget": 16, "chunk": 2, "sinks": 2, "recent": 14, "stride": 8},
    costs={"verify_chain": "rest", "run_with_queries": "target"},
)
