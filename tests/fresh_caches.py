"""Whether caches hold, each time a drafter begins its tree, what a fresh pass over the text would have made."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest
import torch

from reference_impls.core.cache import Cache
from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler
from reference_impls.core.tree import draft_tree


def watched(monkeypatch: pytest.MonkeyPatch, module: ModuleType, target: LanguageModel) -> list[tuple[int, int]]:
    """Compare both caches whenever `module` calls `draft_tree`; tokens of the drafter's cache and of the text."""
    caches, held, original = list[Cache](), list[tuple[int, int]](), target.new_cache

    def fresh(model: LanguageModel, cache: Cache, text: list[int]) -> None:
        wanted = model.new_cache()
        n = len(cache)
        if n:
            model(text[:n], wanted)
            torch.testing.assert_close(cache._store[..., :n, :], wanted._store[..., :n, :])

    def grown(sampler: Sampler, model: LanguageModel, tokens: list[int], cache: Cache, *rest: Any, **own: Any) -> Any:
        fresh(model, cache, tokens)
        fresh(target, caches[0], tokens)
        held.append((len(cache), len(tokens)))
        return draft_tree(sampler, model, tokens, cache, *rest, **own)

    def noted() -> Cache:
        caches.append(original())
        return caches[-1]

    monkeypatch.setattr(module, "draft_tree", grown)
    monkeypatch.setattr(target, "new_cache", noted)
    return held
