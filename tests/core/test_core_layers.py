"""The pieces that both models are made of."""

import torch

from reference_impls.core.layers import attention_mask

MUTANTS = [
    ("chunk-without-a-mask", "if new == 1 or past == 0:", "if new >= 1:"),
    ("past-closed", "F.pad(closed, (past, 0))", "F.pad(closed, (past, 0), value=float('-inf'))"),
]


def test_the_mask_of_new_tokens_opens_the_past():
    like = torch.zeros(1)
    assert attention_mask(None, 0, 5, like) is None
    assert attention_mask(None, 7, 1, like) is None
    assert attention_mask(None, 1, 2, like).tolist() == [[0, 0, float("-inf")], [0, 0, 0]]
