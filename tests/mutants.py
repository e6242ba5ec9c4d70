"""Known bugs, planted one by one: every one of them must be found. Run with `python -m tests.mutants`.

Many were found in published code; the others are what one could easily get wrong here. A mutant is a change of source
text, planted while its module is imported in a process of its own; nothing is written to disk. The tests named beside
it run until the first one fails. A change whose text is no longer in the file is an error of this catalogue, and so is
a mutant that does not even run.
"""

from __future__ import annotations

import contextlib
import importlib.abc
import importlib.machinery
import importlib.util
import io
import multiprocessing
import os
import signal
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PATIENCE = 60  # seconds after which a mutant that hangs counts as noticed
WORKERS = 2

EXACT, GREEDY, ACCOUNTING = "methods/test_exact.py", "methods/test_greedy.py", "methods/test_accounting.py"
EARLY, PARALLEL, SEQ2SEQ = "methods/test_early_exit.py", "methods/test_non_autoregressive.py", "core/test_seq2seq.py"
VERIFY, DRAFTING = "core/test_core_verify.py", "core/test_core_drafting.py"
SAMPLING, GENERATION = "core/test_core_sampling.py", "core/test_core_generation.py"
CHECKPOINTS, ALIGNED = "checkpoints/test_checkpoints.py", "training/test_alignment.py"
CACHE, MODEL, TREE, TRANSFORMERS = (
    "core/test_core_cache.py",
    "core/test_core_model.py",
    "core/test_core_tree.py",
    "core/test_core_transformers.py",
)
EXITS, LENGTHS, RESCORING = "core/test_core_exits.py", "core/test_core_lengths.py", "core/test_core_rescoring.py"

LEVIATHAN = "speculative_decoding/speculative_decoding_leviathan"
CHEN = "speculative_decoding/speculative_sampling_chen"
BLOCKWISE = "speculative_decoding/blockwise_parallel_decoding"
MEDUSA, BILD = "speculative_decoding/medusa", "speculative_decoding/bild"
LAYERSKIP = "early_exiting/layerskip"
FREE, SELF_DRAFT = "early_exiting/free", "speculative_decoding/self_speculative_decoding"
BLOCK_VERIFICATION = "speculative_decoding/block_verification"
EAGLE = "speculative_decoding/eagle"
SPECINFER, CASCADE = "speculative_decoding/specinfer", "speculative_decoding/cascade_speculative_drafting"
JACOBI = "non_autoregressive/jacobi_parallel_decoding"
CALM, MASK_PREDICT = "early_exiting/calm", "non_autoregressive/mask_predict"
NART_CRF, FERTILITY = "non_autoregressive/nart_crf", "non_autoregressive/nat_fertility"
ALIGNMENT = "training/alignment"
REST, TRIFORCE = "speculative_decoding/rest", "speculative_decoding/triforce"


class CatalogueError(Exception):
    """A mutant cannot be planted or run, so it proves nothing."""


@dataclass(frozen=True)
class Mutant:
    """Replace `old` by `new` in `module`; one of `tests` must notice. The quickest killer stands first."""

    name: str
    module: str
    old: str
    new: str
    tests: tuple[str, ...]

    @property
    def arguments(self) -> list[str]:
        """For pytest: the tests, of a method only its own, and never those that need trained models."""
        wanted = "not trained_models and not trained_target"
        if "/" in self.module and not self.module.startswith("core/"):
            name = Path(self.module).name
            wanted += f" and ({name} or {name.replace('_', '-')})"
        return [*(str(ROOT / "tests" / test) for test in self.tests), "-k", wanted]


def own(module: str) -> str:
    """The tests that are peculiar to a method."""
    return f"methods/{Path(module).parent.name}/test_{Path(module).name}.py"


# fmt: off
CATALOGUE = [Mutant(*row[:4], row[4:]) for row in (
    # Laws and acceptance
    ("resample-from-p", "core/verify", "rest / mass, p)", "p, p)", VERIFY),
    ("residual-not-clamped", "core/verify", "(p - q).clamp(min=0)", "(p - q).abs()", VERIFY),
    ("residual-not-normalised", "core/verify", "rest / mass, p)", "rest, p)", VERIFY),
    ("residual-of-equal-laws-undefined", "core/verify", "torch.where(mass > 0, rest / mass, p)", "rest / mass", VERIFY),
    ("accept-after-a-rejection", "core/verify", ".cumprod(0).sum()", ".sum()", VERIFY),
    ("bonus-token-from-the-wrong-row", "core/verify", "laws)[kept]", "laws)[kept - 1]", VERIFY),
    ("laws-one-place-late", "core/verify", "p[:-1].gather", "p[1:].gather", VERIFY),
    ("lenient-by-default-in-core", "core/verify", "lenience: float = 1.0", "lenience: float = 0.5", VERIFY),
    ("lenient-by-default", LEVIATHAN, "lenience: float = 1.0", "lenience: float = 0.5", EXACT),
    ("lenience-multiplies", "core/verify", "/ (lenience * laws", "* lenience / (laws", VERIFY),
    ("no-draft-length-is-wrong", "core/drafting", "if gamma < 1:", "if gamma < 0:", DRAFTING, ACCOUNTING),
    ("no-vocabulary-is-wrong", "core/drafting", "if len(set(sizes)) > 1:", "if len(set(sizes)) > 9:", ACCOUNTING),
    ("siblings-tried-against-the-same-law", "core/verify", "rest[rows] = residual(law, guess)", "pass", VERIFY),
    ("law-of-the-first-sibling-for-all", "core/verify", "guess = q[now]", "guess = q[now * 0]", VERIFY),
    ("node-checked-against-its-own-row", "core/verify", "[tree.parents[node] + 1 for", "[node + 1 for", VERIFY),
    ("extra-token-after-the-root", "core/verify", "rest[node + 1]", "rest[0]", VERIFY),
    ("extra-token-from-p", "core/verify", "sampler.draw(rest[node + 1])", "sampler.draw(p[node + 1])", VERIFY),
    ("chosen-nodes-always-kept", "core/verify", "law.gather(-1, x) / guess", "(law > 0).gather(-1, x) / guess", VERIFY),
    # Chance
    ("one-random-number-for-all-places", "core/sampling",
     "self._uniform(probability.double())", "self._uniform(probability.double().sum())", SAMPLING),
    ("one-random-number-for-all-draws", "core/sampling",
     "self._uniform(total) * total", "self._uniform(total.sum()) * total", SAMPLING),
    ("random-numbers-used-again", "core/sampling", "self._generators[like.device] = generator", "pass", SAMPLING),
    ("global-random-state", "core/sampling", "generator=generator, ", "", SAMPLING, ACCOUNTING),
    ("seed-ignored", "core/sampling", "manual_seed(self.seed)", "manual_seed(0)", SAMPLING),
    ("greedy-by-soft-laws", "core/sampling", "if self.temperature == 0:", "if self.temperature < 0:", SAMPLING),
    ("temperature-ignored", "core/sampling", "logits.to(wide) / self.temperature", "logits.to(wide) / 1.0", SAMPLING),
    ("top-p-one-token-short", "core/sampling", ".cumsum(-1) - best_first", ".cumsum(-1)", SAMPLING),
    ("top-p-one-token-long", "core/sampling", ".cumsum(-1) - best_first", ".cumsum(-1) - 2 * best_first", SAMPLING),
    ("top-k-one-token-long", "core/sampling", "p.topk(self.top_k)", "p.topk(self.top_k + 1)", SAMPLING),
    ("law-not-renormalised", "core/sampling", "return p / p.sum(-1, keepdim=True)", "return p", SAMPLING),
    ("draw-what-is-impossible", "core/sampling", "* total, right=True)", "* total, right=False)", SAMPLING),
    ("broken-model-hidden", "core/sampling", "torch.where(total > 0, token, -1)", "token.clamp(max=1)", SAMPLING),
    # Cache and state
    ("cache-rolled-back-one-short", "core/cache", "min(n, length) for", "min(n, length + 1) for", CACHE),
    ("crop-lengthens-layers-that-lag", "core/cache", "[min(n, length) for", "[length for", CACHE),
    ("keep-the-first-slots", "core/cache", "index_select(3, rows)", "narrow(3, length, len(path)).clone()", TREE),
    ("keep-from-the-start", "core/cache", "dtype=torch.long) + length", "dtype=torch.long)", CACHE),
    ("growth-loses-the-past", "core/cache", "new[:, :, :, : old.shape[3]] = old", "pass", CACHE),
    ("length-of-the-longest-layer", "core/cache", "return min(self._lengths)", "return max(self._lengths)", CACHE),
    ("target-cache-keeps-a-rejected-token", LEVIATHAN,
     "target_cache.crop(len(tokens) - 1)", "target_cache.crop(len(tokens))", GREEDY),
    ("draft-cache-keeps-a-rejected-token", LEVIATHAN,
     "draft_cache.crop(len(tokens) - 1)", "draft_cache.crop(len(tokens))", GREEDY),
    ("draft-cache-never-rolled-back", CHEN, "draft_cache.crop(len(tokens) - 1)", "pass", GREEDY),
    ("upper-layers-start-from-the-newest-state", LAYERSKIP, "torch.cat(states)", "states[-1]", GREEDY),
    ("lower-layers-run-again", LAYERSKIP, "target.run(torch.cat(states), cache, layers=upper)",
     "target.run(target.embed(draft), layers=lower)", GREEDY),
    ("lower-layers-keep-a-rejected-token", LAYERSKIP,
     "cache.crop(len(tokens) - 1)", "cache._lengths[-1] = len(tokens) - 1", GREEDY),
    ("guess-read-from-the-wrong-layer", LAYERSKIP, "laws.append(sampler.probs(target.logits(states[-1][-1])))",
     "laws.append(sampler.probs(target.logits(states[0][-1])))", EXACT, own(LAYERSKIP)),
    ("dropout-of-whole-batches", LAYERSKIP, "torch.rand(len(x), generator", "torch.rand(1, generator", own(LAYERSKIP)),
    ("first-layer-dropped", LAYERSKIP, "math.log(2) / max(1, layers - 1)) - 1)",
     "math.log(2) / max(1, layers - 1)))", own(LAYERSKIP)),
    ("exits-never-rotate", LAYERSKIP, "step % every}", "0}", own(LAYERSKIP)),
    # Masks and positions
    ("mask-computed-and-not-passed", "core/model",
     "attention_mask(visible, past, x.", "attention_mask(None, past, x.", TREE),
    ("chunk-without-a-mask", "core/layers", "if new == 1 or past == 0:", "if new >= 1:", MODEL),
    ("past-closed", "core/layers", "F.pad(closed, (past, 0))", "F.pad(closed, (past, 0), value=float('-inf'))", MODEL),
    ("positions-ignored", "core/model",
     "slice(start, end) if positions is None else", "slice(start, start + new) if True else", TREE, MODEL),
    ("every-call-starts-at-position-0", "core/model", "slice(start, end) if", "slice(0, new) if", MODEL),
    ("rotation-the-wrong-way", "core/model", "torch.cat((-sin, sin), -1)", "torch.cat((sin, -sin), -1)", TRANSFORMERS),
    ("tree-positions-by-index", "core/tree", "depths.append(depths[parent + roots] + 1)", "depths.append(i)", TREE),
    ("siblings-see-each-other", "core/tree", "visible[i] |= visible[parent + roots]", "visible[i, :i] = True", TREE),
    ("only-the-parent-is-seen", "core/tree",
     "visible[i] |= visible[parent + roots]", "visible[i, parent + roots] = True", TREE),
    ("unseen-tokens-at-one-position", "core/tree", "depths = list(range(roots))", "depths = [0] * roots", TREE),
    ("path-from-below", "core/tree", "return found[::-1]", "return found", TREE),
    ("angles-spoil-training", "core/model", "torch.inference_mode(False)", "torch.inference_mode(True)", MODEL),
    ("gate-and-up-swapped", "core/from_transformers", '("gate", "up")', '("up", "gate")', TRANSFORMERS),
    ("query-and-key-norms-swapped", "core/from_transformers",
     "q.expand(shape.heads, 1, -1), k.expand", "k.expand(shape.heads, 1, -1), q.expand", TRANSFORMERS),
    ("attention-scaling-lost", "core/model", "if shape.rope_scale != 1:", "if shape.rope_scale < 0:", TRANSFORMERS),
    ("padding-kept", "core/from_transformers", "known or shape.vocab", "shape.vocab", CHECKPOINTS),
    ("vocabularies-compared-by-size", "checkpoints/reading",
     "if ours.get(token) != theirs.get(token)", "if len(ours) != len(theirs)", CHECKPOINTS),
    # Bookkeeping
    ("end-inside-a-draft-ignored", "core/generation",
     "if is_end(token, eos)), room", "if is_end(token, eos) and i + 1 == len(step.emitted)), room", GENERATION),
    ("end-token-dropped", "core/generation", "next((i + 1 for", "next((i for", GENERATION),
    ("limit-overrun", "core/generation", "room = limit - len(self.tokens)", "room = limit", GENERATION),
    ("kept-not-cut", "core/generation", "min(step.kept, len(step.emitted))", "step.kept", GENERATION),
    ("layers-not-cut", "core/generation", "step.layers[: min(stop, room)]", "step.layers", GENERATION),
    ("impossible-token-added", "core/generation", "if any(token < 0 for", "if any(token < -1 for", GENERATION),
    ("work-for-nothing", CHEN, "go_on = limit > 0", "go_on = True", ACCOUNTING),
    ("kept-count-off-by-one", LEVIATHAN,
     "Step(emitted, draft, kept=kept,", "Step(emitted, draft, kept=kept + 1,", ACCOUNTING),
    ("draft-passes-not-counted", LEVIATHAN, "draft_passes=len(draft)", "draft_passes=1", ACCOUNTING),
    ("prompt-overwritten", CHEN, "Generation(), list(prompt)", "Generation(), prompt", ACCOUNTING),
    # Drafts
    ("draft-by-argmax-judged-as-sampled", "core/drafting", "int(sampler.draw(q[-1]))", "int(q[-1].argmax())",
     DRAFTING, EXACT),
    ("draft-judged-by-another-law", CHEN, "draft, q, p)", "draft, q[::-1], p)", EXACT),
    ("draft-from-the-raw-law", "core/drafting", "int(sampler.draw(q[-1]))", "int(sampler.draw(q[-1] ** 0.5))",
     DRAFTING, EXACT),
    ("chain-that-starts-anew", "core/drafting", "drafter(text[len(cache) :]", "drafter(text[len(tokens) - 1 :]",
     DRAFTING, GREEDY),
    ("broken-drafter-not-named", "core/drafting", "token < 0 for token", "token < -1 for token", DRAFTING, TREE),
    ("draft-past-the-last-position", "core/drafting", "positions + unread - length", "positions + 1 - length",
     DRAFTING),
    ("drafter-one-position-short", "core/drafting", "positions + unread - length", "positions - length", DRAFTING),
    ("room-below-nothing", "core/drafting", "max(0, gamma)", "gamma", DRAFTING),
    ("siblings-judged-by-the-whole-law", "core/drafting", "logits = rest.where(", "rest.where(", DRAFTING, EXACT),
    ("tokens-run-out-without-notice", "core/drafting",
     "rest.where(rest.amax(-1, keepdim=True) > -torch.inf, logits)", "rest", DRAFTING),
    ("siblings-always-drawn-again", "core/drafting", "if not replacement:", "if replacement:", DRAFTING),
    ("one-hot-with-more-than-one", "core/drafting", "tokens[..., None], 1.0", "tokens[..., None], 2.0",
     DRAFTING, VERIFY),
    ("prompt-under-a-mask", "core/tree", "if not self.tokens:", "if not roots:", TREE),
    ("accepted-tokens-drawn-again", LEVIATHAN, "[*draft[:kept], extra]", "[*draft[:kept][:1], extra]", GREEDY),
    # Blockwise parallel decoding
    ("heads-read-at-a-stale-place", BLOCKWISE, "heads(features[kept])", "heads(features[-1])", GREEDY),
    ("heads-learn-on-another-place", BLOCKWISE, "ahead[:, : tokens.shape[1] - i - 2]",
     "ahead[:, : tokens.shape[1] - i - 2].flip(1)", own(BLOCKWISE)),
    ("own-token-from-the-wrong-place", BLOCKWISE, "drawn[kept][None]", "drawn[-1][None]", GREEDY),
    ("guesses-compared-one-place-late", BLOCKWISE, "guess == drawn[:-1]", "guess == drawn[1:]", GREEDY),
    ("block-with-a-hole", BLOCKWISE, "passes.cumprod(0).sum()", "passes.sum()", GREEDY),
    ("block-cache-one-short", BLOCKWISE, "cache.crop(len(tokens) - 1)", "cache.crop(len(tokens))", GREEDY),
    ("top-2-by-default", BLOCKWISE, "top: int = 1", "top: int = 2", GREEDY),
    ("minimum-2-by-default", BLOCKWISE, "minimum: int = 1", "minimum: int = 2", GREEDY),
    ("heads-trained-one-token-early", BLOCKWISE, "tokens[:, i + 2 :]", "tokens[:, i + 1 : -1]", own(BLOCKWISE)),
    # Block verification
    ("weights-not-capped", BLOCK_VERIFICATION,
     "(w[-1] * ratio).clamp(max=1)", "w[-1] * ratio", own(BLOCK_VERIFICATION)),
    ("weights-of-single-tokens", BLOCK_VERIFICATION,
     "(w[-1] * ratio).clamp(max=1)", "w[-1] * ratio.clamp(max=1)", own(BLOCK_VERIFICATION)),
    ("weights-upside-down", BLOCK_VERIFICATION,
     "in p[:-1].gather(-1, drawn) / q.gather(-1, drawn)", "in q.gather(-1, drawn) / p[:-1].gather(-1, drawn)",
     own(BLOCK_VERIFICATION)),
    ("weights-one-place-late", BLOCK_VERIFICATION, "p[:-1].gather", "p[1:].gather", own(BLOCK_VERIFICATION)),
    ("block-ends-at-the-first-failure", BLOCK_VERIFICATION,
     "F.pad(passed, (1, 0)).amax()", "(passed > 0).cumprod(0).sum()",
     own(BLOCK_VERIFICATION)),
    ("all-that-passed-is-counted", BLOCK_VERIFICATION,
     "F.pad(passed, (1, 0)).amax()", "(passed > 0).sum()", own(BLOCK_VERIFICATION)),
    ("weight-taken-for-its-test", BLOCK_VERIFICATION, "sampler.accept(h[1:])", "sampler.accept(w[1:])",
     own(BLOCK_VERIFICATION)),
    ("tests-one-place-early", BLOCK_VERIFICATION, "sampler.accept(h[1:])", "sampler.accept(h[:-1])",
     own(BLOCK_VERIFICATION)),
    ("missing-mass-unweighted", BLOCK_VERIFICATION, "(weighted - laws).clamp(min=0)", "(p - laws).clamp(min=0)",
     own(BLOCK_VERIFICATION)),
    ("residual-of-single-tokens", BLOCK_VERIFICATION, "residual(weighted, laws)", "residual(p, laws)",
     own(BLOCK_VERIFICATION)),
    ("equal-laws-divide-by-zero", BLOCK_VERIFICATION,
     ".clamp(min=torch.finfo(p.dtype).tiny)", "", own(BLOCK_VERIFICATION)),
    ("block-target-cache-keeps-a-rejected-token", BLOCK_VERIFICATION,
     "target_cache.crop(len(tokens) - 1)", "target_cache.crop(len(tokens))", EXACT, GREEDY),
    ("block-draft-cache-keeps-a-rejected-token", BLOCK_VERIFICATION,
     "draft_cache.crop(len(tokens) - 1)", "draft_cache.crop(len(tokens))", EXACT, GREEDY),
    # Jacobi parallel decoding
    ("token-after-the-agreement-not-final", JACOBI, "kept = agreement(guess, y)",
     "kept = max(0, agreement(guess, y) - 1)", own(JACOBI)),
    ("one-token-retired-a-pass", JACOBI, "kept = agreement(guess, y)", "kept = 0", own(JACOBI)),
    ("last-iterate-committed", JACOBI, "emitted, y = y[: kept + 1], y[kept + 1 :]",
     "emitted, y = y, []", own(JACOBI)),
    ("wrong-tokens-that-agree-later", JACOBI, "sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(",
     "sum(one == other for one, other in (zip(", own(JACOBI)),
    ("iterate-forgotten", JACOBI, "y = y or [pad] *", "y = [pad] *", own(JACOBI)),
    ("open-tokens-left-in-the-cache", JACOBI, "cache.crop(len(tokens) - 1)", "pass", own(JACOBI)),
    ("cache-holds-the-newest-token", JACOBI, "cache.crop(len(tokens) - 1)", "cache.crop(len(tokens))", own(JACOBI)),
    ("everything-computed-again", JACOBI, "cache.crop(len(tokens) - 1)", "cache.crop(0)", own(JACOBI)),
    ("block-beyond-the-limit", JACOBI, "return min(block, limit - done)", "return block", own(JACOBI)),
    ("hybrid-never-ends-its-blocks", JACOBI, "if done < stretch else 1", "if done < stretch else block", own(JACOBI)),
    ("canvas-without-the-open-tokens", JACOBI, "[*result.tokens, *(y if go_on else [])]", "[*result.tokens]",
     own(JACOBI)),
    ("canvas-beyond-the-end", JACOBI, "*(y if go_on else [])]", "*y]", own(JACOBI)),
    # Medusa
    ("heads-read-at-the-parent-of-the-last-node", MEDUSA,
     "features[path[-1] + 1 if path else 0]", "features[path[-1] if path else 0]", GREEDY),
    ("heads-read-at-the-last-row", MEDUSA, "features[path[-1] + 1 if path else 0]", "features[-1]", GREEDY),
    ("keys-of-the-first-nodes", MEDUSA,
     "cache.keep(len(tokens), path)", "cache.crop(len(tokens) + len(path))", GREEDY, own(MEDUSA)),
    ("tree-of-siblings-in-a-row", MEDUSA, "positions=len(cache) + depths, ", "", GREEDY),
    ("branches-see-each-other", MEDUSA, "visible=visible)[-len", "visible=None)[-len", GREEDY),
    ("always-the-best-rank", MEDUSA, "ranks + path[-1] for path", "ranks for path", own(MEDUSA)),
    ("ranks-of-the-head-before", MEDUSA, "(len(path) - 1) * ranks", "max(0, len(path) - 2) * ranks", own(MEDUSA)),
    ("rank-too-few", MEDUSA, "max(planned.tokens) + 1", "max(1, max(planned.tokens))", own(MEDUSA), EXACT),
    ("accuracies-added", MEDUSA, "(chance * own, (*path, rank))", "(chance - own, (*path, rank))", own(MEDUSA)),
    ("accuracy-of-the-last-rank-alone", MEDUSA, "(chance * own, (*path, rank))", "(-own, (*path, rank))", own(MEDUSA)),
    ("typical-by-default", MEDUSA, 'acceptance: Acceptance = "exact"', 'acceptance: Acceptance = "typical"', EXACT),
    ("floor-is-the-larger", MEDUSA, ".clamp(max=epsilon)", ".clamp(min=epsilon)", own(MEDUSA)),
    ("entropy-the-wrong-way-round", MEDUSA, "(-torch.special.entr(p)", "(torch.special.entr(p)", own(MEDUSA)),
    ("plausible-by-its-own-law", MEDUSA, "chance > floor[parents]", "chance > floor[1:]", own(MEDUSA)),
    ("orphans-accepted", MEDUSA, "if parent in reached and log_p[node] > -torch.inf:",
     "if log_p[node] > -torch.inf:\n            reached.setdefault(parent, (9, 0.0))", own(MEDUSA)),
    ("shortest-path-wins", MEDUSA, "key=lambda node: reached[node]", "key=lambda node: -reached[node][0]", own(MEDUSA)),
    ("likelihood-ignored", MEDUSA, "before + log_p[node]", "-float(node)", own(MEDUSA)),
    ("likelihood-of-the-last-token", MEDUSA, "before + log_p[node]", "log_p[node]", own(MEDUSA)),
    ("broken-model-hidden-by-a-maximum", MEDUSA, ".where(p[last + 1].isfinite().all(), -1)", "", own(MEDUSA)),
    ("head-trained-one-token-early", MEDUSA, "tokens[:, i + 1 :]", "tokens[:, i:-1]", own(MEDUSA)),
    ("law-of-another-place", MEDUSA, "own[:, i:].flatten", "own[:, :-i].flatten", own(MEDUSA)),
    ("divergence-the-wrong-way-round", MEDUSA, "F.kl_div(log_q, log_p,", "F.kl_div(log_p, log_q,", own(MEDUSA)),
    ("heads-weighed-alike", MEDUSA, "base**i * each", "each", own(MEDUSA)),
    ("heads-counted-from-0", MEDUSA, "base**i * each", "base ** (i - 1) * each", own(MEDUSA)),
    ("residual-left-out", MEDUSA, "features[..., None, :] + inner", "inner", own(MEDUSA)),
    ("accuracy-one-place-early", MEDUSA, "guess[:, :-i] == wanted[:, i:, None]",
     "guess[:, : guess.shape[1] - i + 1] == wanted[:, i - 1 :, None]", own(MEDUSA)),
    # Big Little Decoder
    ("zero-threshold-becomes-the-default", BILD,
     "result, tokens = Generation(), list(prompt)",
     "result, tokens, rollback = Generation(), list(prompt), rollback or 5.0", own(BILD)),
    ("only-the-first-violation-is-compared", BILD,
     "(guess == own[:-1]) | ((distance <= rollback) & (rollback > 0))",
     "(far := distance > rollback) & (far.cumsum(0) == 1) & (guess == own[:-1])\n    stays = stays.any() | ~far",
     own(BILD)),
    ("rolled-back-although-the-target-agrees", BILD, "(guess == own[:-1]) | ", "", own(BILD)),
    ("what-rounds-to-certainty-is-kept", BILD, " & (rollback > 0)", "", own(BILD)),
    ("distance-of-the-next-place", BILD, "-logits[:-1].double()", "-logits[1:].double()", own(BILD)),
    ("rollback-to-the-last-violation", BILD, "stays.cumprod(0).sum()", "stays.sum()", own(BILD)),
    ("unsure-token-kept", BILD, "            if sure:\n", "            if True:\n", own(BILD)),
    ("fallback-the-wrong-way-round", BILD, ".max()) < fallback", ".max()) > fallback", own(BILD)),
    ("confidence-of-the-drawn-law", BILD, "logits.double().softmax(-1).max()", "sampler.probs(logits).max()",
     own(BILD)),
    ("window-without-a-cap", BILD, "room(len(tokens), gamma, target", "room(len(tokens), 99, target", own(BILD)),
    ("large-model-keeps-what-was-rolled-back", BILD,
     "target_cache.crop(len(tokens) - 1)", "target_cache.crop(len(tokens))", own(BILD)),
    ("small-model-keeps-what-was-rolled-back", BILD,
     "draft_cache.crop(len(tokens) - 1)", "draft_cache.crop(len(tokens))", own(BILD)),
    ("unsure-pass-not-counted", BILD, "draft_passes=asked", "draft_passes=len(draft)", ACCOUNTING, own(BILD)),
    ("large-model-does-not-continue", BILD, "[*draft[:count], extra]", "draft[:count] or [extra]", own(BILD)),
    ("aligned-on-another-place", BILD, "[:, start - 1 :]", "[:, : tokens.shape[1] - start]", own(BILD)),
    # EAGLE
    ("token-and-feature-of-one-place", EAGLE,
     "tokens[len(draft_cache) + 1 :]", "tokens[len(draft_cache) : -1]", GREEDY, own(EAGLE)),
    ("features-of-the-first-nodes", EAGLE,
     "len(unseen) + node for node in path", "len(unseen) + i for i, _ in enumerate(path)", GREEDY, own(EAGLE)),
    ("root-feature-of-an-older-token", EAGLE, "draft_cache, ahead[-1:]", "draft_cache, ahead[:1]", GREEDY, own(EAGLE)),
    ("drafted-features-not-forgotten", EAGLE, "draft_cache.crop(len(tokens) - 1)", "pass", GREEDY),
    ("target-cache-keeps-the-first-nodes", EAGLE,
     "cache.keep(len(tokens), path)", "cache.crop(len(tokens) + len(path))", own(EAGLE), GREEDY),
    ("siblings-judged-by-the-law-of-the-eldest", EAGLE, "laws[rows, ranks]", "laws[rows, 0]", EXACT),
    ("cousins-seen", EAGLE, "path[: len(other)] == other for other", "len(other) > 0 for other", own(EAGLE)),
    ("only-oneself-seen", EAGLE, "path[: len(other)] == other for other", "path == other for other", own(EAGLE)),
    ("guesses-one-place-late", EAGLE, "root + len(inner[0]) - 1)", "root + len(inner[0]))", own(EAGLE)),
    ("feature-of-an-aunt", EAGLE, "features[above]", "features[[0 for _ in above]]", own(EAGLE)),
    ("parents-mixed-up", EAGLE, "guesses[rows, ranks].tolist()", "guesses[rows[::-1], ranks].tolist()", own(EAGLE)),
    ("predicted-features-normalised-again", EAGLE,
     "siblings(sampler, target.project(features)", "siblings(sampler, target.logits(features)", own(EAGLE), EXACT),
    ("one-draft-pass-counted-per-node", EAGLE,
     "draft_passes = len(choices[-1])", "draft_passes = len(choices)", ACCOUNTING),
    ("tree-without-its-elder-siblings", EAGLE, "elder not in nodes", "elder[:-1] and elder not in nodes", own(EAGLE)),
    ("trained-without-noise", EAGLE, "features[:, :-1] + shake", "features[:, :-1]", own(EAGLE)),
    ("noise-on-one-side", EAGLE, "uniform_(-noise, noise", "uniform_(0, noise", own(EAGLE)),
    ("trained-on-the-same-place", EAGLE,
     "drafter(target, tokens[:, 1:], features", "drafter(target, tokens[:, :-1], features", own(EAGLE)),
    ("regression-alone", EAGLE, "+ weight * surprise", "+ 0 * weight * surprise", own(EAGLE)),
    # REST
    ("suffixes-sorted-by-two-tokens", REST, "        width *= 2\n", "        break\n", own(REST)),
    ("shortest-match-first", REST, "range(min(longest, len(context)), 0, -1)",
     "range(1, min(longest, len(context)) + 1)", own(REST)),
    ("continuation-begins-with-the-match", REST, "torch.arange(n, n + gamma,", "torch.arange(n - 1, n - 1 + gamma,",
     own(REST)),
    ("rarest-continuations", REST, "descending=True, stable=True", "descending=False, stable=True", own(REST)),
    ("prefixes-told-apart-by-their-last-token", REST, "(rows[1:] != rows[:-1]).cumsum(1) > 0",
     "rows[1:] != rows[:-1]", own(REST)),
    ("end-of-the-datastore-guessed", REST, "rows[start, depth] >= 0", "rows[start, depth] >= -1", own(REST)),
    ("nodes-kept-in-order", REST, "cache.keep(len(tokens), path)", "cache.crop(len(tokens) + len(path))", own(REST)),
    ("nodes-placed-in-a-row", REST, "positions = [*unseen, *tree.tokens], len(cache) + depths",
     "positions = [*unseen, *tree.tokens], len(cache) + torch.arange(len(depths))",
     own(REST)),
    ("draw-again-after-a-mismatch", REST, "path, extra = verify_tree(sampler, tree, p)",
     "path, _ = verify_tree(sampler, tree, p); extra = int(sampler.draw(p[path[-1] + 1 if path else 0]))", EXACT),
    ("datastore-of-any-tokenizer", REST, "(datastore.tokens >= vocab).any()", "False", own(REST)),
    # TriForce
    ("middle-level-redraws-from-its-whole-law", TRIFORCE, "        draft += [*guesses[:kept], extra]",
     "        extra = int(sampler.draw(p[kept]))\n        draft += [*guesses[:kept], extra]", EXACT),
    ("top-level-judges-by-the-drafters-law", TRIFORCE, "p_hat += p[: kept + 1]",
     "p_hat += [*q[:kept], p[kept]]", EXACT),
    ("partial-cache-keeps-rejected-tokens", TRIFORCE, "for level in (middle, window):", "for level in (window,):",
     own(TRIFORCE)),
    ("window-keeps-rejected-tokens", TRIFORCE, "    window.crop(length)\n", "", own(TRIFORCE)),
    ("full-cache-keeps-rejected-tokens", TRIFORCE, "full.crop(len(tokens) - 1)", "full.crop(len(tokens))",
     own(TRIFORCE)),
    ("sinks-stay-behind", TRIFORCE, "k[:, :sinks] = rotate(", "rotate(", own(TRIFORCE)),
    ("window-drops-the-newest", TRIFORCE, "*range(sinks + surplus, len(window.cache))",
     "*range(sinks, len(window.cache) - surplus)", own(TRIFORCE)),
    ("places-counted-in-the-cache", TRIFORCE, "positions=len(self) + ", "positions=len(self.cache) + ", own(TRIFORCE)),
    ("first-chunk-may-go", TRIFORCE, "score[..., :1] = torch.inf", "pass", own(TRIFORCE)),
    ("worst-chunks-retrieved", TRIFORCE, "score.argsort(descending=True)", "score.argsort()", own(TRIFORCE)),
    ("one-query-for-its-group", TRIFORCE, "(keys.shape[1], -1)).sum(2)", "(keys.shape[1], -1))[:, :, 0]",
     own(TRIFORCE)),
    ("query-of-a-rejected-token", TRIFORCE, "queries[:, :, kept]", "queries[:, :, -1]", own(TRIFORCE)),
    ("new-tokens-not-in-the-partial-cache", TRIFORCE, "newest = torch.arange(built, len(full)",
     "newest = torch.arange(len(full), len(full)", own(TRIFORCE)),
    ("budget-overrun", TRIFORCE, "min(built, budget - len(newest))", "built", own(TRIFORCE)),
    ("retrieved-once-and-for-all", TRIFORCE, "if len(full) - built >= stride or rate < threshold:", "if built < 0:",
     own(TRIFORCE)),
    ("drafting-passes-of-one-level", TRIFORCE, "passes += gamma + 1", "passes += gamma", ACCOUNTING),
    # Early exit
    ("threshold-the-wrong-way-round", CALM, "classifier) >= least", "classifier) < least", EARLY),
    ("propagation-of-an-earlier-state", CALM,
     "target.fill(x, cache,", "target.fill(x if previous is None else previous, cache,", EARLY),
    ("propagation-skips-a-layer", CALM, "layers=range(done, depth)", "layers=range(done + 1, depth)", EARLY),
    ("propagation-without-the-norm", "core/model",
     "project(block.attention_norm(x), turn)[1:]", "project(x, turn)[1:]", MODEL),
    ("propagation-at-position-0", "core/model", "self.turn(cache.length(layer), x.", "self.turn(0, x.", MODEL),
    ("depth-not-traced", CALM, "layers=[done]", "layers=[depth]", EARLY),
    ("exit-ignored", CALM, "                break\n", "                pass\n", EARLY),
    ("confidence-without-the-gap", "core/exits", "return best - second", "return best", EXITS, own(CALM)),
    ("loss-of-every-layer", "core/exits", "if depth in weights:", "if True:", EXITS),
    ("exits-counted-from-0", "core/exits", "enumerate(states, start=1)", "enumerate(states)", EXITS),
    ("decay-counts-the-prompt", CALM,
     "threshold_at(threshold, len(result.tokens)", "threshold_at(threshold, len(tokens)", own(CALM)),
    ("decay-by-the-threshold", CALM, "+ 0.1 * math.exp(", "+ 0.1 * threshold * math.exp(", own(CALM)),
    ("saturation-against-the-first-exit", CALM,
     "            previous = x\n", "            previous = x if previous is None else previous\n", own(CALM)),
    ("probe-learns-the-next-exit", CALM, "zip(states, best[:-1], strict=False):\n        agrees = (early == best[-1])",
     "zip(states, zip(best, best[1:]), strict=False):\n        agrees = (early[0] == early[1])", own(CALM)),
    ("bentkus-rounds-down", CALM, "math.ceil(n * mean - 1e-9)", "math.floor(n * mean + 1e-9)", own(CALM)),
    ("work-only-of-the-exit", FREE, "+ (deep - shallow) * stacked", "+ (deep - shallow)", own(FREE)),
    ("classifier-read-for-no", CALM, "softmax(-1)[1]", "softmax(-1)[0]", own(CALM)),
    ("threshold-grows", CALM, "math.exp(-decay", "math.exp(decay", own(CALM)),
    ("calibration-goes-on-after-a-failure", CALM,
     "            break\n        chosen", "            continue\n        chosen", own(CALM)),
    ("layers-weighed-alike", CALM, "{layer: float(layer)", "{layer: 1.0", own(CALM)),
    # FREE
    ("deep-layers-see-only-the-newest-token", FREE, "target.run(torch.cat(stack),", "target.run(stack[-1],", own(FREE)),
    ("exit-without-a-state-on-the-stack", FREE, "tokens.append(exited[-1])",
     "tokens.append(exited[-1]), stack.pop()", own(FREE)),
    ("stack-never-emptied", FREE, "stack, early, exited = [], [], []\n", "early, exited = [], []\n", own(FREE)),
    ("unsure-tokens-exit", FREE, "confidence(early[-1]) > threshold", "confidence(early[-1]) <= threshold", EARLY),
    ("early-tokens-read-from-the-embedding", FREE, "layers=range(exit_layer)))",
     "layers=range(exit_layer - 1)))", EARLY, own(FREE)),
    ("rollback-keeps-what-follows", FREE, "rollback).cumprod(0).sum()", "rollback).sum()", own(FREE)),
    ("rollback-of-the-cheap", FREE, "(costs <= rollback)", "(costs >= rollback)", own(FREE)),
    ("rolled-back-tokens-stay-in-the-cache", FREE, "cache.crop(len(tokens) - 1)", "pass", own(FREE)),
    ("token-after-the-rolled-back-one", FREE, "sampler.probs(logits[kept])", "sampler.probs(logits[-1])", own(FREE)),
    ("end-of-text-unchecked", FREE, " or any(is_end(token, eos) for token in exited)", "", own(FREE)),
    ("early-tokens-withheld-never-counted", FREE, "draft_passes=len(withheld), ", "", own(FREE)),
    ("pairs-of-the-last-token-alone", FREE,
     "pairs(torch.stack(early), logits)", "pairs(early[-1][None], logits[-1:])", own(FREE)),
    ("labels-overwritten-by-half", FREE, "trust: float = 1.0", "trust: float = 0.2", own(FREE)),
    ("agreement-and-disagreement-swapped", FREE, "torch.stack((~agrees, agrees))", "torch.stack((agrees, ~agrees))",
     own(FREE)),
    ("threshold-at-the-top-of-the-grid", FREE, "likely.int().argmax()", "-1", own(FREE)),
    ("exits-weighed-alike", FREE, "{exit_layer: float(exit_layer), depth: float(depth)}",
     "{exit_layer: 1.0, depth: 1.0}", own(FREE)),
    ("teachers-learn-from-students", FREE, "- 1].detach()", "- 1]", own(FREE)),
    ("teachers-one-layer-early", FREE, "depth // exit_layer - 1]", "depth // exit_layer - 2]", own(FREE)),
    ("layers-assigned-out-of-order", FREE, "row[: found[-1]] if found and found[-1] > 0", "row if found", own(FREE)),
    # SpecInfer
    ("children-picked-and-judged-as-drawn", "core/drafting", "sampler.draw(q[-1]))  # [rows]",
     "q[-1].argmax(-1))", DRAFTING, EXACT),
    ("repeated-children", SPECINFER, "different = dict.fromkeys(drawn)", "different = drawn", own(SPECINFER)),
    ("drafter-sees-its-tree-twice", SPECINFER, "        cache.crop(len(tokens) - 1)\n", "", own(SPECINFER)),
    ("paths-not-merged", SPECINFER, "if (above, token) not in known:", "if True:", own(SPECINFER)),
    ("votes-judged-at-the-wrong-node", SPECINFER, "p[[0, *(node + 1 for node in nodes)]]",
     "p[: len(nodes) + 1]", own(SPECINFER)),
    ("votes-taken-for-nodes", SPECINFER, "return [nodes[vote] for vote in found], extra",
     "return found, extra", own(SPECINFER)),
    ("target-keeps-the-first-nodes", SPECINFER,
     " cache.keep(len(tokens), path)", " cache.crop(len(tokens) + len(path))", GREEDY),
    ("drafters-keep-the-first-nodes", SPECINFER,
     "[slot for slot, node in enumerate(read) if node in path]", "range(min(len(read), len(path)))", own(SPECINFER)),
    ("drafters-forget-the-path", SPECINFER, "[slot for slot, node in enumerate(read) if node in path]", "[]",
     own(SPECINFER)),
    ("guesses-before-the-prompt-is-read", SPECINFER, " if result.steps else ()", "", own(SPECINFER)),
    ("passes-of-one-drafter", SPECINFER, "len(drafters) * len(widths)", "len(widths)", ACCOUNTING),
    ("boosting-on-what-is-known", SPECINFER, "torch.where(known, rest, 1.0)", "torch.where(known, 1.0, rest)",
     own(SPECINFER)),
    ("boosting-on-the-text", SPECINFER,
     "best = target(tokens).argmax(-1)", "best = tokens.roll(-1, -1)", own(SPECINFER)),
    ("boosting-after-all-missed", SPECINFER, ".any(0)", ".all(0)", own(SPECINFER)),
    # Cascade speculative drafting
    ("reviewers-law-handed-up", CASCADE, "t[: count + 1]", "q[: count + 1]", own(CASCADE)),
    ("lenience-at-the-target", CASCADE, "draft, laws, p)", "draft, laws, p, lenience)", own(CASCADE)),
    ("replaced-from-the-whole-law", CASCADE, "rest = residual(q, r)", "rest = q", own(CASCADE)),
    ("inner-review-goes-on-after-a-rejection", CASCADE, ".cumprod(0).sum()", ".sum()", own(CASCADE)),
    ("lenience-on-the-wrong-side", CASCADE, "logits.softmax(-1) > self.lenience * r",
     "self.lenience * logits.softmax(-1) > r", own(CASCADE)),
    ("lenience-by-the-tempered-law", CASCADE, "torch.where(logits.softmax(-1) >", "torch.where(q >", own(CASCADE)),
    ("inner-caches-not-rolled-back", CASCADE, "self.crop(len(text) + len(tokens) - 1, first=j)", "pass", own(CASCADE)),
    ("smaller-drafters-not-rolled-back", CASCADE,
     "self.caches[first:]", "self.caches[first : first + 1]", own(CASCADE)),
    ("drafters-not-rolled-back", CASCADE, "        cascade.crop(len(tokens) - 1)\n", "", GREEDY),
    ("row-of-the-target-for-all", CASCADE, "self.k_matrix[row][row:]", "self.k_matrix[0][row:]", own(CASCADE)),
    ("each-drafter-counts-alone", CASCADE, "wanted += count", "wanted = count", own(CASCADE)),
    ("max-gram-copies-the-match", CASCADE,
     "text[longest_match(text) :]", "text[longest_match(text) - 1 :]", own(CASCADE)),
    ("max-gram-copies-the-first-match", CASCADE, "if size[i] > longest:", "if size[i] >= longest:", own(CASCADE)),
    ("table-read-at-one-token", CASCADE, "guesses[-1] if guesses else text[-1]", "text[-1]", own(CASCADE)),
    ("inner-passes-not-counted", CASCADE, "self.passes += 1", "pass", ACCOUNTING),
    ("passes-of-all-steps-added-up", CASCADE, "cascade.passes = 0", "pass", ACCOUNTING),
    # Self-speculative decoding
    ("draft-keys-and-values-kept", SELF_DRAFT,
     "    cache.crop(len(tokens) - 1)\n    return draft, q", "    return draft, q", EXACT, own(SELF_DRAFT)),
    ("draft-rejected-but-not-forgotten", SELF_DRAFT,
     "        cache.crop(len(tokens) - 1)\n        go_on", "        go_on", own(SELF_DRAFT)),
    ("feed-forward-skipped-with-attention", SELF_DRAFT,
     "if layer not in skip_feed:", "if layer not in skip_feed and layer not in skip_attention:", own(SELF_DRAFT)),
    ("draft-at-the-position-of-the-shortest-layer", SELF_DRAFT,
     "target.turn(cache.length(layer), 1)", "target.turn(len(cache), 1)", own(SELF_DRAFT)),
    ("argmax-draft-judged-as-sampled", SELF_DRAFT, "drawn = sampler.draw(q)", "drawn = q.argmax(-1)", EXACT),
    ("unsure-token-dropped", SELF_DRAFT, "    return draft, q\n",
     "    return (draft[:-1], q[:-1]) if confidence < threshold else (draft, q)\n", own(SELF_DRAFT)),
    ("draft-never-ends-early", SELF_DRAFT, "(not draft or confidence >= threshold)", "True", own(SELF_DRAFT)),
    ("confidence-of-the-tempered-law", SELF_DRAFT, "logits.double().softmax(-1)[drawn]", "q.double()[drawn]",
     own(SELF_DRAFT)),
    ("threshold-never-moves", SELF_DRAFT, "threshold, rate = adapted(", "_, rate = adapted(", own(SELF_DRAFT)),
    ("threshold-moves-the-wrong-way", SELF_DRAFT, "if rate < goal", "if rate >= goal", own(SELF_DRAFT)),
    ("longest-draft-makes-it-bolder", SELF_DRAFT, "else threshold if longest else", "else", own(SELF_DRAFT)),
    ("acceptance-of-one-step-alone", SELF_DRAFT,
     "betas[0] * rate + (1 - betas[0]) * accepted", "accepted", own(SELF_DRAFT)),
    ("search-forgets-the-best", SELF_DRAFT, "best = max(trial, best, key=score)", "best = trial", own(SELF_DRAFT)),
    ("search-from-the-worst-start", SELF_DRAFT, "best = max((", "best = min((", own(SELF_DRAFT)),
    # Non-autoregressive generation
    ("fully-masked-never-trained", MASK_PREDICT,
     "(share * real.sum(-1)).long() + 1", "(share * (real.sum(-1) - 1)).long() + 1", own(MASK_PREDICT)),
    ("mask-count-by-float-truncation", MASK_PREDICT,
     "lengths * (iterations - t) // iterations", "(lengths * (1 - t / iterations)).long()", own(MASK_PREDICT)),
    ("observed-tokens-overwritten", MASK_PREDICT,
     "torch.where(masked, tokens, canvas)", "tokens", own(MASK_PREDICT)),
    ("observed-probabilities-refreshed", MASK_PREDICT,
     "torch.where(masked, certainty, log_p)", "certainty.where(canvas != model.pad, 0.0)", own(MASK_PREDICT)),
    ("the-surest-are-masked", MASK_PREDICT, "log_p.argsort(stable=True, dim=-1)",
     "log_p.argsort(stable=True, dim=-1, descending=True)", own(MASK_PREDICT)),
    ("one-pass-too-few", MASK_PREDICT,
     "for t in range(iterations):", "for t in range(max(1, iterations - 1)):", PARALLEL),
    ("no-token-masked-again", MASK_PREDICT, ".clamp(min=1)", ".clamp(min=0)", own(MASK_PREDICT)),
    ("mask-predicted", MASK_PREDICT, "[model.pad, model.mask_id]]", "[model.pad]]", own(MASK_PREDICT), PARALLEL),
    ("the-worst-candidate", MASK_PREDICT, "* length_scores).argmax()", "* length_scores).argmin()", own(MASK_PREDICT)),
    ("long-candidates-at-a-loss", MASK_PREDICT, "log_p.sum(-1) / lengths", "log_p.sum(-1)", own(MASK_PREDICT)),
    ("masks-of-another-candidate", MASK_PREDICT,
     "torch.stack(holes)[:, best, real[best]]", "torch.stack(holes)[:, 0, real[best]]", own(MASK_PREDICT)),
    ("causal-canvas", MASK_PREDICT, "visible=(canvas != self.pad)[..., None, :]", "visible=None", own(MASK_PREDICT)),
    ("padding-visible", MASK_PREDICT,
     "(canvas != self.pad)[..., None, :]", "(canvas >= 0)[..., None, :]", own(MASK_PREDICT)),
    ("trained-on-observed-tokens", MASK_PREDICT,
     "target.masked_fill(masked, model.mask_id)", "target", own(MASK_PREDICT)),
    # NAT with fertilities
    ("copied-one-place-late", FERTILITY, "place, right=True)", "place, right=False)", own(FERTILITY)),
    ("plan-never-cut", FERTILITY, ".clamp(max=limit)", "", own(FERTILITY)),
    ("plan-without-a-word", FERTILITY, "ends = ends.where(ends[:, -1:] > 0, 1)", "pass", own(FERTILITY)),
    ("place-sees-itself", FERTILITY, "~torch.eye(len(places), dtype=torch.bool, device=x.device) | alone",
     "torch.ones(len(places), len(places), dtype=torch.bool) | alone", own(FERTILITY)),
    ("lone-word-sees-nothing", FERTILITY, "device=x.device) | alone", "device=x.device)", own(FERTILITY), PARALLEL),
    ("no-positional-attention", FERTILITY, "x = x + reorder(", "x = x + 0 * reorder(", own(FERTILITY)),
    ("positional-attention-to-padding", FERTILITY,
     "reorder(x, where, seen)", "reorder(x, where, None)", own(FERTILITY)),
    ("positional-attention-keeps-off-itself", FERTILITY, "reorder(x, where, seen)",
     "reorder(x, where, seen_others)", own(FERTILITY)),
    ("copies-without-a-place", FERTILITY, "dim=-2) + places", "dim=-2)", own(FERTILITY)),
    ("fertility-end-predicted", FERTILITY, "[self.pad, self.end]]", "[self.pad]]", own(FERTILITY)),
    ("average-plan-rounded-down", FERTILITY, ".round().long()", ".long()", own(FERTILITY)),
    ("one-plan-drawn-for-all-samples", FERTILITY, "sampler.draw(sampler.probs(scores).expand(samples, -1, -1))",
     "sampler.draw(sampler.probs(scores)).expand(samples, -1)", own(FERTILITY)),
    ("the-teachers-worst-text", FERTILITY, "end=model.end).argmax())", "end=model.end).argmin())", own(FERTILITY)),
    ("texts-judged-by-their-mean", FERTILITY,
     "end=model.end).argmax())", "end=model.end).div(real.sum(-1) + 1).argmax())", own(FERTILITY)),
    ("end-of-text-not-judged", "core/rescoring", "+ laws[..., end]", "+ 0 * laws[..., end]", RESCORING, own(FERTILITY)),
    ("teacher-sees-what-it-judges", "core/rescoring", "F.pad(texts, (1, 0), value=end)",
     "F.pad(texts, (0, 1), value=end)", RESCORING),
    ("padding-judged", "core/rescoring", "words.where(real, 0).sum(-1)", "words.sum(-1)", RESCORING),
    ("teachers-pass-not-counted", FERTILITY, "best, passes = int(", "best, _ = int(", PARALLEL),
    ("teacher-hides-a-broken-model", FERTILITY, "if not certainty.isfinite().all()", "if False", PARALLEL),
    ("padding-has-a-fertility", FERTILITY, "scores[real], fertility[real].clamp(max=most)",
     "scores.flatten(0, 1), fertility.flatten().clamp(max=most)", own(FERTILITY)),
    ("reward-of-the-wrong-sign", FERTILITY, "(advantage * log_p)", "(-advantage * log_p)", own(FERTILITY)),
    ("reward-of-the-aligners-plan", FERTILITY, "model.write(inputs, drawn, memory)",
     "model.write(inputs, fertility, memory)", own(FERTILITY)),
    ("baseline-of-the-drawn-plan", FERTILITY, "average(scores) * real", "drawn", own(FERTILITY)),
    ("reward-centred-on-its-own-batch", FERTILITY,
     "(advantage * log_p)", "((advantage - advantage.mean()) * log_p)", own(FERTILITY)),
    ("teacher-of-the-true-text", FERTILITY, "taught, p, p.argmax(-1), places", "taught, p, target, places",
     own(FERTILITY)),
    ("alignments-of-padding-counted", ALIGNMENT, ".where((target != PAD)[:, :, None], 0)", "", ALIGNED),
    ("aligned-to-padding", ALIGNMENT, ".masked_fill(~source_real[:, None, :], -torch.inf)", "", ALIGNED),
    ("target-words-bring-forth-source-words", ALIGNMENT, "source[:, None, :] * vocab + target[:, :, None]",
     "target[:, :, None] * vocab + source[:, None, :]", ALIGNED),
    ("diagonal-shunned", ALIGNMENT, "-TENSION * distance", "TENSION * distance", ALIGNED),
    ("forward-by-the-best-path", NART_CRF, ".logsumexp(-2) + scores", ".amax(-2) + scores", own(NART_CRF)),
    ("transitions-transposed", NART_CRF, "left @ right.mT", "right @ left.mT", own(NART_CRF)),
    ("transition-of-the-step-before", NART_CRF, "(total[..., :, None] + moves[..., i - 1, :, :]).max(-2)",
     "(total[..., :, None] + moves[..., i - 2, :, :]).max(-2)", own(NART_CRF)),
    ("padding-moves-the-sum", NART_CRF,
     "total = torch.where(real[..., i, None], step, total)", "total = step", own(NART_CRF)),
    ("padding-moves-the-path", NART_CRF, "torch.where(here, step.indices, stay)", "step.indices", own(NART_CRF)),
    ("path-traced-from-one-place", NART_CRF, "came.gather(-1, path[-1])", "came.gather(-1, path[0])", own(NART_CRF)),
    ("reference-not-in-the-beam", NART_CRF,
     'logits.scatter(-1, gold[..., None], float("inf"))', "logits", own(NART_CRF)),
    ("one-matrix-for-all-places", NART_CRF, "if self.dynamic:", "if False:", own(NART_CRF)),
    ("transition-from-one-state", NART_CRF, "states[..., 1:, :]), -1)", "states[..., :-1, :]), -1)", own(NART_CRF)),
    ("filler-predicted", NART_CRF, "[self.pad, self.end]", "[self.end]", own(NART_CRF), PARALLEL),
    ("causal-fillers", NART_CRF, "visible=real[..., None, :]", "visible=None", own(NART_CRF)),
    ("fillers-of-padding-visible", NART_CRF,
     "visible=real[..., None, :]", "visible=torch.ones_like(real)[..., None, :]", own(NART_CRF)),
    ("length-of-the-source", NART_CRF, "len(source) + bias", "len(source)", own(NART_CRF)),
    ("lengths-to-one-side", "core/lengths", "middle - count // 2", "middle", LENGTHS, own(NART_CRF)),
    ("length-beyond-the-model", "core/lengths", ".clamp(1, longest)", ".clamp(min=1)", LENGTHS, own(NART_CRF)),
    ("the-unlikeliest-length", NART_CRF, "judged.argmax()", "judged.argmin()", own(NART_CRF)),
    ("lambda-of-a-tenth", NART_CRF, "weight: float = 0.5", "weight: float = 0.05", own(NART_CRF)),
    ("lambda-on-the-other-side", FERTILITY, "weight: float = 0.25", "weight: float = 0.75", own(FERTILITY)),
    ("teacher-pass-not-counted", NART_CRF, "passes=2 if teacher else 1", "passes=1", own(NART_CRF)),
    ("chain-alone-is-trained", NART_CRF, "chain.sum() + weight * words", "chain.sum()", own(NART_CRF)),
    ("sentences-weighed-alike", NART_CRF, "(chain.sum() + weight * words) / real.sum()",
     "(chain / real.sum(-1)).mean() + weight * words / real.sum()", own(NART_CRF)),
    ("every-chunk-at-position-0", "core/seq2seq", "x = self.embed(canvas, past)", "x = self.embed(canvas, 0)", SEQ2SEQ),
    ("source-padding-visible", "core/seq2seq",
     "mask = None if real is None else", "mask = None if True else", SEQ2SEQ),
)]
# fmt: on


def patched(mutant: Mutant) -> tuple[Path, str]:
    """The file of a mutant and its changed text. Raises CatalogueError unless the change applies at one place."""
    package = "accelgen" if mutant.module.startswith(("training/", "checkpoints/")) else "reference_impls"
    file = ROOT / package / f"{mutant.module}.py"
    text = file.read_text("utf-8")
    found = text.count(mutant.old)
    if found != 1:
        why = "does not apply any more" if not found else f"is ambiguous, it applies at {found} places"
        raise CatalogueError(f"mutant {mutant.name} {why}: {mutant.old!r} in {file.relative_to(ROOT)}")
    return file, text.replace(mutant.old, mutant.new)


class Planted(importlib.machinery.SourceFileLoader):
    """Loads a module from changed text, never from compiled code."""

    text = ""

    def get_code(self, fullname):
        return compile(self.text, self.get_filename(fullname), "exec")


class Planter(importlib.abc.MetaPathFinder):
    """Hands out the changed module and nothing else."""

    def __init__(self, mutant: Mutant) -> None:
        self.file, self.text = patched(mutant)
        self.name = ".".join(self.file.relative_to(ROOT).with_suffix("").parts)

    def find_spec(self, fullname, path=None, target=None):  # noqa: ARG002 - the interface of importlib
        if fullname != self.name:
            return None
        loader = Planted(fullname, str(self.file))
        loader.text = self.text
        return importlib.util.spec_from_file_location(fullname, self.file, loader=loader)


def _hung(*_: object) -> None:
    raise TimeoutError(f"no end after {PATIENCE} seconds")


def survives(mutant: Mutant) -> bool:
    """Plant a mutant in this process, which must be fresh, and say whether all its tests pass.

    Raises CatalogueError if it cannot be planted or the tests do not run.
    """
    import pytest

    sys.meta_path.insert(0, Planter(mutant))
    sys.path.insert(0, str(ROOT))
    if hasattr(signal, "SIGALRM"):
        signal.signal(signal.SIGALRM, _hung)
        signal.alarm(PATIENCE)
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        settings = ["-x", "-q", "--no-header", "-p", "no:cacheprovider", "-p", "no:xdist", "--rootdir", str(ROOT)]
        code = pytest.main([*settings, *mutant.arguments])
    if code not in {pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED}:
        last = "\n".join(output.getvalue().splitlines()[-12:])
        raise CatalogueError(f"mutant {mutant.name} does not run ({code!r}):\n{last}")
    return code == pytest.ExitCode.OK


def pool(workers: int = WORKERS) -> ProcessPoolExecutor:
    """A fresh process for each mutant, forked from one that has imported torch and pytest but not this project."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    context = multiprocessing.get_context(method)
    if method == "forkserver":
        context.set_forkserver_preload(["torch", "pytest", "pydantic", "yaml"])
    return ProcessPoolExecutor(workers, mp_context=context, max_tasks_per_child=1)


def main(names: list[str]) -> int:
    """Plant all mutants, or those named, and print what became of each."""
    chosen = [mutant for mutant in CATALOGUE if not names or mutant.name in names]
    unknown = set(names) - {mutant.name for mutant in chosen}
    if unknown:
        print(f"no mutant is called {', '.join(sorted(unknown))}", file=sys.stderr)
        return 2
    killed = 0
    with pool() as workers:
        running = {workers.submit(survives, mutant): mutant for mutant in chosen}
        for task in as_completed(running):
            name = running[task].name
            try:
                found = not task.result()
            except CatalogueError as error:
                print(f"error     {error}", flush=True)
                continue
            killed += found
            print(f"{'killed   ' if found else 'SURVIVED '} {name}", flush=True)
    print(f"planted {len(chosen)}, killed {killed}")
    return 0 if killed == len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
