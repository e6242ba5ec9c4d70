"""SpecDec against the same algorithm in plain steps, its acceptance rule one by one, and glancing training by hand."""

import importlib
import itertools
import math
from typing import Any

import pytest
import torch
from defaults import defaults_of
from torch import Tensor, nn

from reference_impls.baselines.translation import generate as translate
from reference_impls.core.generation import Step
from reference_impls.core.layers import Shape
from reference_impls.core.sampling import Sampler
from reference_impls.core.seq2seq import EncoderDecoder, Memory
from reference_impls.speculative_decoding.specdec import (
    SpecDrafter,
    count_kept,
    fill_block,
    generate,
    initialise,
    loss,
    masked_block,
    random_places,
)
from reference_impls.testing.checks import counted
from reference_impls.testing.tiny import END, MASK, PERIOD, randomised, sequence_model

MUTANTS = [
    ("gap-to-the-own-token-unchecked", " & (gap <= tau)", ""),
    ("rank-unchecked", "(better.sum(-1) < beta) & ", ""),
    ("one-rank-too-many", "better.sum(-1) < beta", "better.sum(-1) <= beta"),
    ("ties-all-pass", " | ((logits == score) & (tokens < guess))", ""),
    ("refused-guesses-do-not-stop", ".cumprod(0).sum()", ".sum()"),
    ("judged-one-place-late", "logits[:-1].to(wide(logits))", "logits[1:].to(wide(logits))"),
    ("gap-in-narrow-numbers", "logits[:-1].to(wide(logits))", "logits[:-1]"),
    ("refused-words-stay-in-the-cache", "cache.crop(len(tokens))", "pass"),
    ("newest-word-read-already", "cache.crop(len(tokens))", "cache.crop(len(tokens) + 1)"),
    ("drafter-does-not-see-the-text", "[*tokens, *[drafter.mask_id]", "[*[0] * len(tokens), *[drafter.mask_id]"),
    ("drafter-reads-from-the-left-alone", "visible=(canvas != self.pad)[..., None, :]", "visible=None"),
    ("padding-visible", "(canvas != self.pad)[..., None, :]", "(canvas >= 0)[..., None, :]"),
    ("guesses-behind-the-end", "block[: block.index(eos) + 1] if eos in block else block", "block"),
    ("end-never-guessed", "block[: block.index(eos) + 1]", "block[: block.index(eos)]"),
    ("no-room-for-the-first-word", "model.longest - 1 - len(tokens)", "model.longest - len(tokens)"),
    ("drafter-out-of-places", ", drafter.longest - len(tokens))", ")"),
    ("decoder-as-deep-as-the-encoder", "self.decoder = self.decoder[:decoder_layers]", "pass"),
    ("source-drafted-from-the-models-memory", "drafter.encode(source), model.new_cache()", "memory, model.new_cache()"),
    ("draft-pass-not-counted", "draft_passes=int(masks > 0)", "draft_passes=0"),
    ("never-glances", "(wrong.sum(-1) * share)", "(wrong.sum(-1) * 0)"),
    ("glances-at-a-share-of-all", "(wrong.sum(-1) * share)", "(learnt.sum(-1) * share)"),
    ("what-was-shown-is-learnt", "learnt & ~shown", "learnt"),
    ("wrong-behind-the-end", "wrong = learnt & (", "wrong = (canvas == drafter.mask_id) & ("),
    ("end-not-learnt", "return canvas, block & real", "return canvas, block & real & (wanted != 1)"),
    ("prefix-never-empty", "(chance * real.sum(-1)).long()", "(chance * (real.sum(-1) - 1)).long() + 1"),
    ("text-behind-the-block", ".masked_fill(places >= start + gamma, drafter.pad)", ""),
    ("begins-with-the-models-decoder", '"positions", "encoder")', '"positions", "encoder", "decoder")'),
    ("begins-without-the-models-encoder", '"positions", "encoder")', '"positions")'),
]  # fmt: skip

PAD = 0
SHAPE = Shape(11, dim=8, layers=2, heads=2, kv_heads=1, head_dim=4, hidden=12)
Rule = tuple[int, int, float]  # gamma, beta and tau
SOURCES = [5, 3, 8], [4], [7, 7, 10, 9, 6]
RULES = (1, 0.0), (1, math.inf), (2, 0.1), (3, 1.0), (5, 0.3), (11, 0.2), (11, math.inf)


def model_of(seed: int, longest: int = 12) -> EncoderDecoder:
    """A random translator; those of these seeds do not repeat one word for ever."""
    return sequence_model(EncoderDecoder, longest=longest, seed=seed).requires_grad_(False)


def drafter_of(seed: int, longest: int = 12, layers: int = 1) -> SpecDrafter:
    own = {"longest": longest, "pad": PAD, "mask_id": MASK, "decoder_layers": layers}
    return randomised(SpecDrafter, SHAPE, seed, **own).requires_grad_(False)


def greedy(model: EncoderDecoder, source: list[int], limit: int = 12, eos: int = END) -> list[int]:
    return translate(model, source, limit, sampler=Sampler(0), eos=eos).tokens


class Knowing(SpecDrafter):
    """A drafter that knows the text, as a `noisy` one wrong at every third place, and notes what it was shown."""

    def __init__(self, text: list[int], *, noisy: bool = False) -> None:
        super().__init__(SHAPE, 30, pad=PAD, mask_id=MASK)
        self.double()
        padded = [*text, *[END] * (30 - len(text))]
        self.text = [(token + (noisy and place % PERIOD == 0)) % 11 for place, token in enumerate(padded)]
        self.seen = list[list[int]]()

    def fill(self, canvas: Tensor, memory: Memory) -> Tensor:  # noqa: ARG002
        self.seen.append(canvas.tolist())
        sure = 1e3 * nn.functional.one_hot(torch.tensor(self.text[: canvas.shape[-1]]), 11).double()
        return sure.expand(*canvas.shape, 11)

    def logits(self, x: Tensor) -> Tensor:
        return x


# The whole algorithm in plain steps


def by_hand(
    models: tuple[EncoderDecoder, SpecDrafter], source: list[int], limit: int, rule: Rule, eos: int
) -> list[Step]:
    """Without a cache, place by place, with the rule in the words of the paper."""
    text, steps, (gamma, beta, tau), (model, drafter) = list[int](), list[Step](), rule, models
    memory, draft_memory = model.encode(source), drafter.encode(source)
    while len(text) < limit and eos not in text:
        masks = min(gamma, model.longest - 1 - len(text), drafter.longest - len(text))
        draft = list[int]()
        if masks > 0:
            canvas = [*text, *[MASK] * masks]
            seen = torch.tensor([token != PAD for token in canvas]).expand(len(canvas), -1)
            rows = drafter.logits(drafter.decode(canvas, draft_memory, visible=seen)).tolist()
            draft = [max(range(11), key=row.__getitem__) for row in rows[len(text) :]]
            draft = draft[: draft.index(eos) + 1] if eos in draft else draft
        emitted = list[int]()
        for guess in [*draft, None]:
            row = model.logits(model.decode([eos, *text, *emitted], memory))[-1].log_softmax(-1).tolist()
            best_first = sorted(range(11), key=lambda token: -row[token])
            if guess is not None and guess in best_first[:beta] and row[best_first[0]] - row[guess] <= tau:
                emitted.append(guess)
            else:
                emitted.append(best_first[0])
                break
        kept = len(emitted) - 1
        emitted = emitted[: limit - len(text)]
        emitted = emitted[: emitted.index(eos) + 1] if eos in emitted else emitted
        steps.append(Step(emitted, draft, kept=min(kept, len(emitted)), draft_passes=int(masks > 0)))
        text += emitted
    return steps


@pytest.mark.parametrize(("beta", "tau"), RULES)
@pytest.mark.parametrize("gamma", [1, 3, 25])
def test_every_step_is_that_of_the_algorithm_by_hand(gamma: int, beta: int, tau: float) -> None:
    kept = 0
    for seed, source in enumerate(SOURCES):
        for longest in (6, 14):  # of the drafter, which falls silent where its positions end
            model, drafter = model_of(seed), drafter_of(100 + seed, longest)
            for eos in (END, 7):
                wanted = by_hand((model, drafter), source, 12, (gamma, beta, tau), eos)
                own = {"drafter": drafter, "gamma": gamma, "beta": beta, "tau": tau, "eos": eos}
                assert generate(model, source, 12, **own).steps == wanted
                kept += sum(step.kept for step in wanted)
    assert kept > 0 or (beta, tau) in [(1, 0.0), (1, math.inf), (2, 0.1)]  # random drafters seldom say the model's word


@pytest.mark.parametrize("limit", range(13))
def test_limits_cut_the_text_and_the_last_place_of_the_model_is_used(limit: int) -> None:
    model, drafter = model_of(0), drafter_of(100)
    result = generate(model, SOURCES[0], limit, drafter=drafter, eos=9, beta=3, tau=0.2)
    assert result.steps == by_hand((model, drafter), SOURCES[0], limit, (25, 3, 0.2), 9)
    assert len(result.tokens) == limit


# beta = 1: the greedy text


@pytest.mark.parametrize("quality", ["random", "noisy", "perfect"])
@pytest.mark.parametrize("gamma", [1, 2, 4, 25])
def test_with_beta_1_the_text_is_the_greedy_one_and_every_right_guess_counts(quality: str, gamma: int) -> None:
    for seed in range(8):
        model, source = model_of(seed, 16), SOURCES[seed % 3]
        text = greedy(model, source, 16)
        drafter = drafter_of(seed) if quality == "random" else Knowing(text, noisy=quality == "noisy")
        for tau in (0.0, math.inf):
            result = generate(model, source, 16, drafter=drafter, eos=END, gamma=gamma, beta=1, tau=tau)
            assert result.tokens == text
            assert all(step.emitted for step in result.steps)
            if quality == "perfect":
                assert result.passes == math.ceil(len(text) / (gamma + 1))
            place = 0
            for step in result.steps:
                right = [a == b for a, b in zip(step.drafted, text[place:], strict=False)]
                best = right.index(False) if False in right else len(right)
                assert step.kept == min(best, len(step.emitted))
                place += len(step.emitted)


def test_with_tau_0_the_text_is_the_greedy_one_too() -> None:
    for seed in range(8):
        model = model_of(seed)
        found = generate(model, SOURCES[2], 12, drafter=drafter_of(seed), eos=END, beta=11, tau=0.0)
        assert found.tokens == greedy(model, SOURCES[2])


# The relaxed rule


def test_what_is_kept_is_likely_enough_after_what_really_stands_before_it() -> None:
    """Also where an earlier guess was not the greedy word, so that the text has left the greedy one."""
    left = 0
    for seed in range(12):
        model, drafter, source = model_of(seed), drafter_of(seed), SOURCES[seed % 3]
        result = generate(model, source, 12, drafter=drafter, eos=END, gamma=4, beta=4, tau=0.5)
        logits = model.logits(model.decode([END, *result.tokens[:-1]], model.encode(source)))
        place = 0
        for step in result.steps:
            for i, token in enumerate(step.emitted):
                row = logits[place + i]
                if i < step.kept:
                    assert (row > row[token]).sum() < 4
                    assert row.max() - row[token] <= 0.5
                else:
                    assert token == row.argmax()
            place += len(step.emitted)
        left += result.tokens != greedy(model, source)
    assert left > 3  # lossy indeed


def test_a_wider_rule_keeps_at_least_as_much_of_the_first_block() -> None:
    wider = 0
    for seed in range(12):
        model, drafter = model_of(seed), drafter_of(seed)
        own = {"drafter": drafter, "eos": END, "gamma": 6}
        kept = [
            generate(model, SOURCES[2], 12, **own, beta=beta, tau=tau).steps[0].kept
            for beta, tau in ((1, 0.0), (2, 0.3), (3, 0.3), (3, 1.0), (11, 1.0), (11, math.inf))
        ]
        assert kept == sorted(kept)
        wider += kept[0] < kept[-1]
    assert wider > 5


ROW = [0.0, 2.0, 1.0, 2.0, -math.inf, 1.5, 2.0]  # tokens in their order: 1, 3, 6, 5, 2, 0, 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_one_guess_passes_by_its_rank_and_its_distance(dtype: torch.dtype) -> None:
    order = [1, 3, 6, 5, 2, 0, 4]
    for beta, tau, guess in itertools.product(range(1, 9), (0.0, 0.4, 0.5, 1.0, 2.0, math.inf), range(7)):
        passes = order.index(guess) < beta and 2.0 - ROW[guess] <= tau
        assert int(count_kept([guess], torch.tensor([ROW, ROW], dtype=dtype), beta, tau)) == passes


def test_equal_logits_pass_as_greedy_decoding_takes_them() -> None:
    """Narrow types round different logits to the same number, so ties are no rare thing."""
    logits = torch.zeros(40, 11, dtype=torch.bfloat16)
    logits[torch.arange(40), torch.arange(40) % 11] = logits[torch.arange(40), (torch.arange(40) * 7 + 3) % 11] = 1.0
    own = Sampler(0).draw(Sampler(0).probs(logits)).tolist()
    for place, token in enumerate(own):
        for guess in range(11):
            assert int(count_kept([guess], logits[[place, place]], 1, 0.0)) == (guess == token)


def test_distances_of_a_narrow_model_are_taken_wide() -> None:
    """In bfloat16 the difference of 256 and 0.2 would be 256."""
    logits = torch.tensor([[256.0, 0.2], [0.0, 0.0]]).to(torch.bfloat16)
    gap = float(logits[0, 0].double() - logits[0, 1].double())
    assert int(count_kept([1], logits, 2, gap)) == 1
    assert int(count_kept([1], logits, 2, gap - 0.01)) == 0


def test_the_first_refused_guess_ends_the_draft() -> None:
    rows = torch.tensor([[0.0, 1.0, 2.0], [2.0, 0.0, 1.0], [0.0, 2.0, 1.0], [9.0, 0.0, 0.0]])
    assert [int(count_kept(draft, rows, 1, 0.0)) for draft in ([2, 0, 1], [2, 1, 1], [0, 0, 1])] == [3, 1, 0]
    assert [int(count_kept(draft, rows, 2, 1.0)) for draft in ([1, 2, 2], [1, 1, 2], [1, 2, 0])] == [3, 1, 2]
    assert int(count_kept([], rows[:1], 1, 0.0)) == 0


# The drafter


def test_a_source_is_read_once_by_each_model_and_a_block_costs_one_pass() -> None:
    model, drafter = model_of(0), drafter_of(100)
    readers = {"model reads": model.encoder[0], "drafter reads": drafter.encoder[0]}
    with counted(**readers, passes=model.decoder[0], draft_passes=drafter.decoder[0]) as calls:
        result = generate(model, SOURCES[0], 12, drafter=drafter, eos=END, gamma=5, beta=1)
    assert (calls["model reads"], calls["drafter reads"]) == (1, 1)
    assert (calls["passes"], calls["draft_passes"]) == (result.passes, result.draft_passes)
    assert result.passes > 2


def test_the_drafter_sees_the_text_and_as_many_masks_as_there_is_room() -> None:
    model = model_of(3)
    text = greedy(model, SOURCES[0], 12, eos=0)
    drafter = Knowing(text, noisy=True)
    result = generate(model, SOURCES[0], 12, drafter=drafter, eos=0, gamma=5, beta=1)
    done = [sum(len(step.emitted) for step in result.steps[:i]) for i in range(result.draft_passes)]
    assert drafter.seen == [text[:place] + [MASK] * min(5, 12 - 1 - place) for place in done]
    assert len(done) > 2


def test_every_place_of_a_block_depends_on_the_whole_text_the_source_and_the_masks_around_it() -> None:
    drafter = drafter_of(5)

    def logits(tokens: list[int], masks: int, source: list[int] = SOURCES[0]) -> Tensor:
        canvas = torch.tensor([*tokens, *[MASK] * masks])
        return drafter.logits(drafter.fill(canvas, drafter.encode(source)))[len(tokens) :]

    base = logits([6, 7, 8], 4)
    texts = logits([9, 7, 8], 4), logits([6, 7, 9], 4)
    for other in (*texts, logits([6, 7, 8], 4, SOURCES[2]), logits([6, 7, 8], 5)[:4]):
        assert ((base - other).abs() > 1e-6).any(-1).all()
    assert fill_block(drafter, [6, 7, 8], 4, drafter.encode(SOURCES[0])) == base.argmax(-1).tolist()
    assert len({tuple(row) for row in base.tolist()}) == 4  # places of equal masks are told apart


def test_the_decoder_is_shallow_and_the_encoder_deep() -> None:
    for layers in (1, 2):
        drafter = drafter_of(0, layers=layers)
        assert (len(drafter.encoder), len(drafter.decoder)) == (2, layers)
        assert len(drafter.encode([5]).layers) == layers


def test_it_begins_with_the_models_reading_and_a_decoder_of_its_own() -> None:
    model, drafter = model_of(1), drafter_of(2)
    for module in (model, drafter):
        for norm in (module.norm, module.encoder_norm):
            nn.init.normal_(norm.weight)
    before = {name: value.clone() for name, value in drafter.state_dict().items()}
    initialise(drafter, model)
    assert torch.equal(drafter.encode(SOURCES[0]).states, model.encode(SOURCES[0]).states)
    assert torch.equal(drafter.embed([3, 4]), model.embed([3, 4]))
    own = [name for name in before if name.startswith(("decoder.", "norm."))]
    assert all(torch.equal(drafter.state_dict()[name], before[name]) for name in own)
    assert len(own) > 8


# Glancing training


def batch() -> tuple[Tensor, Tensor]:
    """Padded sources, and targets that close with their end."""
    rows = [([5, 3, 8], [6, 7, 8, 9, 10, END]), ([4], [3, END]), ([7, 7, 10, 9, 6], [9, 8, 7, END])]
    source = torch.tensor([s + [PAD] * (5 - len(s)) for s, _ in rows])
    return source, torch.tensor([t + [PAD] * (6 - len(t)) for _, t in rows])


@pytest.mark.parametrize("share", [0.0, 0.3, 0.5, 0.99])
@pytest.mark.parametrize(("gamma", "longest"), [(2, 12), (25, 12), (25, 6)])
def test_the_loss_and_its_gradient_are_the_formula_row_by_row(gamma: int, longest: int, share: float) -> None:
    source, target = batch()
    for seed in range(4):
        drafter, smoothing = drafter_of(seed, longest), 0.1
        drafter.requires_grad_(True)
        chance = torch.Generator().manual_seed(seed)
        wanted = torch.cat((target, torch.full((3, gamma - 1), PAD)), 1)[:, :longest]
        canvases, learnt = masked_block(drafter, wanted, gamma, chance)
        memories = [drafter.encode([t for t in row if t != PAD]) for row in source.tolist()]

        def log_p(row: int, canvas: Tensor) -> Tensor:
            real = canvas[canvas != PAD]
            ones = torch.ones(len(real), len(real), dtype=torch.bool)
            return drafter.logits(drafter.decode(real, memories[row], visible=ones)).log_softmax(-1)  # noqa: B023

        wrong = list[int]()
        for row in range(3):
            guesses, asked = log_p(row, canvases[row]).argmax(-1), learnt[row].nonzero().flatten()
            wrong.append(int((guesses[asked] != wanted[row, asked]).sum()))
        shown = random_places(learnt, torch.tensor([math.floor(n * share) for n in wrong]), chance)
        losses = list[Tensor]()
        for row in range(3):
            canvas = canvases[row].where(~shown[row], wanted[row])
            rows = log_p(row, canvas)
            left = [i for i in range(len(canvas)) if learnt[row, i] and not shown[row, i]]
            losses += [-(1 - smoothing) * rows[i, wanted[row, i]] - smoothing * rows[i].mean() for i in left]
        expected = torch.stack(losses).mean()
        own = {"gamma": gamma, "share": share, "generator": torch.Generator().manual_seed(seed), "smoothing": smoothing}
        found = loss(drafter, source, target, **own)
        assert torch.isclose(found, expected, rtol=1e-9)
        parameters = list(drafter.parameters())
        slopes = (torch.autograd.grad(x, parameters) for x in (found, expected))
        assert all(torch.allclose(a, b, atol=1e-9) for a, b in zip(*slopes, strict=True))


@pytest.mark.parametrize("share", [-0.1, 1.0, 1.5])
def test_a_share_that_leaves_nothing_to_be_learnt_is_one_sentence(share: float) -> None:
    """Of a row in which every guess is wrong all places would be shown, and a mean over no place is no number."""
    with pytest.raises(ValueError, match=f"share is {share}; of the wrong places at least one must stay masked"):
        loss(drafter_of(0), *batch(), gamma=3, share=share)


def test_a_block_of_masks_stands_behind_a_prefix_of_any_length() -> None:
    drafter = drafter_of(0)
    wanted = torch.tensor([[6, 7, 8, END, *[PAD] * 6]]).repeat(4000, 1)
    canvas, learnt = masked_block(drafter, wanted, 3, torch.Generator().manual_seed(0))
    starts = (canvas == MASK).int().argmax(-1)
    assert ((canvas == MASK).sum(-1) == 3).all()
    shares = torch.bincount(starts, minlength=5) / 4000
    assert shares[4] == 0
    assert torch.allclose(shares[:4], torch.tensor(0.25), atol=0.03)
    for start in range(4):
        row = int((starts == start).nonzero()[0])
        assert canvas[row].tolist() == [*wanted[row, :start].tolist(), *[MASK] * 3, *[PAD] * (7 - start)]
        places = range(start, min(start + 3, 4))  # the end is learnt, and not what follows it
        assert learnt[row].nonzero().flatten().tolist() == [*places]


def test_masks_are_laid_bare_at_random_places_among_those_to_be_learnt() -> None:
    among = torch.tensor([[False, True, True, True, True, False]]).repeat(4000, 1)
    shown = random_places(among, torch.full((4000,), 2), torch.Generator().manual_seed(0))
    assert (shown.sum(-1) == 2).all()
    assert not (shown & ~among).any()
    assert torch.allclose(shown[:, 1:5].float().mean(0), torch.tensor(0.5), atol=0.03)
    assert not random_places(among, torch.zeros(4000, dtype=torch.long)).any()


def test_a_drafter_without_mistakes_is_shown_nothing() -> None:
    """All its places are learnt: by a model that knows the text, at the price of the smoothing alone."""
    drafter = Knowing([6, 7, 8, 9, 10, END])
    source, target = torch.tensor([[5, 3]]), torch.tensor([[6, 7, 8, 9, 10, END]])
    for share in (0.0, 0.99):
        own = {"gamma": 20, "share": share, "generator": torch.Generator().manual_seed(0)}
        assert float(loss(drafter, source, target, smoothing=0.0, **own)) == 0
        assert drafter.seen[-1] == drafter.seen[-2]


# What cannot be, and defaults


def tiny() -> dict[str, Any]:
    return {"model": model_of(0), "drafter": drafter_of(0)}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"gamma": 0}, "gamma is 0; draft at least 1 token"),
        ({"beta": 0}, "beta is 0; at least 1 token, the model's own, must be let through"),
        ({"tau": -0.5}, "tau is -0.5; it is a distance in nats from the likeliest token, so give 0 or more"),
        ({"tau": math.nan}, "tau is not a number"),
        ({"limit": 13}, "limit is 13; the model has 12 positions, so ask for no more tokens"),
        ({"drafter": sequence_model(SpecDrafter, vocab=10)}, "vocabularies of 11 and 10 tokens"),
        ({"source": []}, "give at least one token"),
        ({"source": [11]}, "token id 11 is outside the model's vocabulary of 11"),
        ({"source": [3] * 13}, "13 tokens are too many: this model knows 12 positions"),
        ({"eos": 11}, "eos is 11; give a number from 0 to 10"),
    ],
)
def test_bad_input_gets_one_clear_sentence(options: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        generate(**tiny() | {"source": [5, 3], "limit": 12, "eos": END} | options)


def test_broken_weights_are_reported_and_whose_they_are() -> None:
    for broken, sentence in (("model", "the target's logits for new token 1 are"), ("drafter", "the drafter's logits")):
        models = tiny()
        nn.init.constant_(models[broken].norm.weight, math.nan)
        with pytest.raises(ValueError, match=sentence):
            generate(source=[5, 3], limit=5, eos=END, **models)


def test_what_is_left_out_is_the_papers_choice() -> None:
    model, drafter = model_of(4), drafter_of(4)
    given = generate(model, SOURCES[2], 12, drafter=drafter, eos=END, gamma=25, beta=3, tau=1.0)
    assert generate(model, SOURCES[2], 12, drafter=drafter, eos=END) == given
    assert len(sequence_model(SpecDrafter).decoder) == 2


def test_defaults_are_the_documented_ones() -> None:
    assert defaults_of(importlib.import_module("reference_impls.speculative_decoding.specdec")) == {
        "generate.gamma": 25,
        "generate.beta": 3,
        "generate.tau": 1.0,
        "SpecDrafter.decoder_layers": 2,
        "loss.gamma": 25,
        "loss.share": 0.5,
        "loss.smoothing": 0.1,
    }
