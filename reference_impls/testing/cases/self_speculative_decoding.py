"""Self-speculative decoding: the target with halves of its layers skipped drafts for itself."""

from typing import Any

from reference_impls.testing.case import Case, Scene


def _options(scene: Scene) -> dict[str, Any]:
    """All attention but the first is skipped, and one feed-forward half; a perfect guesser skips nothing."""
    if scene.guess == "perfect":
        return {"skip_attention": (), "skip_feed": (), "threshold": 0.0, "epsilon": 0.0}  # and never stops early
    return {"skip_attention": tuple(range(1, scene.target.shape.layers)), "skip_feed": (0,)}


CASE = Case(
    options=_options,
    qualities=("perfect",),
    refused={"skip_attention": ((-1,), (0, 3)), "skip_feed": ((-1,), (0, 3))},
    checkpoint={"skip_attention": (2,), "skip_feed": ()},
    costs={"verify_chain": "rest", "sketch": "draft"},
)
