"""Online speculative decoding: a drafter with a replay buffer, which learns from every text."""

import copy
from typing import Any

from reference_impls.speculative_decoding.online_speculative_decoding import Replay
from reference_impls.testing.case import Case, Scene
from reference_impls.testing.tiny import drafter


def _options(scene: Scene) -> dict[str, Any]:
    """A drafter of its own: where it is perfect a copy of the target, which must not change."""
    learner = copy.deepcopy(drafter(scene)).requires_grad_()
    return {"drafter": learner, "replay": Replay(learner, interval=1, rate=0.1)}


CASE = Case(
    options=_options,
    chain=True,
    costs={"verify_chain": "rest"},
    learns=("drafter", "replay"),
)
