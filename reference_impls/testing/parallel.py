"""Suite `non-autoregressive`: passes as asked for, a text without holes, an honest trace."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

from torch import nn

from reference_impls.testing.accounting import untouched
from reference_impls.testing.case import Scene
from reference_impls.testing.checks import Check, Subject, Suite, counted, guessed, later, named, require, total, trace
from reference_impls.testing.from_signature import KitError, hints, module_class, variants
from reference_impls.testing.refusals import REFUSED, refuses, values
from reference_impls.testing.tiny import END, sequence_model

SOURCES = ([5, 3, 8], [4], [7, 7, 10, 9, 6, 3, 5])
PASSES = (1, 2, 3, 5, 10)
LIMIT = 9  # tokens, as many as the models have places

Options = Mapping[str, Any]


def own_model(subject: Subject, seed: int = 7) -> Any:
    """A random model of the class that the subject's `model` is annotated with."""
    kind = module_class(hints(subject.generate).get("model"))
    if kind is None:
        raise KitError("generate has no `model` annotated with a class made from a Shape: annotate it")
    return sequence_model(kind, seed=seed)


def translated(
    subject: Subject, model: Any, source: Sequence[int], own: Options, *, limit: int = LIMIT, eos: int = END
) -> Any:
    """What the subject gives for a source. One that writes from left to right is given a limit and an end as well."""
    more = {name: value for name, value in (("limit", limit), ("eos", eos)) if subject.takes(name)}
    return subject.generate(model, list(source), **more, **own)


def _runs(subject: Subject, chosen: Options) -> Iterator[tuple[Any, Any, Counter[str], int]]:
    """Model, result, passes counted by decoder, and number asked for (0: the method has no such option)."""
    for seed in range(3):
        model = own_model(subject, seed)
        for guesses in (1, 3):
            own = subject.options(Scene(model, SOURCES[0], guesses), **chosen)
            decoders = {
                name: one.decoder[0] for name, one in {"model": model, **own}.items() if hasattr(one, "decoder")
            }
            for source in SOURCES:
                for asked in PASSES if subject.takes("iterations") else (0,):
                    more = {"iterations": asked} if asked else {}
                    with counted(**decoders) as calls:
                        result = translated(subject, model, source, own | more)
                    yield model, result, calls, asked


def _passes(subject: Subject, chosen: Options) -> None:
    for _, result, calls, asked in _runs(subject, chosen):
        drafts, said = calls.pop("drafter", 0), total(result, "draft_passes")
        require(drafts == said, f"the drafter ran {drafts} passes, the trace says {said}")
        ran, said = sum(calls.values()), total(result, "passes")
        require(ran == said, f"the decoder ran {ran} passes, the trace says {said}")
        require(not asked or ran == asked, f"{asked} iterations were asked for, the decoder ran {ran} passes")


def _no_hole(subject: Subject, chosen: Options) -> None:
    for model, result, _, _ in _runs(subject, chosen):
        special = {getattr(model, name) for name in ("pad", "mask_id") if hasattr(model, name)}
        left = special.intersection(result.tokens)
        require(not left, f"the special tokens {sorted(left)} are left in {result.tokens}")
        inside = all(0 <= token < model.shape.vocab for token in result.tokens)
        require(inside, f"{result.tokens} holds a token outside the vocabulary")
        require(1 <= len(result.tokens) <= model.longest, f"the text has {len(result.tokens)} tokens")


def _trace(subject: Subject, chosen: Options) -> None:
    for _, result, _, _ in _runs(subject, chosen):
        steps = trace(result, "emitted", "canvas")
        emitted = [token for step in steps for token in step.emitted]
        require(emitted == result.tokens, f"the steps emitted {emitted}, the text is {result.tokens}")
        for number, step in enumerate((step for step in steps if getattr(step, "drafted", ())), start=1):
            kept = step.emitted[: step.kept]
            found = len(kept) == step.kept and guessed(step.drafted, step.parents, kept)
            require(found, f"draft {number} says that {step.kept} of {step.emitted} were guessed: {step.drafted}")
        canvases = [step.canvas for step in steps if step.canvas]
        if canvases:
            require(canvases[-1] == result.tokens, f"the last canvas {canvases[-1]} is not the text {result.tokens}")
        json.dumps(result.to_dict())


def _more_passes(subject: Subject, chosen: Options) -> None:
    """Some run must change a token after the first pass, else the further passes are idle."""
    changed = 0
    for _, result, _, _ in _runs(subject, chosen):
        canvases = [step.canvas for step in trace(result, "canvas")]
        changed += any(a != b for a, b in pairwise(canvases))
    require(changed > 0, "no pass after the first has changed a token in any run")


def _untouched(subject: Subject, chosen: Options) -> None:
    model, source = own_model(subject), [5, 3, 8]
    own = subject.options(Scene(model, source), **chosen)
    with untouched(model=model, **own):
        results = [translated(subject, model, source, own) for _ in range(2)]
    require(results[0].tokens == results[1].tokens, "two runs gave different texts")
    require(source == [5, 3, 8], f"the source was changed to {source}")


def _refused(subject: Subject, chosen: Options, source: list[int], what: str, **given: Any) -> None:
    model = own_model(subject)
    own = subject.options(Scene(model, [5, 3, 8]), **{**chosen, **given})
    refuses(lambda: translated(subject, model, source, own), what)


def _bad_sources(subject: Subject, chosen: Options) -> None:
    for source in ([], [5, 11], [-1], [3] * 10):
        _refused(subject, chosen, source, f"the source {source}")


def _bad_weights(subject: Subject, chosen: Options) -> None:
    model = own_model(subject)
    own = subject.options(Scene(model, [5, 3, 8]), **chosen)
    nn.init.constant_(model.norm.weight, float("nan"))
    refuses(lambda: translated(subject, model, [5, 3, 8], own), "a model whose logits are NaN")


def _stranger(subject: Subject, chosen: Options, name: str) -> None:
    kind = module_class(hints(subject.generate).get(name))
    assert kind is not None
    stranger = sequence_model(kind, vocab=10)
    _refused(subject, chosen, [5, 3, 8], f"a {name} of another vocabulary", **{name: stranger})


def _ends(subject: Subject, chosen: Options) -> None:
    """A text that goes on from left to right can be cut anywhere, and what stands before the cut stays."""
    for seed in range(3):
        model = own_model(subject, seed)
        own = subject.options(Scene(model, SOURCES[0]), **chosen)
        for source in SOURCES:
            free = translated(subject, model, source, own).tokens
            for limit in range(LIMIT + 1):
                tokens = translated(subject, model, source, own, limit=limit).tokens
                require(tokens == free[:limit], f"with limit {limit} {free} becomes {tokens}")
            for eos in range(model.shape.vocab):
                tokens = translated(subject, model, source, own, eos=eos).tokens
                wanted = tokens.index(eos) + 1 if eos in tokens else LIMIT
                require(len(tokens) == wanted, f"{tokens} does not stop at its first {eos}, or else at {LIMIT} tokens")
    refuses(lambda: translated(subject, model, source, own, limit=LIMIT + 1), "a limit beyond the model's places")


def parallel_checks(subject: Subject) -> Iterator[Check]:
    """What holds for every method that translates in fewer passes than words, in every variant that it offers."""
    tests: dict[str, tuple[str, Callable[[Subject, Options], None]]] = {
        "passes": ("The decoder runs as many passes as asked for, and as the trace says.", _passes),
        "no-hole": ("No mask and no padding is left, and every token is of the vocabulary.", _no_hole),
        "trace": ("The trace sums up to the text, and the last canvas is the text.", _trace),
        "untouched": ("Weights, source and global random state stay; a second run gives the same.", _untouched),
        "sources": ("A source that is empty, too long or not of the vocabulary is refused.", _bad_sources),
        "logits": ("A model that gives NaN is reported.", _bad_weights),
    }
    if subject.takes("iterations"):
        tests["refinement"] = ("Passes after the first change tokens.", _more_passes)
    if subject.takes("limit"):
        tests["ends"] = ("A text stops at its limit or its end, and is the same up to there.", _ends)
    for other in filter(subject.takes, ("teacher", "drafter")):
        tests[other] = (f"A {other} of another vocabulary is refused.", partial(_stranger, name=other))
    for chosen in variants(subject.generate):
        for name, (sentence, test) in tests.items():
            yield Check(name + named(chosen), sentence, later(test, subject, chosen))
    for name, value in values(subject, REFUSED):
        refused = later(_refused, subject, {}, [5, 3, 8], f"{name} = {value!r}", **{name: value})
        yield Check(f"{name}={value}", f"{name} = {value} is refused.", refused)


NON_AUTOREGRESSIVE = Suite("non-autoregressive", parallel_checks)
