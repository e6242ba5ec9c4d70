"""The pieces that both models are made of."""

import torch

from reference_impls.core.layers import Block, Shape, attention_mask

MUTANTS = [
    ("chunk-without-a-mask", "if new == 1 or past == 0:", "if new >= 1:"),
    ("past-closed", "F.pad(closed, (past, 0))", "F.pad(closed, (past, 0), value=float('-inf'))"),
]


def test_the_mask_of_new_tokens_opens_the_past():
    like = torch.zeros(1)
    assert attention_mask(None, 0, 5, like) is None
    assert attention_mask(None, 7, 1, like) is None
    assert attention_mask(None, 1, 2, like).tolist() == [[0, 0, float("-inf")], [0, 0, 0]]


def test_fresh_matrices_keep_the_size_of_what_they_read():
    shape = Shape(vocab=9, dim=64, layers=1, heads=4, kv_heads=2, head_dim=16, hidden=96)
    sizes = {
        name: float(w.detach().std() * len(w) ** 0.5) for name, w in Block(shape).named_parameters() if w.dim() == 2
    }
    assert len(sizes) >= 4
    assert all(0.85 < size < 1.15 for size in sizes.values()), sizes
