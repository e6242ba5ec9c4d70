"""Reading a model out before its last layer: the top-two gap, the states layer by layer, and their cross-entropy."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from reference_impls.core.exits import layer_states, layerwise_cross_entropy, top_two_gap
from reference_impls.testing.tiny import language_model

MUTANTS = [
    ("confidence-without-the-gap", "return best - second", "return best"),
    ("loss-of-every-layer", "if depth in weights:", "if True:"),
    ("exits-counted-from-0", "enumerate(states, start=1)", "enumerate(states)"),
]

TOKENS = torch.tensor([[0, 1, 2, 3, 4], [4, 3, 2, 1, 0]])


def test_the_gap_is_between_the_two_largest_probabilities() -> None:
    p = torch.tensor([[0.1, 0.6, 0.3], [0.2, 0.4, 0.4], [1.0, 0.0, 0.0]], dtype=torch.float64)
    assert top_two_gap(p.log()).tolist() == pytest.approx([0.3, 0.0, 1.0])
    assert top_two_gap(p.log()[0] + 7).item() == pytest.approx(0.3)
    assert top_two_gap(torch.tensor([0.0, float("nan"), 1.0])).isnan()


def test_the_gap_of_narrow_logits_is_computed_wide() -> None:
    logits = torch.tensor([3.0, 1.0, 2.0])
    for narrow in (torch.bfloat16, torch.float16):
        found = top_two_gap(logits.to(narrow))  # these three numbers are exact in either
        assert found.dtype == torch.float32
        assert found == top_two_gap(logits)


@torch.no_grad()
def test_one_pass_taken_apart_gives_the_state_after_every_layer() -> None:
    model = language_model(5, layers=4)
    states = list(layer_states(model, TOKENS))
    assert len(states) == 4
    for depth, state in enumerate(states, start=1):
        assert torch.allclose(state, model.run(model.embed(TOKENS), layers=range(depth)))


@torch.no_grad()
def test_the_loss_is_the_weighted_mean_over_the_chosen_layers_alone() -> None:
    model, wanted = language_model(5, layers=4), TOKENS[:, 1:]
    states = list(layer_states(model, TOKENS[:, :-1]))
    each = [F.cross_entropy(model.logits(x).flatten(0, 1), wanted.flatten()).item() for x in states]
    found = layerwise_cross_entropy(model, states, wanted, {2: 0.5, 4: 3.0})
    assert found.item() == pytest.approx((0.5 * each[1] + 3 * each[3]) / 3.5, rel=1e-5)
    assert layerwise_cross_entropy(model, states, wanted, {1: 7.0}).item() == pytest.approx(each[0], rel=1e-5)
