"""Public functions told nonsense: each gives a ValueError or a TypeError of one sentence that names the parameter."""

import dataclasses
import importlib
import inspect
import math
import re
from collections.abc import Sequence
from typing import get_args, get_type_hints

import pytest
import torch
from calling import tiny_call
from torch import Tensor

from accelgen.taxonomy.loading import load_taxonomy
from reference_impls import zoo
from reference_impls.core.batch import Batch
from reference_impls.core.cache import Cache
from reference_impls.core.device import find_device
from reference_impls.core.from_transformers import from_transformers
from reference_impls.core.generation import Generation, Step
from reference_impls.core.lengths import LengthPredictor
from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler
from reference_impls.core.seq2seq import EncoderDecoder
from reference_impls.core.tree import Tree
from reference_impls.early_exiting import calm, layerskip
from reference_impls.speculative_decoding import cascade_speculative_drafting as cascade
from reference_impls.speculative_decoding import medusa, rest
from reference_impls.speculative_decoding import speculative_decoding_leviathan as leviathan
from reference_impls.testing.case import Scene
from reference_impls.testing.from_signature import module
from reference_impls.testing.tiny import language_model, sequence_model

MODEL = language_model()
IDS = [method.id for method in load_taxonomy().methods if method.is_implemented]
METHODS = [importlib.import_module(method.module) for method in load_taxonomy().methods if method.is_implemented]
LOSSES = [
    getattr(module, name)
    for module in METHODS
    for name in vars(module)
    if re.fullmatch(r"(\w+_)?loss|divergence", name)
]
PLACES = 16  # of the text that a loss is given where nothing is malformed


def cache() -> Cache:
    made = MODEL.new_cache()
    MODEL([0, 1, 2], made)
    return made


CALLS = {
    "temperature": [Sampler, "hot", None, [1], math.nan, -1, math.inf],
    "top_k": [lambda v: Sampler(top_k=v), 1.5, "2", 0],
    "top_p": [lambda v: Sampler(top_p=v), "most", math.nan, 0.0, 1.1],
    "seed": [lambda v: Sampler(seed=v), "a", 1.5, None, -1],
    "shape": [LanguageModel, None, "llama", 3],
    "shape of Max-Gram": [cascade.MaxGram, None, 3],
    "token of a model": [MODEL, [1.5], "hello", [[0, 1]], 3, torch.tensor([0.5])],
    "length": [lambda v: cache().crop(v), "2", 1.5, None, -1, math.nan],
    "slots": [lambda v: cache().keep(1, v), [2], [-1]],
    "parent": [lambda v: Tree().add(0, v), "root", 0, -2, None, 0.5],
    "token": [lambda v: Tree().add(v), "a", None, 0.5],
    "rows": [lambda v: Batch(MODEL, v), 0, 1.5, None, "2"],
    "tokens of a batch": [Batch(MODEL, 2), None, 3, "ab", [[0]], [0, 1], [[1.5], [0]], ["a", "b"]],
    "lengths": [lambda v: Batch(MODEL, 2).crop(v), None, 3, "12", [1], [1, -1], [1, 0.5], [math.nan, 1]],
    "rows to keep": [lambda v: Batch(MODEL, 2).keep(v), None, 0, "01", [], [2], [-1], [0.5]],
    "last": [lambda v: MODEL([0, 1], last=v), 0, -1, 1.5, "2", math.nan],
    "last of a batch": [lambda v: Batch(MODEL, 2)([[0], [1]], last=v), 0, -1, 1.5, "2"],
    "step": [lambda v: Generation().add(v, 3), None, [1], 1],
    "emitted": [lambda v: Generation().add(Step(v), 3), None, 1, "ab", [0.5], [None], torch.zeros(2)],
    "limit": [lambda v: Generation().add(Step([1]), v), None, "3", 2.5, -1, math.nan],
    "eos": [lambda v: Generation().add(Step([1]), 3, v), "</s>", 2.0, [0.5], [None], torch.zeros(2)],
    "model of a batch": [lambda v: Batch(v, 2), None, "gpt2"],
    "device": [find_device, 3, None, "abacus"],
    "model of transformers": [from_transformers, None, "gpt2", MODEL],
    "longest": [lambda v: LengthPredictor(8, v), 0, 2.5, None],
    "alpha": [lambda v: leviathan.best_gamma(v, 0.1), 2, -0.1, math.nan, "often", None],
    "alpha of a speedup": [lambda v: leviathan.speedup(v, 4, 0.1), 2, math.nan, "often"],
    "alpha of expected_tokens": [lambda v: leviathan.expected_tokens(v, 4), 2, math.nan, "often"],
    "gamma": [lambda v: leviathan.expected_tokens(0.5, v), -1, 1.5, None],
    "c": [lambda v: leviathan.speedup(0.5, 4, v), -0.1, math.inf, math.nan, "x"],
    "largest": [lambda v: leviathan.best_gamma(0.5, 0.1, v), -1, 2.5],
    "token of bigrams": [lambda v: leviathan.Bigram.count(v, 3), "abc", [0.5, 1], [0, 3], [], None],
    "count": [lambda v: cascade.MaxGram(MODEL.shape)([0, 1], v), -1, 1.5, None],
    "tokens of a datastore": [rest.Datastore, "abc", None, [0.5], [[0, 1]], torch.zeros(2, 2), torch.zeros(2)],
    "widths": [medusa.cartesian, "22", None, [1.5]],
    "early": [lambda v: calm.textual_loss(v, [1]), "text", None, [0.5]],
    "mean": [lambda v: calm.p_value(v, 10, 0.1), "low", 1.5, math.nan],
    "n": [lambda v: calm.p_value(0.1, v, 0.2), 0, 1.5, "many"],
    "thresholds": [lambda v: calm.calibrate(v, [[0.1]], delta=0.1, epsilon=0.1), "low", [math.nan], None],
    "delta": [lambda v: calm.calibrate([0.5], [[0.1]], delta=v, epsilon=0.1), 0, "x", math.nan],
    "highest": [lambda v: layerskip.dropout_rates(4, v), "x", math.nan, None],
    "every": [lambda v: layerskip.trained_exits(4, v, 0), 0, 1.5],
    "text": [zoo.encode, 3, None, b"def", [0]],
    "token id": [zoo.decode, ["a"], [1.5], "def", None, [-1], [10**6], torch.tensor([[1]])],
    "side": [zoo.prompts, 3, None, "train", ["test"]],
    "name": [zoo.load, None, 3],
    "dtype": [lambda v: zoo.load("max-gram", dtype=v), "float16", 16],
    "folder": [lambda v: zoo.load("max-gram", folder=v), "weights", None],
}


def refused(call) -> str:
    with pytest.raises((ValueError, TypeError)) as caught:
        call()
    words = str(caught.value)
    assert "\n" not in words, words
    return words


@pytest.mark.parametrize(
    ("name", "value"), [pytest.param(name, v, id=f"{name}={v!r:.20}") for name, (_, *all) in CALLS.items() for v in all]
)
def test_a_malformed_value_is_one_sentence_that_names_the_parameter(name, value):
    assert name.split()[0] in refused(lambda: CALLS[name][0](value))


def text(name: str) -> Tensor:
    """A tensor as a loss asks for it by this name: of tokens, of fertilities that sum to their number, of logits."""
    generator = torch.Generator().manual_seed(len(name))
    if name in {"taught", "learnt"}:
        return torch.randn(2, 5, generator=generator)
    return (
        torch.ones(2, PLACES).long() if name == "fertility" else torch.randint(3, 10, (2, PLACES), generator=generator)
    )


def built(name: str, hint: object) -> object:
    """What a loss asks for by this name and annotation: a tiny model, a tensor or a number."""
    model = language_model(11, layers=3)
    known = {LanguageModel: model, Sequence[LanguageModel]: [model], Sequence[int]: [1], int: 1, Sampler: Sampler()}
    if hint is Tensor:
        return text(name)
    if name == "texts":
        return [([3, 4, 5, 6], {2: torch.zeros(11, dtype=torch.float64)})]
    if hint in known:
        return known[hint]
    if not isinstance(hint, type):
        return get_args(hint)[0]
    own = issubclass(hint, EncoderDecoder)
    return sequence_model(hint, longest=PLACES + 1) if own else module(hint, Scene(model, [3]))


def right(loss) -> dict[str, object]:
    """What a loss needs, all of it well-formed."""
    parameters = inspect.signature(loss).parameters.values()
    return {p.name: built(p.name, get_type_hints(loss)[p.name]) for p in parameters if p.default is p.empty}


def finite_or_named(loss, name: str, value: object) -> bool:
    """Whether this value of one parameter is refused by its name; else the loss must be a number."""
    torch.manual_seed(0)
    found = answer(lambda: loss(**right(loss) | {name: value}))
    if isinstance(found, Exception):
        assert re.search(rf"\b{name}\b", str(found)), f"{name} = {value}: {found}"
        assert "\n" not in str(found)
        return True
    assert torch.as_tensor(found).isfinite().all(), f"{name} = {value} gives {found}"
    return False


def answer(call):
    """What a call gives, or how it refuses."""
    try:
        return call()
    except (ValueError, TypeError) as error:
        return error


def asked(*kinds: object) -> list[object]:
    """The losses with each of their parameters of these annotations, as the parameters of a test."""
    return [
        pytest.param(loss, name, id=f"{loss.__module__.rpartition('.')[2]}.{loss.__name__}-{name}")
        for loss in LOSSES
        for name, hint in get_type_hints(loss).items()
        if name != "return" and not {hint, *get_args(hint)}.isdisjoint(kinds)
    ]


@pytest.mark.parametrize(("loss", "name"), asked(Tensor))
def test_losses_name_what_is_no_tensor(loss, name):
    words = refused(lambda: loss(**right(loss) | {name: [[0, 1]]}))
    assert words == f"{name} is [[0, 1]]; it must be a Tensor"


@pytest.mark.parametrize(("loss", "name"), asked(Tensor))
def test_losses_of_short_and_of_strange_texts_are_finite_or_one_sentence(loss, name):
    whole = right(loss)[name]
    assert not finite_or_named(loss, name, whole), "what is well-formed is learnt from"
    for places in range(PLACES):
        finite_or_named(loss, name, whole[:, :places])
    assert finite_or_named(loss, name, whole[:, :0])
    assert finite_or_named(loss, name, whole[:0])
    if whole.is_floating_point():
        return
    for wrong in (-1, -100, 11, 10**6):  # -100 is what torch itself leaves out of a cross-entropy without a word
        strange = whole.clone()
        strange[1, -1] = wrong
        assert finite_or_named(loss, name, strange)
    for other in (whole[0], whole[None], whole.double()):
        finite_or_named(loss, name, other)
    for token in range(3):  # padding, the end and a mask, where there are such
        finite_or_named(loss, name, torch.full_like(whole, token))


@pytest.mark.parametrize(("loss", "name"), asked(int, float, Sequence[int]))
def test_losses_at_numbers_out_of_range_are_finite_or_one_sentence(loss, name):
    hint = get_type_hints(loss)[name]
    if hint == Sequence[int]:
        for numbers in ([], [-1], [0], [1, 1], [50]):
            finite_or_named(loss, name, numbers)
        return
    for number in (0, 1, 2, 3, 50):
        finite_or_named(loss, name, number)
    if hint is float:
        assert all(finite_or_named(loss, name, number) for number in (-0.5, -math.inf, math.inf, math.nan))
    else:
        finite_or_named(loss, name, -1)


# ---- options of methods, and of their parts -----------------------------------------------------------------------


def numbers(function) -> list[str]:
    """The parameters that are numbers, or may be one."""
    hints = get_type_hints(function)
    return [name for name, hint in hints.items() if name != "return" and {hint, *get_args(hint)} & {int, float}]


def vocabulary(given: dict[str, object]) -> int:
    return (given.get("target") or given["model"]).shape.vocab


@pytest.mark.parametrize(
    ("id", "module", "name"),
    [
        pytest.param(id, m, name, id=f"{id}-{name}")
        for id, m in zip(IDS, METHODS, strict=True)
        for name in numbers(m.generate)
    ],
)
def test_an_option_at_any_number_is_refused_by_its_name_or_gives_a_text(id, module, name):
    for value in (-1, 0, 1, 50, -0.5, 2.5, math.inf, -math.inf, math.nan):
        given = tiny_call(id, module.generate) | {name: value}
        found = answer(lambda given=given: module.generate(**given))
        if isinstance(found, Exception):
            assert re.search(rf"\b{name}\b", str(found)), f"{name} = {value}: {found}"
            assert "\n" not in str(found)
            continue
        assert not math.isnan(value)
        for row in found if isinstance(found, list) else [found]:
            assert all(0 <= token < vocabulary(given) for token in row.tokens)


def parts() -> list[object]:
    """The classes of methods that are made with numbers, and each such number."""
    own = [(module, thing) for module in METHODS for thing in vars(module).values() if inspect.isclass(thing)]
    return [
        pytest.param(kind, name, id=f"{kind.__name__}-{name}")
        for module, kind in own
        if kind.__module__ == module.__name__ and not dataclasses.is_dataclass(kind) and "__init__" in vars(kind)
        for name in numbers(kind.__init__)
    ]


@pytest.mark.parametrize(("kind", "name"), parts())
def test_a_part_is_not_made_with_a_number_that_cannot_be(kind, name):
    known = {
        "shape": MODEL.shape,
        "model": MODEL,
        "drafter": MODEL,
        "longest": 5,
        "shortest": 1,
        "references": [[1, 2]],
    }
    known |= dict.fromkeys(("pad", "end", "mask_id", "dim", "rank", "vocab"), 2)
    needed = [p.name for p in inspect.signature(kind).parameters.values() if p.default is p.empty]
    given = {need: known[need] for need in needed}
    kind(**given)
    for value in (-1, math.nan, math.inf, -math.inf, "two", None):
        found = answer(lambda value=value: kind(**given | {name: value}))
        if value is not None or isinstance(found, Exception):
            assert re.search(rf"\b{name}\b", str(found)), f"{name} = {value}: {found}"
