"""NAT with fertilities against the same algorithm in plain steps, its losses, and REINFORCE by enumeration."""

import importlib
import itertools
import math
from collections import defaultdict
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from defaults import defaults_of
from torch import Tensor, nn

from accelgen.measuring.counterexamples import reinforce
from reference_impls.core.layers import Attention, Shape
from reference_impls.core.sampling import Sampler
from reference_impls.core.seq2seq import EncoderDecoder
from reference_impls.non_autoregressive.nat_fertility import (
    FertilityModel,
    average,
    copies,
    expected_log_p,
    fine_tuning_loss,
    generate,
    loss,
)
from reference_impls.testing.laws import Exhaustive, exact_law, total_variation
from reference_impls.testing.tiny import randomised, sequence_model

MUTANTS = [
    ("copied-one-place-late", "place, right=True)", "place, right=False)"),
    ("plan-never-cut", ".clamp(max=limit)", ""),
    ("plan-without-a-word", "ends = ends.where(ends[:, -1:] > 0, 1)", "pass"),
    (
        "place-sees-itself",
        "~torch.eye(len(places), dtype=torch.bool, device=x.device) | alone",
        "torch.ones(len(places), len(places), dtype=torch.bool) | alone",
    ),
    ("lone-word-sees-nothing", "device=x.device) | alone", "device=x.device)"),
    ("no-positional-attention", "x = x + positional(", "x = x + 0 * positional("),
    ("positional-attention-to-padding", "positional(x, where, seen)", "positional(x, where, None)"),
    ("positional-attention-keeps-off-itself", "positional(x, where, seen)", "positional(x, where, seen_others)"),
    ("copies-without-a-place", "dim=-2) + places", "dim=-2)"),
    ("fertility-end-predicted", "[self.pad, self.end]]", "[self.pad]]"),
    ("average-plan-rounded-down", ".round().long()", ".long()"),
    (
        "one-plan-drawn-for-all-samples",
        "sampler.draw(sampler.probs(scores).expand(samples, -1, -1))",
        "sampler.draw(sampler.probs(scores)).expand(samples, -1)",
    ),
    ("the-teachers-worst-text", "end=model.end).argmax())", "end=model.end).argmin())"),
    ("texts-judged-by-their-mean", "end=model.end).argmax())", "end=model.end).div(real.sum(-1) + 1).argmax())"),
    ("teachers-pass-not-counted", "best, passes = int(", "best, _ = int("),
    ("teacher-hides-a-broken-model", "if not certainty.isfinite().all()", "if False"),
    (
        "padding-has-a-fertility",
        "scores[source_real], fertility[source_real].clamp(max=most)",
        "scores.flatten(0, 1), fertility.flatten().clamp(max=most)",
    ),
    ("reward-of-the-wrong-sign", "(advantage * log_p)", "(-advantage * log_p)"),
    ("reward-of-the-aligners-plan", "model.write(inputs, drawn, memory)", "model.write(inputs, fertility, memory)"),
    ("baseline-of-the-drawn-plan", "average(scores) * source_real", "drawn"),
    ("reward-centred-on-its-own-batch", "(advantage * log_p)", "((advantage - advantage.mean()) * log_p)"),
    ("teacher-of-the-true-text", "taught, p, p.argmax(-1), real", "taught, p, target, real"),
    ("lambda-on-the-other-side", "weight: float = 0.25", "weight: float = 0.75"),
]

PAD, END = 0, 1
SOURCES = [5, 3, 8], [4], [7, 7, 10, 9, 6]
each_source = pytest.mark.parametrize("source", SOURCES)


def model_of(seed: int, most: int = 9) -> FertilityModel:
    shape = Shape(11, dim=8, layers=2, heads=2, kv_heads=1, head_dim=4, hidden=12)
    model = randomised(FertilityModel, shape, seed, longest=12, pad=PAD, end=END, most=most)
    with torch.no_grad():
        model.fertility.weight *= 3  # so that laws differ from word to word
    return model


def teacher_of(seed: int = 11) -> EncoderDecoder:
    return sequence_model(EncoderDecoder, longest=12, seed=seed).requires_grad_(False)


def rows(count: int, width: int, seed: int = 0) -> Tensor:
    return torch.randint(4, (count, width), generator=torch.Generator().manual_seed(seed))


# ---- the plan -----------------------------------------------------------------------------------------------------


def by_hand(fertility: list[int], limit: int) -> list[int]:
    return [i for i, count in enumerate(fertility) for _ in range(count)][:limit] or [0]


@pytest.mark.parametrize("limit", [1, 4, 30])
def test_every_source_word_is_copied_as_often_as_planned_and_in_order(limit: int) -> None:
    plans = torch.cat((rows(50, 5), torch.zeros(1, 5, dtype=torch.long), torch.tensor([[0, 0, 9, 0, 0]])))
    origin, real = copies(plans, limit)
    assert real.shape[1] == real.sum(-1).max()
    for plan, sources, places in zip(plans.tolist(), origin, real, strict=True):
        assert sources[places].tolist() == by_hand(plan, limit)
        assert places.tolist() == sorted(places.tolist(), reverse=True)


@each_source
def test_the_average_plan_is_the_rounded_expectation(source: list[int]) -> None:
    _, _, scores = model_of(1).consider(source)
    p = scores.softmax(-1).tolist()
    assert average(scores).tolist() == [round(sum(f * chance for f, chance in enumerate(law))) for law in p]


def test_the_average_plan_of_narrow_logits_is_computed_wide() -> None:
    """An expected fertility of 0.5005, which bfloat16 would make 0.5 and round to none."""
    assert int(average(torch.tensor([0.0, 0.002], dtype=torch.bfloat16))) == 1


@each_source
@pytest.mark.parametrize("decoding", ["argmax", "average"])
def test_the_text_is_as_long_as_its_plan(source: list[int], decoding: Any) -> None:
    lengths = set()
    for seed in range(6):
        model = model_of(seed, most=3)
        scores = model.consider(source)[2]
        planned = average(scores) if decoding == "average" else scores.argmax(-1)
        result = generate(model, source, decoding=decoding)
        assert len(result.tokens) == min(max(1, int(planned.sum())), 11)
        lengths.add(len(result.tokens))
    assert len(lengths) > 1


# ---- the decoder --------------------------------------------------------------------------------------------------


def attend(layer: Attention, asking: Tensor, asked: Tensor, read: Tensor, seen: Tensor) -> Tensor:
    """Attention one head and one place at a time; grouped queries share their keys."""
    size, heads = layer.head_dim, layer.heads
    queries, rest = layer.qkv[:, : heads * size], layer.qkv[:, heads * size :]
    keys, values = rest.chunk(2, dim=1)
    out = []
    for i in range(len(asking)):
        parts = []
        for head in range(heads):
            own = slice(head * size, (head + 1) * size)
            group = head * layer.kv_heads // heads
            shared = slice(group * size, (group + 1) * size)
            scores = (asked @ keys[:, shared]) @ (asking[i] @ queries[:, own]) / math.sqrt(size)
            weights = scores.masked_fill(~seen[i], -math.inf).softmax(-1)
            parts.append(weights @ (read @ values[:, shared]))
        out.append(torch.cat(parts) @ layer.out)
    return torch.stack(out)


def written(model: FertilityModel, source: list[int], plan: list[int]) -> Tensor:
    """Logits of the text for one plan, from the paper's description."""
    inputs = model.embedding[source] + model.positions[: len(source)]
    states = model.read(inputs)
    origin = by_hand(plan, model.longest - 1)
    n = len(origin)
    places = model.positions[:n]
    x = inputs[origin] + places
    others, everything = ~torch.eye(n, dtype=torch.bool), torch.ones(n, max(n, len(source)), dtype=torch.bool)
    if n == 1:
        others = torch.ones(1, 1, dtype=torch.bool)
    for block, reorder in zip(model.decoder, model.reorder, strict=True):
        normed = block.attention_norm(x)
        x = x + attend(block.attention, normed, normed, normed, others)
        where = places / places.square().mean(-1, keepdim=True).add(torch.finfo(places.dtype).eps).sqrt()
        x = x + attend(reorder, where, where, reorder.norm(x), everything[:, :n])
        x = x + attend(block.cross, block.cross_norm(x), states, states, everything[:, : len(source)])
        x = x + block.feed(x)
    logits = model.norm(x) @ model.embedding.T
    logits[:, [PAD, END]] = -math.inf
    return logits


@each_source
@torch.no_grad()
def test_plans_side_by_side_are_each_written_as_if_alone(source: list[int]) -> None:
    model = model_of(2)
    plans = torch.cat((rows(6, len(source)), F.pad(torch.tensor([[1]]), (0, len(source) - 1))))
    inputs, memory, _ = model.consider(source)
    logits, real = model.write(inputs, plans, memory)
    for plan, found, places in zip(plans.tolist(), logits, real, strict=True):
        assert torch.allclose(found[places], written(model, source, plan), atol=1e-10)


@torch.no_grad()
def test_a_padded_batch_of_sources_equals_each_alone() -> None:
    model, width = model_of(3), max(map(len, SOURCES))
    source = torch.tensor([row + [PAD] * (width - len(row)) for row in SOURCES])
    real = source != PAD
    plans = rows(3, width) * real
    inputs, memory, scores = model.consider(source, real)
    logits, places = model.write(inputs, plans, memory)
    for i, row in enumerate(SOURCES):
        assert torch.allclose(scores[i, : len(row)], model.consider(row)[2])
        assert torch.allclose(logits[i, places[i]], written(model, row, plans[i, : len(row)].tolist()), atol=1e-10)


# ---- noisy parallel decoding --------------------------------------------------------------------------------------


@torch.no_grad()
def text_of(model: FertilityModel, source: list[int], plan: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(written(model, source, list(plan)).argmax(-1).tolist())


@torch.no_grad()
def judged(teacher: EncoderDecoder, source: list[int], text: tuple[int, ...]) -> float:
    """The teacher's log-probability of a text and its end, one token at a time."""
    memory, cache, total = teacher.encode(source), teacher.new_cache(), 0.0
    for before, token in itertools.pairwise([END, *text, END]):
        total += float(teacher.logits(teacher.decode([before], memory, cache))[0].log_softmax(-1)[token])
    return total


def plan_law(model: FertilityModel, source: list[int]) -> dict[tuple[int, ...], float]:
    p = model.consider(source)[2].softmax(-1).detach()
    plans = itertools.product(range(p.shape[-1]), repeat=len(source))
    return {plan: math.prod(float(law[f]) for law, f in zip(p, plan, strict=True)) for plan in plans}


@torch.no_grad()
@pytest.mark.parametrize("samples", [1, 2])
def test_the_law_of_noisy_decoding_is_that_of_the_teachers_choice_among_plans(samples: int) -> None:
    model, teacher, source = model_of(4, most=2), teacher_of(), [5, 8]
    plans = plan_law(model, source)
    texts = {plan: text_of(model, source, plan) for plan in plans}
    score = {text: judged(teacher, source, text) for text in set(texts.values())}
    assert len(score) > 3
    wanted: defaultdict[tuple[int, ...], float] = defaultdict(float)
    for drawn in itertools.product(plans, repeat=samples):
        best = max((texts[plan] for plan in drawn), key=score.__getitem__)
        wanted[best] += math.prod(plans[plan] for plan in drawn)

    def run(sampler: Exhaustive) -> Any:
        return generate(model, source, decoding="noisy", teacher=teacher, samples=samples, sampler=sampler)

    assert total_variation(exact_law(run), wanted) < 1e-9


@torch.no_grad()
def test_the_teacher_judges_all_texts_in_one_pass_as_it_would_token_by_token() -> None:
    teacher, source = teacher_of(), [5, 3, 8]
    texts = [(4, 5, 6, 7), (9,), (3, 3)]
    padded = torch.tensor([list(text) + [PAD] * (4 - len(text)) for text in texts])
    found = expected_log_p(teacher, teacher.encode(source), F.one_hot(padded, 11), padded, padded != PAD, end=END)
    assert found.tolist() == pytest.approx([judged(teacher, source, text) for text in texts])


def test_the_choice_is_by_the_whole_text_and_not_by_its_mean_as_in_published_code() -> None:
    """By the mean, the teacher would choose another and less likely text for four of ten random models."""
    teacher, source, others = teacher_of(), [5, 3], 0
    for seed in range(10):
        model = model_of(seed, most=2)
        texts = {text_of(model, source, plan) for plan in plan_law(model, source)}
        score = {text: judged(teacher, source, text) for text in texts}
        sampler = Sampler(20.0)  # nearly uniform, so that 100 draws hold each of the nine plans
        result = generate(model, source, decoding="noisy", teacher=teacher, samples=100, sampler=sampler)
        assert tuple(result.tokens) == max(texts, key=score.__getitem__)
        others += max(texts, key=lambda text: score[text] / (len(text) + 1)) != tuple(result.tokens)
    assert others == 4


@pytest.mark.parametrize("samples", [1, 7, 40])
def test_the_number_of_plans_does_not_change_the_number_of_passes(samples: int) -> None:
    result = generate(model_of(0), [5, 3, 8], decoding="noisy", teacher=teacher_of(), samples=samples)
    assert result.passes == 2
    assert generate(model_of(0), [5, 3, 8]).passes == 1


def test_a_cold_sampler_draws_only_the_likeliest_plan() -> None:
    model = model_of(5)
    result = generate(model, [5, 3, 8], decoding="noisy", teacher=teacher_of(), sampler=Sampler(0))
    assert result.tokens == generate(model, [5, 3, 8]).tokens


# ---- training -----------------------------------------------------------------------------------------------------

PAIRS = [([5, 3, 8], [2, 0, 1], [6, 7, 8]), ([4, 9], [1, 0], [3]), ([7, 7, 10, 9, 6], [0, 1, 1, 0, 2], [9, 8, 7, 5])]


def batch() -> tuple[Tensor, Tensor, Tensor]:
    columns = []
    for column in zip(*PAIRS, strict=True):
        width = max(map(len, column))
        columns.append(torch.tensor([row + [PAD] * (width - len(row)) for row in column]))
    source, fertility, target = columns
    return source, target, fertility


@torch.no_grad()
def known_by_hand(model: FertilityModel) -> float:
    total = 0.0
    for source, plan, target in PAIRS:
        words = written(model, source, plan).log_softmax(-1)
        counts = model.consider(source)[2].log_softmax(-1)
        total -= sum(float(row[token]) for row, token in zip(words, target, strict=True))
        total -= sum(float(row[f]) for row, f in zip(counts, plan, strict=True))
    return total


@torch.no_grad()
def test_the_loss_is_that_of_the_words_given_the_plan_and_of_the_plan() -> None:
    model = model_of(6)
    assert float(loss(model, *batch())) == pytest.approx(known_by_hand(model) / 8)


@torch.no_grad()
def test_a_fertility_beyond_the_most_is_learnt_as_the_most_and_copied_in_full() -> None:
    model, target = model_of(6, most=2), torch.tensor([[3, 4, 5, 6]])
    found = loss(model, torch.tensor([[5, 3]]), target, torch.tensor([[4, 0]]))
    words = written(model, [5, 3], [4, 0]).log_softmax(-1).gather(-1, target.T).sum()
    counts = model.consider([5, 3])[2].log_softmax(-1)
    assert float(found) == pytest.approx(float(-words - counts[0, 2] - counts[1, 0]) / 4)


@torch.no_grad()
def test_a_target_longer_than_any_plan_is_cut_with_it() -> None:
    model, target = model_of(6), torch.full((1, 12), 4)
    found = loss(model, torch.tensor([[5, 3]]), target, torch.tensor([[6, 6]]))
    words = written(model, [5, 3], [6, 6]).log_softmax(-1)[:, 4]
    counts = model.consider([5, 3])[2].log_softmax(-1)[:, 6]
    assert len(words) == 11
    assert float(found) == pytest.approx(float(-words.sum() - counts.sum()) / 12)


def divergence(model: FertilityModel, teacher: EncoderDecoder, source: list[int], plan: list[int]) -> Tensor:
    """L_RKL as a double sum over places and words, and the end."""
    p = written(model, source, plan).softmax(-1)
    text = p.argmax(-1).tolist()
    log_p = teacher.logits(teacher.decode([END, *text], teacher.encode(source))).log_softmax(-1)
    return -sum(p[t, y] * log_p[t, y] for t in range(len(text)) for y in range(11)) - log_p[len(text), END]


def gradient(value: Tensor, model: nn.Module) -> Tensor:
    found = torch.autograd.grad(value, list(model.parameters()), allow_unused=True)
    return torch.cat(
        [(torch.zeros_like(p) if g is None else g).flatten() for g, p in zip(found, model.parameters(), strict=True)]
    )


def test_the_gradient_of_fine_tuning_is_unbiased() -> None:
    """The mean over all draws is the gradient of the objective, in which every plan's cost is weighted with its law."""
    model, teacher = model_of(7, most=2), teacher_of()
    source, plan, target = [5, 8], [1, 2], [6, 7, 3]
    data = tuple(torch.tensor([row]) for row in (source, target, plan))
    found, total = torch.zeros(()), 0.0
    open_: list[list[int]] = [[]]
    while open_:
        sampler = Exhaustive(open_.pop())
        value = fine_tuning_loss(model, teacher, *data, sampler=sampler, weight=0.4)
        found, total = found + sampler.weight * gradient(value, model), total + sampler.weight
        open_ += sampler.open
    assert total == pytest.approx(1)

    p = model.consider(source)[2].softmax(-1)
    expectation = sum(
        p[0, a] * p[1, b] * divergence(model, teacher, source, [a, b]).detach()
        for a, b in itertools.product(range(3), repeat=2)
    )
    costs = [divergence(model, teacher, source, list(f)).detach() for f in itertools.product(range(3), repeat=2)]
    assert max(costs) - min(costs) > 1  # else the choice of a plan would not matter
    words = written(model, source, plan).log_softmax(-1).gather(-1, torch.tensor(target)[:, None]).sum()
    known = -words - model.consider(source)[2].log_softmax(-1)[[0, 1], plan].sum()
    objective = 0.4 * (expectation + divergence(model, teacher, source, plan)) + 0.6 * known
    assert torch.allclose(found, gradient(objective / 3, model), atol=1e-10)


def test_published_centring_halves_the_gradient_for_two_like_sentences() -> None:
    """Published code takes the batch's mean from the rewards, the sample itself among them: 1 - 1/B of the gradient."""
    law, reward = [0.2, 0.5, 0.3], [1.0, -2.0, 4.0]
    exact = reinforce(law, reward, lambda *_: 0.0)
    centred = reinforce(law, reward, lambda own, other: (own + other) / 2)
    assert centred == pytest.approx([value / 2 for value in exact])


def test_fine_tuning_pads_like_the_loss_and_leaves_the_teacher_alone() -> None:
    model, teacher = model_of(8), teacher_of().requires_grad_(True)
    value = fine_tuning_loss(model, teacher, *batch(), sampler=Sampler(0), weight=0.0)
    assert value.item() == pytest.approx(known_by_hand(model) / 8)
    cold = fine_tuning_loss(model, teacher, *batch(), sampler=Sampler(0), weight=1.0)
    likeliest = [model.consider(source)[2].argmax(-1).tolist() for source, _, _ in PAIRS]
    wanted = 0.0
    for (source, plan, _), drawn in zip(PAIRS, likeliest, strict=True):
        scores = model.consider(source)[2]
        log_p = scores.log_softmax(-1)[range(len(source)), drawn].sum()
        baseline = divergence(model, teacher, source, average(scores).tolist())
        advantage = divergence(model, teacher, source, drawn) - baseline
        wanted += (advantage * log_p + divergence(model, teacher, source, plan)).item()
    assert cold.item() == pytest.approx(wanted / 8)
    cold.backward()
    assert all(p.grad is None for p in teacher.parameters())


def test_what_is_left_out_is_a_quarter_of_fine_tuning() -> None:
    model, teacher = model_of(8), teacher_of()
    found, wanted, other = (
        fine_tuning_loss(model, teacher, *batch(), sampler=Sampler(seed=3), **weight).item()
        for weight in ({}, {"weight": 0.25}, {"weight": 0.75})
    )
    assert found == wanted
    assert found != pytest.approx(other)


def test_what_is_left_out_is_the_likeliest_plan_or_ten_drawn_as_they_are() -> None:
    model, teacher, source = model_of(4), teacher_of(), [5, 8, 3]
    assert generate(model, source) == generate(model, source, decoding="argmax")
    noisy: dict[str, Any] = {"decoding": "noisy", "teacher": teacher}
    assert generate(model, source, **noisy) == generate(model, source, samples=10, sampler=Sampler(), **noisy)
    assert FertilityModel(model.shape, 12, pad=PAD, end=END).fertility.out_features == 10


# ---- what is no number --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("decoding", ["argmax", "average", "noisy"])
@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_a_broken_fertility_head_is_reported(decoding: Any, wrong: float) -> None:
    """It would else plan a text, of no word or of any number, without a word about it."""
    model = model_of(0)
    with torch.no_grad():
        model.fertility.bias[1] = wrong
    with pytest.raises(ValueError, match="the fertilities' logits are not finite"):
        generate(model, [5, 3, 8], decoding=decoding, teacher=teacher_of())


def test_a_broken_decoder_and_a_broken_teacher_are_told_apart() -> None:
    model, teacher = model_of(0), teacher_of()
    nn.init.constant_(teacher.norm.weight, math.nan)
    with pytest.raises(ValueError, match="the teacher's logits are not finite"):
        generate(model, [5, 3], decoding="noisy", teacher=teacher)
    nn.init.constant_(model.norm.weight, math.nan)
    with pytest.raises(ValueError, match="the model's logits are not finite"):
        generate(model, [5, 3], decoding="noisy", teacher=teacher)


def test_a_fertility_that_is_forbidden_is_not_broken() -> None:
    model = model_of(0, most=2)
    with torch.no_grad():
        model.fertility.bias[[0, 2]] = -math.inf
    for decoding in ("argmax", "average", "noisy"):
        result = generate(model, [5, 3, 8], decoding=decoding, teacher=teacher_of())  # type: ignore[arg-type]
        assert len(result.tokens) == 3


# ---- options ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"decoding": "beam"}, "decoding is 'beam'; choose argmax, average or noisy"),
        ({"decoding": "noisy"}, "noisy decoding needs a teacher"),
        ({"samples": 0}, "samples is 0; give a number at least 1"),
        ({"teacher": sequence_model(EncoderDecoder, vocab=10)}, "vocabularies of 10 and 11 tokens"),
        ({"teacher": sequence_model(EncoderDecoder, longest=9)}, "the teacher has 9 positions and the model 12"),
        ({"source": []}, "give at least one token"),
        ({"source": [11]}, "token id 11 is outside the model's vocabulary of 11"),
        ({"source": [3] * 13}, "13 tokens are too many: this model knows 12 positions"),
    ],
)
def test_bad_input_gets_one_clear_sentence(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        generate(**{"model": model_of(0), "source": [5, 3], **options})


def test_defaults_are_the_documented_ones() -> None:
    assert defaults_of(importlib.import_module("reference_impls.non_autoregressive.nat_fertility")) == {
        "generate.decoding": "argmax",
        "generate.samples": 10,
        "FertilityModel.most": 9,
        "fine_tuning_loss.weight": 0.25,
    }
