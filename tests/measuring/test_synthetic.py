"""A forced acceptance is the acceptance one asked for, place by place, and leaves the greedy text as it is."""

from __future__ import annotations

import importlib
import inspect
import itertools
import json
import math

import pytest
import torch
from typer.testing import CliRunner

from accelgen.cli import app
from accelgen.measuring import machine, synthetic
from accelgen.measuring.kinds import EXACT
from accelgen.measuring.synthetic import SyntheticDrafter
from accelgen.taxonomy.loading import load_taxonomy
from reference_impls.baselines import autoregressive
from reference_impls.core.layers import Shape
from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler
from reference_impls.speculative_decoding import (
    speculative_decoding_leviathan,
)
from reference_impls.testing.cases import case_of

PROMPT, LIMIT, GAMMA = [1, 2, 3], 600, 4
CHANCES = (0.9, 0.5, 0.8, 0.6)
CHAINS = [method for method in load_taxonomy().methods if case_of(method.id).chain]
METHODS = [importlib.import_module(method.module) for method in CHAINS]


def model(seed: int, layers: int = 2) -> LanguageModel:
    shape = Shape(vocab=16, dim=16, layers=layers, heads=2, kv_heads=2, head_dim=8, hidden=16, tied=False)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return LanguageModel(shape).eval()


TARGET, DRAFTER = model(5), model(1, layers=1)
TEXT = synthetic.known_text(TARGET, PROMPT, LIMIT + GAMMA)


def run(method, chances, limit=LIMIT, seed=0):
    drafter = SyntheticDrafter(DRAFTER, TEXT, chances, seed=seed)
    return method.generate(TARGET, PROMPT, limit, drafter=drafter, sampler=Sampler(0), gamma=len(chances))


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.__name__.rpartition(".")[2])
@pytest.mark.parametrize("chances", [CHANCES, (0.7,), (0.3,) * 3])
def test_each_place_is_kept_as_often_as_asked(method, chances):
    result = run(method, chances)
    steps = result.steps[:-1]  # the last one is cut
    for i, chance in enumerate(chances):
        reached = [step for step in steps if step.kept >= i]
        kept = sum(step.kept > i for step in reached)
        bound = 4 * math.sqrt(chance * (1 - chance) * len(reached))
        assert len(reached) > 20
        assert abs(kept - chance * len(reached)) <= bound, (i, kept / len(reached))
    assert result.tokens == TEXT[len(PROMPT) :][:LIMIT]


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.__name__.rpartition(".")[2])
@pytest.mark.parametrize(("chance", "expected"), [(1.0, GAMMA + 1), (0.0, 1)])
def test_always_and_never(method, chance, expected):
    result = run(method, (chance,) * GAMMA, limit=60)
    assert result.tokens == TEXT[len(PROMPT) :][:60]
    assert [len(step.emitted) for step in result.steps] == [expected] * (60 // expected)


def test_a_draft_begins_where_the_text_turned_or_grew():
    """One guess at a time is never right at place 2: so every draft that is taken for longer than it is shows."""
    drafter, cache = SyntheticDrafter(DRAFTER, TEXT, (1.0, 0.0)), DRAFTER.new_cache()

    def right(tokens):
        return int(drafter(tokens, cache, last=1)[0].argmax()) == TEXT[len(cache)]

    end = len(PROMPT)
    assert right(PROMPT)  # place 1: the prompt
    assert not right(TEXT[end : end + 1])  # place 2: its own guess comes back
    wrong = drafter._last[1]
    assert wrong != TEXT[end + 1]
    assert right(TEXT[end + 1 : end + 2])  # place 1: another token than the guess
    cache.crop(end)
    assert right(TEXT[end : end + 1])  # place 1: the cache was cropped
    assert right(TEXT[end + 1 : end + 3])  # place 1: more than one unseen token
    drafter([drafter._last[1]], cache, last=1)  # place 2
    with pytest.raises(ValueError, match="guess 3 of a draft has no chance: 2 were given"):
        drafter([drafter._last[1]], cache, last=1)
    other = DRAFTER.new_cache()
    assert int(drafter(PROMPT, other, last=1)[0].argmax()) == TEXT[end]  # place 1: another text


def test_the_real_drafter_runs_once_for_every_guess_and_is_not_changed():
    seen = []

    class Counted(LanguageModel):
        def forward(self, *args, **kwargs):
            seen.append(args[0])
            return super().forward(*args, **kwargs)

    real = Counted(DRAFTER.shape)
    real.load_state_dict(DRAFTER.state_dict())
    drafter = SyntheticDrafter(real, TEXT, CHANCES)
    options = {"drafter": drafter, "sampler": Sampler(0), "gamma": 4}
    result = speculative_decoding_leviathan.generate(TARGET, PROMPT, 40, **options)
    assert len(seen) == result.draft_passes
    assert (drafter.shape, drafter.device) == (real.shape, real.device)
    assert drafter.new_cache()._store.shape == real.new_cache()._store.shape


def test_behind_the_known_text_it_is_the_real_drafter():
    drafter, cache, own = SyntheticDrafter(DRAFTER, PROMPT, (1.0,)), DRAFTER.new_cache(), DRAFTER.new_cache()
    with torch.inference_mode():
        assert torch.equal(drafter(PROMPT, cache, last=1), DRAFTER(PROMPT, own, last=1))


def test_one_number_holds_for_all_places_and_a_list_is_the_draft():
    assert synthetic.places(0.8, gamma=3) == (0.8, 0.8, 0.8)
    assert synthetic.places([0.9, 0.5], gamma=3) == (0.9, 0.5)
    assert synthetic.parse("0.8") == 0.8
    assert synthetic.parse("1") == 1.0
    assert synthetic.parse("0.9,0.8, 0.6") == [0.9, 0.8, 0.6]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["1.2"], "an acceptance of 1.2 is no chance: it must lie in"),
        (["0.5,-0.1"], "an acceptance of -0.1 is no chance"),
        (["nan"], "an acceptance of nan is no chance"),
        ([""], "'' is no acceptance: give a chance such as 0.8"),
        (["0.8,"], "'0.8,' is no acceptance"),
        (["high"], "'high' is no acceptance"),
        ([",".join(["0.5"] * 65)], "65 chances of acceptance were given; give 1 to 64"),
        (["0.8", "--method", "medusa"], "medusa does not draft a chain with one language model"),
        (["0.8", "--method", "no-such"], "no-such"),
        (["0.8", "--costs"], "are different measurements: choose one"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(words, sentence):
    result = CliRunner().invoke(app, ["bench", "--prompts", "1", "--synthetic-acceptance", *words])
    assert (result.exit_code, result.stdout) == (2, "")
    assert sentence in result.stderr


def test_methods_are_those_with_one_plain_drafter_whose_text_is_exact():
    assert CHAINS
    for method in CHAINS:
        asked = inspect.signature(importlib.import_module(method.module).generate).parameters
        assert method.is_implemented
        assert method.guarantee in EXACT
        assert {"drafter", "gamma"} <= asked.keys()


def test_the_command_shows_what_the_formula_promises(tmp_path):
    output = tmp_path / "forced.json"
    words = ["bench", "--prompts", "1", "--limit", "12", "--synthetic-acceptance", "1,1", "--json", "-o", str(output)]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    report = json.loads(output.read_text(encoding="utf-8"))
    assert report == json.loads(result.stdout)
    (row,) = report["rows"]
    assert row["tokens_per_pass"] == row["expected_tokens"] == 3
    assert row["predicted"] == pytest.approx(3 / (2 * row["cost_ratio"] + row["verify_cost"]))
    assert row["as_promised"] is True
    assert row["texts"] == row["identical_texts"] == 1
    assert (row["cost_ratio"], row["verify_cost"]) > (0, 0)
    assert "--synthetic-acceptance 1,1 --method speculative-decoding-leviathan" in report["command"]


def test_the_formula_s_costs_are_those_of_the_passes(monkeypatch):
    """A world in which a pass of the target takes 3 + k / 2 and one of the drafter 0.7."""
    spent = [0.0]
    monkeypatch.setattr(machine, "now", lambda: spent[0])

    def costing(own, cost):
        forward = own.forward

        def spending(tokens, *args, **kwargs):
            spent[0] += cost(len(tokens))
            return forward(tokens, *args, **kwargs)

        own.forward = spending
        return own

    options = {
        "target": costing(model(5), lambda k: 3 + k / 2),
        "drafter": costing(model(1), lambda _: 0.7),
        "gamma": 3,
    }

    def plain():
        return [autoregressive.generate(options["target"], [1], 12, sampler=Sampler(0))]

    def own():
        return [speculative_decoding_leviathan.generate(prompt=[1], limit=12, sampler=Sampler(0), **options)]

    assert synthetic.loop_costs(speculative_decoding_leviathan, options, plain, own) == pytest.approx((0.2, 5 / 3.5))


def test_nothing_is_stored_unless_asked(tmp_path, monkeypatch):
    monkeypatch.setattr("accelgen.cli.measurements.RESULTS", tmp_path)
    words = ["bench", "--prompts", "1", "--limit", "4", "--synthetic-acceptance", "0.5"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    assert "Expected" in result.stdout
    assert not list(tmp_path.iterdir())


def test_baseline_and_text_agree():
    assert TEXT[len(PROMPT) :] == autoregressive.generate(TARGET, PROMPT, LIMIT + GAMMA, sampler=Sampler(0)).tokens
    assert len(set(itertools.pairwise(TEXT))) > 20, "a text that repeats one token would hide a shifted place"
