"""The sampler: its laws on worked examples, and its draws against the inverse of the distribution function."""

import math

import pytest
import torch

from reference_impls.core.sampling import Sampler
from reference_impls.core.verify import residual

MUTANTS = [
    (
        "one-random-number-for-all-places",
        "self._uniform(probability.double())",
        "self._uniform(probability.double().sum())",
    ),
    ("one-random-number-for-all-draws", "self._uniform(total) * total", "self._uniform(total.sum()) * total"),
    ("random-numbers-used-again", "self._generators[like.device] = generator", "pass"),
    ("global-random-state", "generator=generator, ", ""),
    ("seed-ignored", "manual_seed(self.seed)", "manual_seed(0)"),
    ("greedy-by-soft-laws", "if self.temperature == 0:", "if self.temperature < 0:"),
    ("temperature-ignored", "logits.to(dtype) / self.temperature", "logits.to(dtype) / 1.0"),
    ("top-p-one-token-short", ".cumsum(-1) - best_first", ".cumsum(-1)"),
    ("top-p-one-token-long", ".cumsum(-1) - best_first", ".cumsum(-1) - 2 * best_first"),
    ("top-k-one-token-long", "p.topk(self.top_k)", "p.topk(self.top_k + 1)"),
    ("law-not-renormalised", "return p / p.sum(-1, keepdim=True)", "return p"),
    ("draw-what-is-impossible", "* total, right=True)", "* total, right=False)"),
    ("broken-model-hidden", "torch.where(total > 0, token, -1)", "token.clamp(max=1)"),
]

LOGITS = torch.tensor([2.0, 1.0, 0.0, -1.0], dtype=torch.float64)
P = torch.tensor([0.4, 0.3, 0.2, 0.1], dtype=torch.float64)


class Scripted(Sampler):
    """A sampler whose uniform numbers are given."""

    def __init__(self, *numbers, **settings):
        super().__init__(**settings)
        self.numbers = torch.tensor(numbers, dtype=torch.float64)

    def _uniform(self, like):
        return self.numbers.to(like.dtype).reshape(like.shape)


def law(p, **settings):
    return Sampler(**settings).probs(p.log()).tolist()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_temperature_divides_the_logits(temperature):
    weights = [math.exp(x / temperature) for x in LOGITS.tolist()]
    wanted = [w / sum(weights) for w in weights]
    assert Sampler(temperature).probs(LOGITS).tolist() == pytest.approx(wanted)


def test_temperature_zero_is_one_hot_and_the_limit_of_small_temperatures():
    assert Sampler(0).probs(LOGITS).tolist() == [1, 0, 0, 0]
    assert Sampler(1e-3).probs(LOGITS).tolist() == pytest.approx([1, 0, 0, 0])


def test_temperature_zero_takes_the_first_of_equals():
    assert Sampler(0).probs(torch.tensor([0.0, 3.0, 3.0])).tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("k", "wanted"),
    [(1, [1, 0, 0, 0]), (2, [4 / 7, 3 / 7, 0, 0]), (4, [0.4, 0.3, 0.2, 0.1]), (9, [0.4, 0.3, 0.2, 0.1])],
)
def test_top_k(k, wanted):
    assert law(P, top_k=k) == pytest.approx(wanted)


def test_top_k_keeps_all_that_tie_with_the_last():
    assert law(torch.tensor([0.4, 0.2, 0.2, 0.2]), top_k=2) == pytest.approx([0.4, 0.2, 0.2, 0.2])


@pytest.mark.parametrize(
    ("share", "wanted"),
    [
        (1e-9, [1, 0, 0, 0]),
        (0.39, [1, 0, 0, 0]),
        (0.41, [4 / 7, 3 / 7, 0, 0]),
        (0.69, [4 / 7, 3 / 7, 0, 0]),
        (0.71, [4 / 9, 3 / 9, 2 / 9, 0]),
        (0.91, [0.4, 0.3, 0.2, 0.1]),
        (1.0, [0.4, 0.3, 0.2, 0.1]),
    ],
)
def test_top_p_keeps_the_fewest_tokens_that_reach_the_share(share, wanted):
    assert law(P, top_p=share) == pytest.approx(wanted)
    assert law(P.flip(0), top_p=share) == pytest.approx(wanted[::-1])


def test_top_p_at_an_exact_sum_needs_no_further_token():
    p = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64)
    assert Scripted(0.0, top_p=0.5).probs(p.log().double()).tolist() == pytest.approx([1, 0, 0])


def test_top_p_applies_to_what_top_k_left():
    assert law(P, top_k=2, top_p=0.55) == pytest.approx([1, 0, 0, 0])  # 4/7 of what is left
    assert law(P, top_k=2, top_p=0.6) == pytest.approx([4 / 7, 3 / 7, 0, 0])


def test_laws_of_several_places_are_made_one_by_one():
    logits = torch.stack((LOGITS, LOGITS.flip(0), LOGITS * 0))
    for settings in ({}, {"temperature": 0.0}, {"top_k": 2}, {"top_p": 0.8}):
        sampler = Sampler(**settings)
        assert torch.equal(sampler.probs(logits), torch.stack([sampler.probs(row) for row in logits]))


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.7, "top_k": 3}, {"top_p": 0.65}])
def test_laws_sum_to_one(settings):
    assert Sampler(**settings).probs(LOGITS).sum().item() == pytest.approx(1)


@pytest.mark.parametrize(
    ("number", "token"),
    [(0.0, 0), (0.3999, 0), (0.4001, 1), (0.6999, 1), (0.7001, 2), (0.8999, 2), (0.9001, 3), (0.9999999, 3)],
)
def test_draw_inverts_the_distribution_function(number, token):
    assert int(Scripted(number).draw(P)) == token


def test_draw_never_takes_what_is_impossible():
    p = torch.tensor([0.0, 0.5, 0.0, 0.5, 0.0], dtype=torch.float64)
    assert [int(Scripted(u).draw(p)) for u in (0.0, 0.4999, 0.5, 0.9999999)] == [1, 1, 3, 3]


def test_draw_uses_a_number_of_its_own_for_each_law():
    assert Scripted(0.1, 0.5, 0.95).draw(P.expand(3, 4)).tolist() == [0, 1, 3]
    drawn = Sampler(seed=1).draw(P.expand(64, 4))
    assert drawn.shape == (64,)
    assert set(drawn.tolist()) == {0, 1, 2, 3}


def test_every_call_has_new_random_numbers():
    sampler = Sampler()
    assert len({int(sampler.draw(P)) for _ in range(32)}) > 1
    assert len({bool(sampler.accept(torch.tensor(0.5))) for _ in range(32)}) > 1


def test_draw_reports_a_law_that_is_not_finite():
    assert Sampler().draw(torch.full((2, 3), math.nan)).tolist() == [-1, -1]
    assert int(Sampler().draw(Sampler(0).probs(torch.tensor([1.0, math.nan])))) == -1


@pytest.mark.parametrize(("number", "yes"), [(0.0, True), (0.2999, True), (0.3, False), (0.9, False)])
def test_accept_compares_with_a_uniform_number(number, yes):
    assert bool(Scripted(number).accept(torch.tensor(0.3, dtype=torch.float64))) is yes


def test_accept_at_the_edges():
    assert Sampler().accept(torch.tensor([1.0, 2.5, math.inf])).all()
    assert not Sampler().accept(torch.tensor([0.0, -1.0, math.nan])).any()


def test_accept_decides_independently():
    assert Scripted(0.2, 0.6, 0.2).accept(torch.tensor([0.5, 0.5, 0.1])).tolist() == [True, False, False]
    found = Sampler(seed=3).accept(torch.full((64,), 0.5))
    assert 0 < found.sum() < 64


def test_the_seed_fixes_the_draws_and_the_global_state_is_left_alone():
    before = torch.get_rng_state()
    one, same, other = (Sampler(seed=seed).draw(P.expand(40, 4)).tolist() for seed in (5, 5, 6))
    assert one == same
    assert one != other
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": -1},
        {"temperature": 1e-300},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"top_k": 0},
        {"top_p": 0},
        {"top_p": 1.1},
        {"top_p": math.nan},
        {"seed": -1},
        {"seed": 10**23},
    ],
)
def test_settings_out_of_range_are_refused(settings):
    name = next(iter(settings))
    with pytest.raises(ValueError, match=f"^{name} is .* must "):
        Sampler(**settings)


@pytest.mark.parametrize("settings", [{"top_k": 1.5}, {"seed": "a"}, {"temperature": None}, {"top_p": "0.9"}])
def test_settings_of_another_kind_are_refused(settings):
    name, value = next(iter(settings.items()))
    with pytest.raises(TypeError, match=f"^{name} is {value!r}; it must be a (whole )?number"):
        Sampler(**settings)


# ---- narrow types -------------------------------------------------------------------------------------------------

NARROW = (torch.bfloat16, torch.float16)


def peaked(vocab, dtype, rows=()):
    """Logits of a model in this dtype, some of them large."""
    return (torch.randn(*rows, vocab, generator=torch.Generator().manual_seed(vocab)) * 4).to(dtype)


@pytest.mark.parametrize("settings", [{"temperature": 0}, {}, {"temperature": 0.7}, {"top_k": 40}, {"top_p": 0.95}])
@pytest.mark.parametrize("vocab", [11, 2_048, 152_064])
@pytest.mark.parametrize("dtype", [*NARROW, torch.float32])
def test_a_law_of_any_dtype_is_that_of_the_same_logits_in_float64(dtype, vocab, settings):
    logits, sampler = peaked(vocab, dtype, (2,)), Sampler(**settings)
    p, exact = sampler.probs(logits), sampler.probs(logits.double())
    assert p.dtype == torch.float32
    assert torch.equal(p > 0, exact > 0), "other tokens are possible"
    assert (p.double() - exact).abs().sum(-1).max() / 2 <= 1e-6


@pytest.mark.parametrize("temperature", [1e-4, 1.5e-4, 2e-4, 1e-20])
def test_logits_divided_by_a_small_temperature_stay_finite_in_float16(temperature):
    logits = torch.tensor([19.0, 3.0, 20.0, -20.0], dtype=torch.float16)
    assert Sampler(temperature).probs(logits).tolist() == [0, 0, 1, 0]
    assert Sampler(temperature).probs(logits[[0, 0, 1]]).tolist() == [0.5, 0.5, 0]


def test_narrow_logits_that_are_not_finite_are_still_reported():
    for temperature in (0, 1, 0.5):
        p = Sampler(temperature).probs(torch.tensor([1.0, math.nan], dtype=torch.bfloat16))
        assert int(Sampler().draw(p)) == -1


@pytest.mark.parametrize("vocab", [2, 2_048, 152_064])
@pytest.mark.parametrize("settings", [{}, {"temperature": 0.8}, {"top_p": 0.95}])
@pytest.mark.parametrize("dtype", NARROW)
def test_the_speculative_law_is_that_of_its_baseline_in_narrow_types(dtype, settings, vocab):
    """min(p, q), and where it was rejected the residual, in the numbers that `probs` and `residual` really give."""
    target, near = peaked(vocab, dtype), peaked(vocab, dtype) + 0.5 * peaked(vocab, dtype).flip(0)
    sampler = Sampler(**settings)
    exact, p = sampler.probs(target.double()), sampler.probs(target)
    for guess in (near, near.flip(0), target):
        q = sampler.probs(guess)
        drawn = q.double() / q.double().sum()  # `draw` inverts the distribution function in float64
        kept = drawn * (p / q).nan_to_num(0).clamp(max=1).double()
        rest = residual(p, q).double()
        law = kept + (1 - kept.sum()) * rest / rest.sum()
        assert (law - exact).abs().sum() / 2 <= 1e-6
