"""LayerSkip: the lower layers draft, the upper ones verify."""

from dataclasses import replace

from reference_impls.testing.case import Case, Scene
from reference_impls.testing.tiny import settled


def _scene(scene: Scene) -> Scene:
    """A target whose upper layers add nothing, where the lower ones have to guess perfectly."""
    return replace(scene, target=settled(scene.target)) if scene.guess == "perfect" else scene


CASE = Case(
    qualities=("perfect",),
    scene=_scene,
    refused={"exit_layer": (3,)},  # of three layers
    checkpoint={"exit_layer": 2},
    costs={"verify_chain": "rest"},
)
