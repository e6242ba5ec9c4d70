"""PaSS: the target drafts with look-ahead tokens behind the text, and verifies in a second pass."""

from torch import Tensor

from reference_impls.core.model import LanguageModel
from reference_impls.speculative_decoding.parallel_speculative_sampling import LookAhead, read_ahead
from reference_impls.testing.case import Case
from reference_impls.testing.tiny import foreseeing, randomised


def _ahead(target: LanguageModel, text: Tensor, places: Tensor) -> Tensor:
    """What the look-ahead tokens say that the kit makes for this target."""
    look_ahead = randomised(LookAhead, target.shape)
    assert isinstance(look_ahead, LookAhead)
    return read_ahead(target, look_ahead, text[None], places)[0]


CASE = Case(
    qualities=("noisy", "perfect"),
    scene=lambda scene: foreseeing(scene, _ahead),
    passes=2,
    compared=tuple({"gamma": gamma} for gamma in (1, 2, 4, 6)),
    refused={"gamma": (99,)},
    lacks="look_ahead (LookAhead)",
    costs={"verify_chain": "rest"},
)
