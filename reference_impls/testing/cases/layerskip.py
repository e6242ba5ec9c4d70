"""LayerSkip: the lower layers draft, the upper ones verify."""

from reference_impls.testing.case import Case

CASE = Case(
    options=lambda scene: {"exit_layer": scene.target.shape.layers if scene.guess == "perfect" else 1},
    qualities=("perfect",),
    checkpoint={"exit_layer": 2},
    costs={"verify_chain": "rest"},
)
