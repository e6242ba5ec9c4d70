"""Known bugs, planted one by one: every one of them must be found. Run with `python -m tests.mutants`.

Most were found in published code or are its class of bug; the rest are what one could easily get wrong here. A mutant
is a change of source text. It is planted while its module is imported in a process of its own, and the tests named
beside it run until the first one fails; nothing is written to disk. A change whose text is no longer in the file is
an error of this catalogue, and so is a mutant that cannot even be imported.
"""

from __future__ import annotations

import contextlib
import importlib.machinery
import importlib.util
import io
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXACT, GREEDY, ACCOUNTING = "tests/test_exact.py", "tests/test_greedy.py", "tests/test_accounting.py"
EARLY, PARALLEL, METHODS = "tests/test_early_exit.py", "tests/test_non_autoregressive.py", "tests/methods/test_"
VERIFY, SAMPLING, GENERATION = "tests/test_core_verify.py", "tests/test_core_sampling.py", "tests/test_core_generation.py"
CACHE, MODEL, TREE = "tests/test_core_cache.py", "tests/test_core_model.py", "tests/test_core_tree.py"

verify, sampling, generation = "core/verify.py", "core/sampling.py", "core/generation.py"
cache, model, tree = "core/cache.py", "core/model.py", "core/tree.py"
leviathan = "speculative_decoding/speculative_decoding_leviathan.py"
chen = "speculative_decoding/speculative_sampling_chen.py"
blockwise = "speculative_decoding/blockwise_parallel_decoding.py"
calm, mask_predict = "early_exiting/calm.py", "non_autoregressive/mask_predict.py"
transformers, seq2seq = "core/from_transformers.py", "core/seq2seq.py"


@dataclass(frozen=True)
class Mutant:
    """Replace `old` by `new` in `file`; `tests` (pytest arguments, the quickest killer first) must notice."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


def suite(path: str, method: str) -> str:
    """The proofs of one method in a test file."""
    return f"{path}::{method}"


M = Mutant
CATALOGUE = [
    # Laws and acceptance.
    M("resample-from-p", verify, "rest / mass, p)", "p, p)", (VERIFY, EXACT)),
    M("residual-not-clamped", verify, "(p - q).clamp(min=0)", "(p - q).abs()", (VERIFY, EXACT)),
    M("residual-not-normalised", verify, "rest / mass, p)", "rest, p)", (VERIFY,)),
    M("ratio-upside-down", verify,
      "p[:-1].gather(-1, drawn) / (lenience * q.gather(-1, drawn))",
      "lenience * q.gather(-1, drawn) / p[:-1].gather(-1, drawn)", (VERIFY,)),
    M("lenient-by-default", verify, "lenience: float = 1.0", "lenience: float = 0.5", (VERIFY,)),
    M("lenient-by-default-in-the-method", leviathan, "lenience: float = 1.0", "lenience: float = 0.5", (EXACT,)),
    M("accept-after-a-rejection", verify, ".cumprod(0).sum()", ".sum()", (VERIFY, EXACT)),
    M("bonus-token-from-the-wrong-row", verify, "sampler.draw(rest[kept])", "sampler.draw(rest[kept - 1])", (VERIFY,)),
    M("laws-one-place-late", verify, "p[:-1].gather", "p[1:].gather", (VERIFY,)),
    M("any-draft-length", verify, "if gamma < 1:", "if gamma < 0:", (VERIFY, ACCOUNTING)),
    M("any-vocabulary", verify, "if len(set(sizes)) > 1:", "if len(set(sizes)) > 9:", (ACCOUNTING,)),
    # Chance.
    M("one-random-number-for-all-places", sampling,
      "return self._uniform(probability.double()) < probability",
      "return self._uniform(probability.double().sum()) < probability", (SAMPLING,)),
    M("one-random-number-for-all-draws", sampling,
      "self._uniform(total) * total", "self._uniform(total.sum()) * total", (SAMPLING,)),
    M("accept-the-other-way-round", sampling, ") < probability", ") > probability", (SAMPLING,)),
    M("greedy-by-argmax-over-soft-laws", sampling,
      "return torch.where(logits.gather(-1, best).isfinite(), hot, torch.nan)",
      "return logits.softmax(-1) + 0 * hot", (SAMPLING, GREEDY)),
    M("temperature-multiplies", sampling, "logits / self.temperature", "logits * self.temperature", (SAMPLING,)),
    M("temperature-ignored", sampling, "logits / self.temperature", "logits / 1.0", (SAMPLING,)),
    M("top-p-one-token-short", sampling, "before = best_first.cumsum(-1) - best_first",
      "before = best_first.cumsum(-1)", (SAMPLING,)),
    M("top-p-one-token-long", sampling, "before < self.top_p *", "before - best_first < self.top_p *", (SAMPLING,)),
    M("top-k-off-by-one", sampling, "p.topk(self.top_k).values", "p.topk(self.top_k + 1).values", (SAMPLING,)),
    M("law-not-renormalised", sampling, "return p / p.sum(-1, keepdim=True)", "return p", (SAMPLING,)),
    M("draw-left-of-the-boundary", sampling, "* total, right=True)", "* total, right=False)", (SAMPLING,)),
    M("global-random-state", sampling, "generator=generator, ", "", (SAMPLING, ACCOUNTING)),
    M("seed-ignored", sampling, "manual_seed(self.seed)", "manual_seed(0)", (SAMPLING, ACCOUNTING)),
    M("broken-model-hidden", sampling, "torch.where(total > 0, token, -1)", "token.clamp(max=1)", (SAMPLING, ACCOUNTING)),
    # Cache and state.
    M("crop-one-short", cache, "min(n, length) for", "min(n, max(length - 1, 0)) for", (CACHE,)),
    M("crop-one-long", cache, "min(n, length) for", "min(n, length + 1) for", (CACHE,)),
    M("crop-lengthens-a-lagging-layer", cache, "[min(n, length) for n in self._lengths]",
      "[length for n in self._lengths]", (CACHE,)),
    M("keep-the-first-slots-not-the-path", cache, "self._store.index_select(3, rows)",
      "self._store[:, :, :, length:end].clone()", (CACHE, TREE)),
    M("keep-from-the-start", cache, "dtype=torch.long) + length", "dtype=torch.long)", (CACHE,)),
    M("growth-loses-the-past", cache, "self._store[:, :, :, : old.shape[3]] = old", "pass", (CACHE,)),
    M("length-of-the-longest-layer", cache, "return min(self._lengths)", "return max(self._lengths)", (CACHE,)),
    M("fresh-cache-shared", model, "return Cache(shape.layers,",
      "return self.__dict__.setdefault('_kept', None) or self.__dict__.update(_kept=Cache(shape.layers,", ())
    if False else
    M("target-cache-one-short", leviathan, "target_cache.crop(len(tokens) - 1)", "target_cache.crop(len(tokens))",
      (GREEDY, EXACT)),
]
