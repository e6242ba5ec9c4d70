"""The heads of blockwise parallel decoding, learnt on the frozen target."""

from __future__ import annotations

from typing import Any

from accelgen.training.parts import Windows, learn
from accelgen.training.quality import head_accuracy
from accelgen.training.recipe import Part, Recipe
from accelgen.training.shelf import Shelf
from reference_impls.speculative_decoding import blockwise_parallel_decoding as method

BLOCK = 4  # tokens in a block


def train(shelf: Shelf, settings: Windows) -> Part:
    """Heads for the tokens behind the next one."""
    target = shelf.load("target")
    part = Part.of(method.BlockHeads, shape=target.shape, k=BLOCK)
    learn(shelf, settings, part.module, lambda x, _: method.loss(target, part.module, x))
    return part


def measure(shelf: Shelf, _settings: Windows, heads: method.BlockHeads) -> dict[str, Any]:
    """How often each head's best token is the text's."""
    return head_accuracy(shelf.load("target"), heads, shelf.held_out())


RECIPE = Recipe("block-heads", Windows(steps=2_500), train, measure, needs=("target",))
