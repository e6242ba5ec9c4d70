"""NART-DCRF against the enumeration of every sentence, and its loss against the formula written out."""

import importlib
import math
from itertools import pairwise, product
from typing import Any

import pytest
import torch
from defaults import defaults_of
from torch import Tensor, nn

from reference_impls.core.layers import Shape
from reference_impls.core.seq2seq import EncoderDecoder
from reference_impls.non_autoregressive.nart_crf import (
    StructuredModel,
    Transitions,
    first_path,
    generate,
    log_partition,
    loss,
    viterbi,
)  # fmt: skip
from reference_impls.testing.tiny import sequence_model

MUTANTS = [
    ("forward-by-the-best-path", ".logsumexp(-2) + scores", ".amax(-2) + scores"),
    ("transitions-transposed", "left @ right.mT", "right @ left.mT"),
    (
        "transition-of-the-step-before",
        "(total[..., :, None] + moves[..., i - 1, :, :]).max(-2)",
        "(total[..., :, None] + moves[..., i - 2, :, :]).max(-2)",
    ),
    ("padding-moves-the-sum", "total = torch.where(real[..., i, None], step, total)", "total = step"),
    ("padding-moves-the-path", "torch.where(here, step.indices, stay)", "step.indices"),
    ("path-traced-from-one-place", "came.gather(-1, path[-1])", "came.gather(-1, path[0])"),
    ("reference-not-in-the-beam", 'logits.scatter(-1, gold[..., None], float("inf"))', "logits"),
    ("one-matrix-for-all-places", "if self.dynamic:", "if False:"),
    ("transition-from-one-state", "states[..., 1:, :]), -1)", "states[..., :-1, :]), -1)"),
    ("filler-predicted", "[self.pad, self.end]", "[self.end]"),
    ("causal-fillers", "visible=real[..., None, :]", "visible=None"),
    ("fillers-of-padding-visible", "visible=real[..., None, :]", "visible=torch.ones_like(real)[..., None, :]"),
    ("length-of-the-source", "len(source) + bias", "len(source)"),
    ("the-unlikeliest-length", "judged.argmax()", "judged.argmin()"),
    ("teacher-pass-not-counted", "passes=2 if teacher else 1", "passes=1"),
    ("chain-alone-is-trained", "chain.sum() + weight * words", "chain.sum()"),
    (
        "sentences-weighed-alike",
        "(chain.sum() + weight * words) / real.sum()",
        "(chain / real.sum(-1)).mean() + weight * words / real.sum()",
    ),
    ("lambda-of-a-tenth", "weight: float = 0.5", "weight: float = 0.05"),
]

PAD, END, VOCAB = 0, 1, 6
WORDS = range(2, VOCAB)  # what can be predicted
SOURCES = [5, 3, 2], [4], [2, 2, 4, 3, 5]
Score = dict[tuple[int, ...], float]
each_source = pytest.mark.parametrize("source", SOURCES)
each_kind = pytest.mark.parametrize("dynamic", [True, False], ids=["dynamic", "static"])


class Static(StructuredModel):
    """The same model with one matrix of transitions for all places: NART-CRF."""

    def __init__(self, shape: Shape, longest: int, *, pad: int, end: int) -> None:
        super().__init__(shape, longest, pad=pad, end=end, dynamic=False)


def model_of(seed: int = 0, *, dynamic: bool = True, longest: int = 8) -> StructuredModel:
    kind = StructuredModel if dynamic else Static
    return sequence_model(kind, longest=longest, vocab=VOCAB, seed=seed).requires_grad_(False)


def teacher_of(seed: int = 0, longest: int = 8) -> EncoderDecoder:
    return sequence_model(EncoderDecoder, longest=longest, vocab=VOCAB, seed=seed).requires_grad_(False)


def chain(model: StructuredModel, source: list[int], length: int) -> tuple[list[list[float]], list[list[list[float]]]]:
    """Plain lists s[place][token] and t[place - 1][before][after] of one sentence that stands alone."""
    ones = torch.ones(length, length, dtype=torch.bool)
    h = model.norm(model.decode([PAD] * (length - 1) + [END], model.encode(source), visible=ones))
    e1, e2, own = model.transitions.before, model.transitions.after, model.transitions
    moves = []
    for i in range(1, length):
        middle = torch.eye(own.rank, dtype=h.dtype)
        if own.dynamic:
            inner = torch.clamp(own.pair.weight @ torch.cat((h[i - 1], h[i])) + own.pair.bias, min=0)
            middle = (own.mix.weight @ inner + own.mix.bias).reshape(own.rank, own.rank)
        moves.append((e1 @ middle @ e2.T).tolist())
    return (h @ model.embedding.T).tolist(), moves


def all_scores(model: StructuredModel, source: list[int], length: int) -> Score:
    """The score of every sentence of this length."""
    s, t = chain(model, source, length)
    return {
        y: sum(s[i][y[i]] for i in range(length)) + sum(t[i - 1][y[i - 1]][y[i]] for i in range(1, length))
        for y in product(WORDS, repeat=length)
    }


def log_sum(scores: Any) -> float:
    return float(torch.tensor(list(scores), dtype=torch.float64).logsumexp(0))


def lattice(
    model: StructuredModel, source: list[int], length: int, k: int = VOCAB, gold: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Scores, tokens, moves and `real` of one canvas."""
    real = torch.ones(1, length, dtype=torch.bool)
    states = model.fill(real, model.encode(source))
    scores, tokens = model.beams(states @ model.embedding.T, k, gold)
    return scores, tokens, model.transitions(tokens, states), real


@each_source
@each_kind
def test_the_forward_algorithm_is_the_sum_over_all_sentences(source: list[int], *, dynamic: bool) -> None:
    for seed, length in product(range(3), (1, 2, 5)):
        model = model_of(seed, dynamic=dynamic)
        scores, _, moves, real = lattice(model, source, length)
        wanted = log_sum(all_scores(model, source, length).values())
        assert math.isclose(float(log_partition(scores, moves, real)), wanted, rel_tol=1e-12)


@each_source
@each_kind
def test_the_sentence_is_the_best_of_all(source: list[int], *, dynamic: bool) -> None:
    chain_matters = 0
    for seed in range(4):
        model = model_of(seed, dynamic=dynamic)
        found = all_scores(model, source, len(source) + 1)
        result = generate(model, source, bias=1)
        assert result.tokens == list(max(found, key=found.__getitem__))
        s, _ = chain(model, source, len(source) + 1)
        chain_matters += result.tokens != [max(WORDS, key=row.__getitem__) for row in s]
    assert chain_matters


@pytest.mark.parametrize("k", [1, 2, 3])
def test_within_a_beam_search_and_sum_are_exact(k: int) -> None:
    for seed, source in product(range(3), SOURCES):
        model = model_of(seed)
        s, _ = chain(model, source, 4)
        kept = [sorted(WORDS, key=lambda y, row=row: -row[y])[:k] for row in s]  # type: ignore[misc]
        found = all_scores(model, source, 4)
        inside = {y: found[y] for y in product(*kept)}
        assert len(inside) == k**4
        scores, _, moves, real = lattice(model, source, 4, k)
        assert math.isclose(float(log_partition(scores, moves, real)), log_sum(inside.values()), rel_tol=1e-12)
        text = generate(model, source, bias=4 - len(source), beam=k).tokens
        assert text == list(max(inside, key=inside.__getitem__))
        if k == 1:
            assert text == [max(WORDS, key=row.__getitem__) for row in s]


@each_source
def test_a_smaller_beam_makes_the_partition_smaller(source: list[int]) -> None:
    model = model_of(1)
    sums = []
    for k in range(1, VOCAB + 3):
        scores, _, moves, real = lattice(model, source, 4, k)
        sums.append(float(log_partition(scores, moves, real)))
    usable = len(WORDS)
    assert all(a < b for a, b in pairwise(sums[:usable]))
    assert all(math.isclose(value, sums[usable - 1]) for value in sums[usable:])


def test_the_reference_is_in_every_beam_of_training_and_makes_it_no_larger() -> None:
    model, source = model_of(2), SOURCES[0]
    s, _ = chain(model, source, 4)
    worst = torch.tensor([[min(WORDS, key=row.__getitem__) for row in s]])
    found = all_scores(model, source, 4)
    for k in (1, 2, 3):
        scores, tokens, moves, real = lattice(model, source, 4, k, worst)
        assert torch.equal(tokens[..., 0], worst)
        assert all(len(set(row)) == k for row in tokens[0].tolist())
        assert math.isclose(float(first_path(scores, moves, real)), found[tuple(worst[0].tolist())], rel_tol=1e-12)
        assert float(first_path(scores, moves, real)) <= float(log_partition(scores, moves, real)) + 1e-12
        others = [sorted(WORDS, key=lambda y, row=row: -row[y])[: k - 1] for row in s]  # type: ignore[misc]
        assert [set(row[1:]) for row in tokens[0].tolist()] == [set(row) for row in others]


@each_source
def test_the_gradient_of_the_partition_is_the_law_of_each_place(source: list[int]) -> None:
    model, length = model_of(3), 4
    scores, tokens, moves, real = lattice(model, source, length, len(WORDS))
    scores.requires_grad_()
    (law,) = torch.autograd.grad(log_partition(scores, moves, real).sum(), scores)
    assert torch.allclose(law.sum(-1), torch.ones(1, length, dtype=law.dtype))
    found = all_scores(model, source, length)
    whole = log_sum(found.values())
    for i in range(length):
        for token, p in zip(tokens[0, i].tolist(), law[0, i].tolist(), strict=True):
            wanted = sum(math.exp(v - whole) for y, v in found.items() if y[i] == token)
            assert math.isclose(p, wanted, rel_tol=1e-9)


def test_without_transitions_the_chain_is_plain_parallel_decoding() -> None:
    for seed, source in product(range(3), SOURCES):
        model = model_of(seed, dynamic=False)
        model.transitions.before.zero_()
        assert generate(model, source).tokens == generate(model, source, beam=1).tokens


def test_a_transition_depends_on_its_own_two_places() -> None:
    model = model_of(4)
    tokens = torch.randint(2, VOCAB, (5, 3), generator=torch.Generator().manual_seed(0))
    states = torch.randn(5, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    before = model.transitions(tokens, states)
    states[2] += 1
    changed = (model.transitions(tokens, states) != before).flatten(1).any(-1)
    assert changed.tolist() == [False, True, True, False]
    static = model_of(4, dynamic=False).transitions
    assert torch.equal(static(tokens, states), static(tokens, 0 * states))


def test_dynamic_transitions_start_as_one_matrix_for_all_places() -> None:
    torch.manual_seed(0)
    fresh = Transitions(VOCAB, 8, 4).double()
    tokens, states = torch.tensor([[2, 3], [4, 5], [3, 2]]), torch.randn(3, 8).double()
    matrix = fresh.before @ fresh.after.T
    wanted = torch.stack([matrix[tokens[i]][:, tokens[i + 1]] for i in range(2)])
    assert torch.allclose(fresh(tokens, states), wanted)


def test_padding_changes_neither_score_nor_path() -> None:
    model, lengths, source = model_of(5), (3, 6, 1), SOURCES[2]
    real = torch.arange(6) < torch.tensor(lengths)[:, None]
    states = model.fill(real, model.encode(source))
    gold = torch.randint(2, VOCAB, (3, 6), generator=torch.Generator().manual_seed(1))
    scores, tokens = model.beams(states @ model.embedding.T, 3, gold)
    moves = model.transitions(tokens, states)
    places, best = viterbi(scores, moves, real)
    for row, length in enumerate(lengths):
        alone = lattice(model, source, length, 3, gold[row : row + 1, :length])
        own_places, own_best = viterbi(alone[0], *alone[2:])
        assert torch.equal(places[row, :length], own_places[0])
        assert math.isclose(float(best[row]), float(own_best), rel_tol=1e-12)
        for measure in (log_partition, first_path):
            together = float(measure(scores, moves, real)[row])
            assert math.isclose(together, float(measure(alone[0], *alone[2:])), rel_tol=1e-12)


@each_source
@pytest.mark.parametrize("bias", [-1, 0, 2])
def test_the_length_is_that_of_the_source_and_the_bias(source: list[int], bias: int) -> None:
    assert len(generate(model_of(), source, bias=bias).tokens) == max(1, len(source) + bias)
    assert len(generate(model_of(), source, bias=20).tokens) == 8


def probability(teacher: EncoderDecoder, source: list[int], text: list[int]) -> float:
    """The teacher's log-probability of a text and its end, one token at a time."""
    total, memory, cache = 0.0, teacher.encode(source), teacher.new_cache()
    for given, wanted in zip([END, *text], [*text, END], strict=True):
        total += float(teacher.logits(teacher.decode([given], memory, cache)).log_softmax(-1)[0, wanted])
    return total


@each_source
def test_the_teacher_chooses_among_the_lengths(source: list[int]) -> None:
    winners = set()
    for seed in range(8):
        model, teacher = model_of(seed), teacher_of(seed + 100)
        lengths = [min(7, max(1, len(source) + 1 + d)) for d in (-2, -1, 0, 1, 2)]
        texts = [generate(model, source, bias=n - len(source)).tokens for n in lengths]
        assert [len(text) for text in texts] == lengths
        best = max(texts, key=lambda text: probability(teacher, source, text))
        result = generate(model, source, bias=1, candidates=5, teacher=teacher)
        assert result.tokens == best
        assert result.passes == 2
        winners.add(len(best))
    assert len(winners) > 1


@each_kind
def test_the_loss_is_the_formula_over_all_sentences(*, dynamic: bool) -> None:
    model, smoothing, weight = model_of(6, dynamic=dynamic), 0.1, 0.5
    rows = [([5, 3, 2], [2, 3, 4, 5]), ([4], [3]), ([2, 2, 4, 3, 5], [5, 4, 3])]
    source = torch.tensor([s + [PAD] * (5 - len(s)) for s, _ in rows])
    target = torch.tensor([t + [PAD] * (4 - len(t)) for _, t in rows])
    total, count = 0.0, 0
    for one, text in rows:
        found = all_scores(model, one, len(text))
        total += log_sum(found.values()) - found[tuple(text)]
        log_p = torch.tensor(chain(model, one, len(text))[0], dtype=torch.float64).log_softmax(-1)
        for i, token in enumerate(text):
            smooth = (1 - smoothing) * float(log_p[i, token]) + smoothing * float(log_p[i].mean())
            total -= weight * smooth
            count += 1
    got = loss(model, source, target, weight=weight, smoothing=smoothing)
    assert math.isclose(float(got), total / count, rel_tol=1e-9)


def test_training_gives_finite_gradients_to_everything() -> None:
    model = model_of(7).requires_grad_()
    source, target = torch.tensor([[5, 3, 2], [4, PAD, PAD]]), torch.tensor([[2, 3, 4, 5], [3, 2, PAD, PAD]])
    for beam in (1, 3, 64):
        model.zero_grad()
        loss(model, source, target, beam=beam).backward()
        for name, parameter in model.named_parameters():
            assert parameter.grad is not None
            assert parameter.grad.isfinite().all(), name
            assert beam == 1 or bool(parameter.grad.any()), name


def taught(answers: list[list[int]], *, dynamic: bool) -> tuple[Score, float, list[int]]:
    """A model trained on several answers to one source: its scores, the answers' share by its logits, and its text."""
    source, model = [4, 5], model_of(8, dynamic=dynamic).requires_grad_()
    batch, optimiser = torch.tensor([source] * len(answers)), torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(60):
        optimiser.zero_grad()
        loss(model, batch, torch.tensor(answers), smoothing=0.0).backward()
        optimiser.step()
    model.requires_grad_(False)
    length = len(answers[0])
    p = torch.tensor(chain(model, source, length)[0]).softmax(-1)
    share = sum(math.prod(float(p[i, token]) for i, token in enumerate(text)) for text in answers)
    return all_scores(model, source, length), share, generate(model, source, bias=length - len(source)).tokens


@each_kind
def test_the_chain_learns_two_answers_that_parallel_decoding_mixes(*, dynamic: bool) -> None:
    answers = [[2, 3, 2, 3], [3, 2, 3, 2]]
    found, share, text = taught(answers, dynamic=dynamic)
    assert sum(math.exp(found[tuple(y)] - log_sum(found.values())) for y in answers) > 0.9
    assert share < 0.3
    assert text in answers


def test_one_matrix_cannot_ask_for_equal_and_then_for_different_neighbours() -> None:
    """By symmetry its likeliest law is the uniform one over 2 and 3: an eighth for each of the two answers."""
    answers = [[2, 2, 3], [3, 3, 2]]
    likelihood = {}
    for dynamic in (True, False):
        found, _, _ = taught(answers, dynamic=dynamic)
        likelihood[dynamic] = sum(found[tuple(y)] for y in answers) / 2 - log_sum(found.values())
    assert likelihood[True] > math.log(0.4)
    assert math.log(0.1) < likelihood[False] <= math.log(1 / 8)


def test_a_broken_teacher_is_reported() -> None:
    teacher = teacher_of()
    nn.init.constant_(teacher.norm.weight, math.nan)
    with pytest.raises(ValueError, match="the teacher's logits are not finite"):
        generate(model_of(), [5, 3], candidates=3, teacher=teacher)


@pytest.mark.parametrize("part", ["norm.weight", "transitions.before", "transitions.mix.weight"])
def test_a_broken_model_is_reported_and_not_its_teacher(part: str) -> None:
    model = model_of()
    nn.init.constant_(model.get_parameter(part), math.nan)
    with pytest.raises(ValueError, match="the model's logits are not finite"):
        generate(model, [5, 3], candidates=3, teacher=teacher_of())


def test_a_model_of_one_position_writes_one_word() -> None:
    assert len(generate(model_of(longest=1), [5]).tokens) == 1


def test_a_teacher_may_have_more_positions_than_the_model() -> None:
    options: dict[str, Any] = {"bias": 20, "candidates": 3}
    result = generate(model_of(), [5, 3], teacher=teacher_of(longest=30), **options)
    assert len(result.tokens) == 7  # the end included, the teacher reads as many as the model has positions


def test_what_is_left_out_is_the_papers_setting() -> None:
    """Lambda 0.5, a beam of 64, label smoothing 0.1; one length, that of the source."""
    model, source, target = model_of(6), torch.tensor([SOURCES[0]]), torch.tensor([[2, 3, 4, 5]])
    assert torch.equal(loss(model, source, target), loss(model, source, target, beam=64, weight=0.5, smoothing=0.1))
    for other in ({"weight": 0.05}, {"smoothing": 0.0}, {"beam": 1}):
        assert not torch.isclose(loss(model, source, target), loss(model, source, target, **other))
    whole = generate(model, SOURCES[0])
    assert whole == generate(model, SOURCES[0], beam=64, bias=0, candidates=1, teacher=None)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"beam": 0}, "beam is 0; at least 1 token must be kept"),
        ({"candidates": 0}, "candidates is 0; the model knows the lengths 1 to 8"),
        ({"candidates": 9}, "candidates is 9"),
        ({"candidates": 3}, "there is no teacher to choose among the lengths"),
        ({"teacher": sequence_model(EncoderDecoder, vocab=7, longest=8)}, "vocabularies of 7 and 6 tokens"),
        ({"teacher": teacher_of(longest=7)}, "the teacher has 7 positions and the model 8"),
        ({"model": model_of(longest=1), "source": [5], "teacher": teacher_of()}, "the model has 1 position"),
        ({"source": []}, "give at least one token"),
        ({"source": [VOCAB]}, "token id 6 is outside the model's vocabulary of 6"),
        ({"source": [3] * 9}, "9 tokens are too many: this model knows 8 positions"),
    ],
)
def test_bad_input_gets_one_clear_sentence(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        generate(**{"model": model_of(), "source": [5, 3], **options})


def test_fresh_tables_score_a_pair_with_about_the_size_of_one_product() -> None:
    scores = Transitions(200, 8, 64)
    for table in (scores.before, scores.after):
        assert float(table.detach().norm(dim=1).mean()) == pytest.approx(1, rel=0.05)


def test_defaults_are_the_documented_ones() -> None:
    assert defaults_of(importlib.import_module("reference_impls.non_autoregressive.nart_crf")) == {
        "generate.beam": 64,
        "generate.bias": 0,
        "generate.candidates": 1,
        "StructuredModel.rank": 32,
        "StructuredModel.dynamic": True,
        "Transitions.dynamic": True,
        "loss.beam": 64,
        "loss.weight": 0.5,
        "loss.smoothing": 0.1,
    }
