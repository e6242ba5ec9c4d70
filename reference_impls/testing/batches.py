"""Suite `batch`: whatever is mixed, every row is what it is alone, `generate(target, prompts, limits, *, …)`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import permutations
from typing import Any

from reference_impls.core.generation import Ends, Generation
from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler
from reference_impls.testing.accounting import each, untouched
from reference_impls.testing.case import Scene
from reference_impls.testing.checks import Check, Subject, Suite, counted, ending, later, require, total, trace
from reference_impls.testing.exactness import TOLERANCE, greedy
from reference_impls.testing.laws import autoregressive_law, exact_law, total_variation
from reference_impls.testing.refusals import refuses, values
from reference_impls.testing.tiny import broken, flat_model, varied_model

PROMPTS = ([5, 3, 8, 1], [2], [7, 7, 0, 4, 9, 6, 2])
MIXTURES = ((9, 9, 9), (1, 6, 3), (0, 4, 9), (7, 0, 0), (0, 0, 0))  # limits of the rows
BREAK = -1  # stands between two rows where both are one outcome


def _run(
    subject: Subject, target: Any, prompts: Sequence[Sequence[int]], limits: Sequence[int], sampler: Any, **more: Any
) -> list[Any]:
    own = subject.options(Scene(target, prompts[0] if prompts else [0]))
    found: list[Any] = subject.generate(
        target, [list(prompt) for prompt in prompts], list(limits), sampler=sampler, **own, **more
    )
    return found


def _alone(subject: Subject) -> None:
    target = varied_model()
    for order in permutations(range(len(PROMPTS))):
        prompts = [PROMPTS[i] for i in order]
        for limits in MIXTURES:
            rows = _run(subject, target, prompts, limits, Sampler(0))
            require(len(rows) == len(prompts), f"{len(prompts)} prompts gave {len(rows)} results")
            for prompt, limit, row in zip(prompts, limits, rows, strict=True):
                wanted, where = greedy(target, prompt, limit), f"after {prompt} among limits {list(limits)}"
                require(row.tokens == wanted, f"{row.tokens} is not what the row says alone, {wanted}, {where}")


def _ends(subject: Subject) -> None:
    target = varied_model()
    every = range(target.shape.vocab)
    for eos in (*every, *([token, *every[:token:2]] for token in every), frozenset(every[::3])):
        rows = _run(subject, target, PROMPTS, (9, 9, 5), Sampler(0), eos=eos)
        for prompt, limit, row in zip(PROMPTS, (9, 9, 5), rows, strict=True):
            wanted = greedy(target, prompt, limit, eos)
            require(row.tokens == wanted, f"with end token {eos!r}, {row.tokens} is not {wanted} after {prompt}")


def _law(subject: Subject, limits: Sequence[int], eos: Ends | None) -> None:
    """The joint law of two rows is the product of the laws that they have alone."""
    target, prompts = flat_model(), ([0, 1], [2, 1, 0])

    def joint(sampler: Sampler) -> Generation:
        one, other = _run(subject, target, prompts, limits, sampler, eos=eos)
        return Generation([*one.tokens, BREAK, *other.tokens])

    alone = [autoregressive_law(target, p, n, eos=eos) for p, n in zip(prompts, limits, strict=True)]
    wanted = {(*a, BREAK, *b): pa * pb for a, pa in alone[0].items() for b, pb in alone[1].items()}
    distance = total_variation(exact_law(joint), wanted)
    require(distance < TOLERANCE, f"the law of two rows is {distance:.2g} from the product of their own laws")


def _passes(subject: Subject) -> None:
    target = varied_model()
    for limits in MIXTURES:
        with counted(target=target.blocks[0]) as calls:
            rows = _run(subject, target, PROMPTS, limits, Sampler(0))
        said, ran = [total(row, "passes") for row in rows], calls["target"]
        require(ran >= max(said), f"the target ran {ran} passes, and a row's trace says {max(said)}")
        shared = sum(limit > 0 for limit in limits) > 1
        require(ran < sum(said) or not shared, f"{ran} passes for rows of {said}: the rows share none")
        require(ran <= sum(said), f"the target ran {ran} passes, and the rows' traces say {said}")


def _positions(subject: Subject) -> None:
    target, last = varied_model(), 12
    limits = [last + 1 - len(prompt) for prompt in PROMPTS]  # the last token is never read
    own = subject.options(Scene(target, PROMPTS[0]))
    models = [one for one in each(own.values()) if isinstance(one, LanguageModel)]
    with ending(last, target, *models) as needed:
        rows = subject.generate(target, [list(prompt) for prompt in PROMPTS], limits, sampler=Sampler(0), **own)
    given = [len(row.tokens) for row in rows]
    require(given == limits, f"rows that fit into {last} positions gave {given} tokens and not {limits}")
    most = max(needed, default=0)
    require(most <= last, f"a pass needs {most} positions, and its model has {last}")


def _trace(subject: Subject) -> None:
    for limits in MIXTURES:
        for limit, row in zip(limits, _run(subject, varied_model(), PROMPTS, limits, Sampler(0)), strict=True):
            steps = trace(row, "emitted")
            emitted = [token for step in steps for token in step.emitted]
            require(emitted == row.tokens, f"the steps of a row emitted {emitted}, its text is {row.tokens}")
            require(limit > 0 or not steps, "there are steps although no token was asked for")


def _untouched(subject: Subject) -> None:
    target, prompts, limits = varied_model(), [list(prompt) for prompt in PROMPTS], [4, 4, 4]
    own = subject.options(Scene(target, prompts[0]))
    with untouched(target=target, **own):
        subject.generate(target, prompts, limits, sampler=Sampler(), **own)
    require(prompts == list(PROMPTS) and limits == [4, 4, 4], "the prompts or the limits were changed")


def _seeds(subject: Subject) -> None:
    def texts(seed: int) -> list[list[int]]:
        return [row.tokens for row in _run(subject, varied_model(), PROMPTS, (6, 6, 6), Sampler(seed=seed))]

    require(texts(2) == texts(2), "the same seed gave other texts")
    require(texts(2) != texts(3), "two seeds gave the same texts, so the sampler has no say")


def _none(subject: Subject) -> None:
    found = _run(subject, varied_model(), [], [], Sampler(0))
    require(found == [], f"no prompt was given, and {found} came back")


def _too_long(subject: Subject) -> None:
    target = varied_model()
    with ending(7, target) as needed:  # the last token is never read
        refuses(lambda: _run(subject, target, [[5], [3, 1]], (2, 7), Sampler(0)), "a row one token too long")
    require(not needed, "a row that does not fit was refused only after a pass")


def _bad_rows(subject: Subject) -> None:
    target = varied_model()
    for prompts, limits in ((([5], []), (2, 2)), (([5], [11]), (2, 2)), (([5], [3]), (2,)), (([5],), (2, 2))):
        what = f"a batch of prompts {list(prompts)} with limits {list(limits)}"
        refuses(lambda p=prompts, n=limits: _run(subject, target, p, n, Sampler(0)), what)  # type: ignore[misc]


def _bad_logits(subject: Subject) -> None:
    refuses(
        lambda: _run(subject, broken(varied_model()), PROMPTS, (2, 2, 2), Sampler(0)), "a model whose logits are NaN"
    )


def _bad_option(subject: Subject, name: str, value: Any) -> None:
    own = subject.options(Scene(varied_model(), [5]), **{name: value})
    refuses(
        lambda: subject.generate(varied_model(), [[5], [3]], [2, 2], sampler=Sampler(0), **own), f"{name} = {value!r}"
    )


def batch_checks(subject: Subject) -> Iterator[Check]:
    """What holds for every method that decodes several sequences together."""
    tests: dict[str, tuple[str, Callable[[Subject], None]]] = {
        "alone": ("At temperature 0 every row is what it is alone, in any order and mixture of limits.", _alone),
        "ends": ("Each row ends with its own first end token, and the others go on.", _ends),
        "passes": ("Rows share passes, and the trace of each counts those it took part in.", _passes),
        "positions": ("Rows that just fit are written, and no model reads past its last position.", _positions),
        "too-long": ("A row that does not fit into the positions is refused before it starts.", _too_long),
        "trace": ("The trace of each row sums up to its text.", _trace),
        "untouched": ("Weights, prompts, limits and the global random state stay as they were.", _untouched),
        "seeds": ("The same seed gives the same texts, another seed gives others.", _seeds),
        "no-row": ("A batch without rows is empty.", _none),
        "bad-rows": (
            "A row whose prompt is empty or not of the vocabulary, or that lacks a limit, is refused.",
            _bad_rows,
        ),
        "logits": ("A model that gives NaN is reported.", _bad_logits),
    }
    for name, (sentence, test) in tests.items():
        yield Check(name, sentence, later(test, subject))
    for name, limits, eos in (
        ("law", (2, 2), None),
        ("law-of-mixed-limits", (1, 3), None),
        ("law-with-ends", (2, 2), 1),
        ("law-with-several-ends", (2, 2), (2, 1)),
    ):
        sentence = f"The law of two rows of {limits[0]} and {limits[1]} tokens is the product of their own laws"
        tail = "." if eos is None else ", cut at the end of each text."
        yield Check(name, sentence + tail, later(_law, subject, limits, eos))
    for name, value in values(subject, {}):
        yield Check(f"{name}={value}", f"{name} = {value} is refused.", later(_bad_option, subject, name, value))


BATCH = Suite("batch", batch_checks)
