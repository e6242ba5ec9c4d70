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

EXACT, GREEDY, ACCOUNTING = "test_exact.py", "test_greedy.py", "test_accounting.py"
EARLY, PARALLEL, SEQ2SEQ = "test_early_exit.py", "test_non_autoregressive.py", "test_seq2seq.py"
VERIFY, SAMPLING, GENERATION = "test_core_verify.py", "test_core_sampling.py", "test_core_generation.py"
CACHE, MODEL, TREE, TRANSFORMERS = (
    "test_core_cache.py",
    "test_core_model.py",
    "test_core_tree.py",
    "test_core_transformers.py",
)

LEVIATHAN = "speculative_decoding/speculative_decoding_leviathan"
CHEN = "speculative_decoding/speculative_sampling_chen"
BLOCKWISE = "speculative_decoding/blockwise_parallel_decoding"
LAYERSKIP = "early_exiting/layerskip"
CALM, MASK_PREDICT = "early_exiting/calm", "non_autoregressive/mask_predict"


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
    return f"methods/test_{Path(module).name}.py"


# fmt: off
CATALOGUE = [Mutant(*row[:4], row[4:]) for row in (
    # Laws and acceptance
    ("resample-from-p", "core/verify", "rest / mass, p)", "p, p)", VERIFY),
    ("residual-not-clamped", "core/verify", "(p - q).clamp(min=0)", "(p - q).abs()", VERIFY),
    ("residual-not-normalised", "core/verify", "rest / mass, p)", "rest, p)", VERIFY),
    ("residual-of-equal-laws-undefined", "core/verify", "torch.where(mass > 0, rest / mass, p)", "rest / mass", VERIFY),
    ("accept-after-a-rejection", "core/verify", ".cumprod(0).sum()", ".sum()", VERIFY),
    ("bonus-token-from-the-wrong-row", "core/verify", "rest[kept]", "rest[kept - 1]", VERIFY),
    ("laws-one-place-late", "core/verify", "p[:-1].gather", "p[1:].gather", VERIFY),
    ("lenient-by-default-in-core", "core/verify", "lenience: float = 1.0", "lenience: float = 0.5", VERIFY),
    ("lenient-by-default", LEVIATHAN, "lenience: float = 1.0", "lenience: float = 0.5", EXACT),
    ("lenience-multiplies", "core/verify", "/ (lenience * q.", "* lenience / (q.", VERIFY),
    ("no-draft-length-is-wrong", "core/verify", "if gamma < 1:", "if gamma < 0:", VERIFY, ACCOUNTING),
    ("no-vocabulary-is-wrong", "core/verify", "if len(set(sizes)) > 1:", "if len(set(sizes)) > 9:", ACCOUNTING),
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
    ("temperature-ignored", "core/sampling", "logits / self.temperature", "logits / 1.0", SAMPLING),
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
    ("growth-loses-the-past", "core/cache", "self._store[:, :, :, : old.shape[3]] = old", "pass", CACHE),
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
    ("chunk-without-a-mask", "core/model", "if new == 1 or past == 0:", "if new >= 1:", MODEL),
    ("past-closed", "core/model", "F.pad(closed, (past, 0))", "F.pad(closed, (past, 0), value=float('-inf'))", MODEL),
    ("positions-ignored", "core/model", "if positions is not None:", "if False:", TREE, MODEL),
    ("every-call-starts-at-position-0", "core/model", "self._angles[0, start:end], self._angles[1, start:end]",
     "self._angles[0, :new], self._angles[1, :new]", MODEL),
    ("rotation-the-wrong-way", "core/model", "torch.cat((-sin, sin), -1)", "torch.cat((sin, -sin), -1)", TRANSFORMERS),
    ("tree-positions-by-index", "core/tree", "depths.append(depths[parent + roots] + 1)", "depths.append(i)", TREE),
    ("siblings-see-each-other", "core/tree", "visible[i] |= visible[parent + roots]", "visible[i, :i] = True", TREE),
    ("only-the-parent-is-seen", "core/tree",
     "visible[i] |= visible[parent + roots]", "visible[i, parent + roots] = True", TREE),
    ("unseen-tokens-at-one-position", "core/tree", "depths = list(range(roots))", "depths = [0] * roots", TREE),
    ("path-from-below", "core/tree", "return found[::-1]", "return found", TREE),
    ("angles-spoil-training", "core/model", "torch.inference_mode(False)", "torch.inference_mode(True)", MODEL),
    ("gate-and-up-swapped", "core/from_transformers", '("gate", "up")', '("up", "gate")', TRANSFORMERS),
    # Bookkeeping
    ("end-inside-a-draft-ignored", "core/generation",
     "if eos in step.emitted:", "if step.emitted and eos == step.emitted[-1]:", GENERATION),
    ("end-token-dropped", "core/generation", "step.emitted.index(eos) + 1", "step.emitted.index(eos)", GENERATION),
    ("limit-overrun", "core/generation", "room = limit - len(self.tokens)", "room = limit", GENERATION),
    ("kept-not-cut", "core/generation", "min(step.kept, len(step.emitted))", "step.kept", GENERATION),
    ("layers-not-cut", "core/generation", "step.layers[:room]", "step.layers", GENERATION),
    ("impossible-token-added", "core/generation", "if any(token < 0 for", "if any(token < -1 for", GENERATION),
    ("work-for-nothing", CHEN, "go_on = limit > 0", "go_on = True", ACCOUNTING),
    ("kept-count-off-by-one", LEVIATHAN,
     "Step(emitted, draft, kept=kept,", "Step(emitted, draft, kept=kept + 1,", ACCOUNTING),
    ("draft-passes-not-counted", LEVIATHAN, "draft_passes=gamma", "draft_passes=1", ACCOUNTING),
    ("prompt-overwritten", CHEN, "Generation(), list(prompt)", "Generation(), prompt", ACCOUNTING),
    # Drafts
    ("draft-by-argmax-judged-as-sampled", CHEN, "int(sampler.draw(q[-1]))", "int(q[-1].argmax())", EXACT),
    ("draft-judged-by-another-law", CHEN, "draft, q, p)", "draft, q.roll(1, 0), p)", EXACT),
    ("draft-from-the-raw-law", LEVIATHAN,
     "draft.append(int(sampler.draw(q[-1])))", "draft.append(int(sampler.draw(q[-1] ** 0.5)))", EXACT),
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
    ("confidence-without-the-gap", CALM, "float(best - second)", "float(best)", own(CALM)),
    ("classifier-read-for-no", CALM, "softmax(-1)[1]", "softmax(-1)[0]", own(CALM)),
    ("threshold-grows", CALM, "math.exp(-decay", "math.exp(decay", own(CALM)),
    ("calibration-goes-on-after-a-failure", CALM,
     "            break\n        chosen", "            continue\n        chosen", own(CALM)),
    ("layers-weighed-alike", CALM, "(layer + 1) * each", "each", own(CALM)),
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
    ("the-worst-candidate", MASK_PREDICT, "* chosen.values).argmax()", "* chosen.values).argmin()", own(MASK_PREDICT)),
    ("long-candidates-at-a-loss", MASK_PREDICT, "log_p.sum(-1) / lengths", "log_p.sum(-1)", own(MASK_PREDICT)),
    ("causal-canvas", MASK_PREDICT, "visible=(canvas != self.pad)[..., None, :]", "visible=None", own(MASK_PREDICT)),
    ("padding-visible", MASK_PREDICT,
     "(canvas != self.pad)[..., None, :]", "(canvas >= 0)[..., None, :]", own(MASK_PREDICT)),
    ("trained-on-observed-tokens", MASK_PREDICT,
     "target.masked_fill(masked, model.mask_id)", "target", own(MASK_PREDICT)),
    ("every-chunk-at-position-0", "core/seq2seq", "x = self.embed(canvas, past)", "x = self.embed(canvas, 0)", SEQ2SEQ),
    ("source-padding-visible", "core/seq2seq",
     "mask = None if real is None else", "mask = None if True else", SEQ2SEQ),
)]
# fmt: on


def patched(mutant: Mutant) -> tuple[Path, str]:
    """The file of a mutant and its changed text. Raises CatalogueError unless the change applies at one place."""
    file = ROOT / "reference_impls" / f"{mutant.module}.py"
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
        self.name = "reference_impls." + mutant.module.replace("/", ".")

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
