"""Greedy identity: on tiny random models with guesses of every quality, and on the trained ones."""

import copy
import importlib

import pytest
import torch

from accelgen.taxonomy.loading import load_taxonomy
from reference_impls import zoo
from reference_impls.baselines import autoregressive
from reference_impls.core.sampling import Sampler
from reference_impls.speculative_decoding import blockwise_parallel_decoding as blockwise
from reference_impls.speculative_decoding import speculative_decoding_leviathan as leviathan
from reference_impls.testing import Scene, options
from reference_impls.testing.tiny import varied_model

PROMPTS, LIMIT = 6, 16  # every 10th of the prompts, which stand by kind


@pytest.mark.suite("greedy-identity")
def test_greedy_identity(check):
    check.run()


@pytest.mark.parametrize("generate", [leviathan.generate, blockwise.generate])
def test_guesses_of_three_qualities_are_kept_never_sometimes_and_always(generate):
    found = {}
    for guess in ("random", "noisy", "perfect"):
        scene = Scene(varied_model(), [5, 3, 8, 1], 3, guess)
        result = generate(scene.target, scene.prompt, 13, sampler=Sampler(0), **options(generate, scene))
        found[guess] = result.tokens_per_pass
    assert 1 <= found["random"] < found["noisy"] < found["perfect"]


def double(value):
    """A copy in double precision, in which the order of a sum never decides about the likeliest token."""
    return copy.deepcopy(value).double() if isinstance(value, torch.nn.Module) else value


@pytest.fixture(scope="module")
def baseline():
    """The trained target's own greedy text after each held-out prompt."""
    target = double(zoo.load("target"))
    prompts = [zoo.encode(text) for text in zoo.prompts()[::10]]
    assert len(prompts) == PROMPTS
    texts = [autoregressive.generate(target, prompt, LIMIT, sampler=Sampler(0)).tokens for prompt in prompts]
    return list(zip(prompts, texts, strict=True))


@pytest.mark.suite("greedy-identity")
def test_greedy_identity_on_the_trained_models(method_id, baseline):
    module = importlib.import_module(load_taxonomy().method(method_id).module)
    own = {name: double(value) for name, value in module.example().items()}
    passes = 0
    for prompt, wanted in baseline:
        result = module.generate(prompt=prompt, limit=LIMIT, sampler=Sampler(0), **own)
        assert result.tokens == wanted
        passes += result.passes
    assert passes < len(baseline) * LIMIT, "no pass was saved on any prompt"
