"""What the kit reads from a signature: which models draft, which guesses can be made perfect, what is built."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from accelgen.cli.on_checkpoint import Parts, parts_of
from reference_impls.core.generation import Generation
from reference_impls.core.layers import Shape
from reference_impls.core.model import LanguageModel
from reference_impls.speculative_decoding.speculative_sampling_chen import generate as chain
from reference_impls.testing import BUILDERS, SUITES, KitError, Scene, prove
from reference_impls.testing.from_signature import drafting, guessing, module_class, options, variants
from reference_impls.testing.tiny import Erring, FeatureForesight, Foresight, varied_model


class Heads(nn.Module):
    """Guesses k - 1 tokens, as features."""

    def __init__(self, shape: Shape, k: int = 4) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.zeros(k - 1, shape.dim))

    def forward(self, feature: Tensor) -> Tensor:
        return self.matrix + feature


class Continuing(nn.Module):
    """Continues features with the tokens after them."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.zeros(shape.dim, shape.dim))

    def forward(self, _: LanguageModel, tokens: Sequence[int], features: Tensor) -> Tensor:
        return features[: len(tokens)] @ self.matrix


class Gate(nn.Module):
    """A part that guesses nothing."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(shape.dim))

    def forward(self, feature: Tensor) -> Tensor:
        return feature @ self.weight


def bare(target, prompt, limit, *, sampler, gamma=4, eos=None): ...
def unannotated(target, prompt, limit, *, drafter, sampler, eos=None): ...
def any_drafter(target, prompt, limit, *, drafter: Any, sampler, eos=None): ...
def one(target: LanguageModel, prompt, limit, *, assistant: LanguageModel, sampler, eos=None): ...
def either(target: LanguageModel, prompt, limit, *, assistant: LanguageModel | Gate, sampler, eos=None): ...
def perhaps(target: LanguageModel, prompt, limit, *, sampler, assistant: LanguageModel | None = None, eos=None): ...
def many(target: LanguageModel, prompt, limit, *, assistants: list[LanguageModel], sampler, eos=None): ...
def mixed(target: LanguageModel, prompt, limit, *, own: Iterable[LanguageModel | Gate] | None, sampler, eos=None): ...
def named_many(target, prompt, limit, *, drafters, sampler, eos=None): ...
def heads(target, prompt, limit, *, heads: Heads | None, sampler, eos=None): ...
def continuing(target, prompt, limit, *, drafter: Continuing, sampler, eos=None): ...
def gated(target, prompt, limit, *, gate: Gate, sampler, eos=None): ...
def gated_drafter(target, prompt, limit, *, drafter: Gate, sampler, eos=None): ...


@pytest.mark.parametrize(
    ("generate", "found"),
    [
        (bare, {}),
        (unannotated, {"drafter": False}),
        (any_drafter, {"drafter": False}),
        (one, {"assistant": False}),
        (either, {"assistant": False}),
        (perhaps, {"assistant": False}),
        (many, {"assistants": True}),
        (mixed, {"own": True}),
        (named_many, {"drafters": True}),
        (heads, {}),
        (continuing, {}),
        (gated, {}),
        (gated_drafter, {}),
    ],
)
def test_models_that_draft_are_told_by_their_annotation_or_else_by_their_name(generate, found):
    assert drafting(generate) == found
    assert guessing(generate) == (bool(found) or generate in (heads, continuing))


@pytest.mark.parametrize(("guess", "kind"), [("noisy", Erring), ("perfect", LanguageModel)])
@pytest.mark.parametrize("generate", [unannotated, any_drafter, one, either, perhaps, many, mixed, named_many])
def test_every_model_that_drafts_is_as_good_as_the_scene_asks(generate, guess, kind):
    scene = Scene(varied_model(), [5, 3], guess=guess)
    ((name, several),) = drafting(generate).items()
    built = options(generate, scene)[name]
    best = built[0] if several else built
    assert type(best) is kind
    assert (best is scene.target) == (guess == "perfect")


def assisted(target: LanguageModel, prompt, limit, *, assistant: LanguageModel, sampler, gamma=4, eos=None):
    """A port that names its drafter as it likes."""
    return chain(target, prompt, limit, drafter=assistant, sampler=sampler, gamma=gamma, eos=eos)


def silent(target: LanguageModel, prompt, limit, *, assistant: LanguageModel, sampler, gamma=4, eos=None):
    """As that, but its trace knows of no pass of the drafter."""
    found = chain(target, prompt, limit, drafter=assistant, sampler=sampler, gamma=gamma, eos=eos)
    return Generation(found.tokens, [replace(step, draft_passes=0) for step in found.steps])


def credulous(target: LanguageModel, prompt, limit, *, assistant: LanguageModel, sampler, gamma=4, eos=None):
    """As that, but takes any drafter."""
    own = assistant if assistant.shape.vocab == target.shape.vocab else target
    return chain(target, prompt, limit, drafter=own, sampler=sampler, gamma=gamma, eos=eos)


def outcomes(generate, *names):
    return {found.check: found.outcome for found in prove(generate, [SUITES[name] for name in names])}


def test_a_drafter_of_any_name_is_made_perfect_counted_and_refused():
    found = outcomes(assisted, "greedy-identity", "accounting", "options")
    assert found.keys() >= {"perfect-use", "end-in-draft", "passes", "assistant"}
    assert set(found.values()) == {"passed"}
    assert [check for check, how in outcomes(silent, "accounting").items() if how == "failed"] == ["passes"]
    assert [check for check, how in outcomes(credulous, "options").items() if how == "failed"] == ["assistant"]


@pytest.mark.parametrize("guess", ["random", "noisy", "perfect"])
def test_parts_that_guess_are_as_good_as_the_scene_asks(guess):
    scene = Scene(varied_model(), [5, 3], guess=guess)
    assert type(options(heads, scene)["heads"]) is (Heads if guess == "random" else Foresight)
    assert type(options(continuing, scene)["drafter"]) is (Continuing if guess == "random" else FeatureForesight)
    assert type(options(gated, scene)["gate"]) is Gate
    assert not any((weight == 0).all() for weight in options(heads, Scene(varied_model(), [5]))["heads"].parameters())


def test_options_known_by_name_follow_the_scene_and_all_others_keep_their_default():
    def generate(target, prompt, limit, *, sampler, gamma, exits=(), exit_layer=9, strict=True, eos=None): ...

    found = options(generate, Scene(varied_model(5), [5, 3], guesses=3))
    assert found == {"gamma": 3, "exits": (1, 2, 3, 4), "exit_layer": 1}
    assert options(generate, Scene(varied_model(), [5]), gamma=7)["gamma"] == 7


def test_a_builder_can_be_added_for_a_parameter_of_ones_own(monkeypatch):
    def generate(target, prompt, limit, *, sampler, datastore, eos=None): ...

    with pytest.raises(KitError, match="'datastore'"):
        options(generate, Scene(varied_model(), [0]))
    monkeypatch.setitem(BUILDERS, "datastore", lambda scene: list(scene.prompt))
    assert options(generate, Scene(varied_model(), [0])) == {"datastore": [0]}


def test_all_choices_between_words_are_tried():
    def generate(target, prompt, limit, *, sampler, a: Literal["x", "y"], b: Literal["u", "v"] = "u", c: int = 3): ...

    assert variants(generate) == [{"a": a, "b": b} for a in "xy" for b in "uv"]
    assert variants(bare) == [{}]


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        (Gate, Gate),
        (Heads | None, Heads),
        (None | Gate, Gate),
        (nn.Linear, None),
        (nn.Linear | Gate, Gate),
        (int, None),
    ],
)
def test_a_module_class_is_one_that_can_be_made_from_a_shape(kind, found):
    assert module_class(kind) is found


@pytest.mark.parametrize(
    ("generate", "parts"),
    [
        (any_drafter, Parts("drafter")),
        (perhaps, Parts("assistant")),
        (one, Parts("assistant")),
        (many, Parts("assistants", several=True)),
    ],
)
def test_a_run_on_a_checkpoint_asks_for_the_same_models(generate, parts):
    assert parts_of("it", generate, {}) == parts


@pytest.mark.parametrize(("generate", "part"), [(gated, "gate"), (gated_drafter, "drafter"), (continuing, "drafter")])
def test_a_part_made_for_one_target_is_on_no_checkpoint(generate, part):
    with pytest.raises(ValueError, match=f"it needs a part that is made for its target, {part} "):
        parts_of("it", generate, {})


def test_an_option_that_depends_on_the_target_must_be_given():
    def generate(target, prompt, limit, *, sampler, exit_layer: int, eos=None): ...

    with pytest.raises(ValueError, match="it needs --exit-layer, which depends on the target"):
        parts_of("it", generate, {})
    assert parts_of("it", generate, {"exit_layer": 2}) == Parts()
