"""CS Drafting: the laws that the cascade hands up are the ones drawn from, with and without lenience."""

import importlib
from collections import Counter, defaultdict
from itertools import pairwise

import pytest
import torch
from defaults import defaults_of

from reference_impls.baselines.autoregressive import generate as decode
from reference_impls.core.generation import Generation
from reference_impls.core.sampling import Sampler
from reference_impls.speculative_decoding.cascade_speculative_drafting import Cascade, MaxGram, generate, longest_match
from reference_impls.testing.laws import autoregressive_law, exact_law, total_variation
from reference_impls.testing.tiny import Erring, flat_model, language_model, randomised, varied_model

MUTANTS = [
    ("reviewers-law-handed-up", "t[: count + 1]", "q[: count + 1]"),
    ("lenience-at-the-target", "draft, laws, p)", "draft, laws, p, lenience)"),
    ("replaced-from-the-whole-law", "rest = residual(q, r)", "rest = q"),
    ("inner-review-goes-on-after-a-rejection", ".cumprod(0).sum()", ".sum()"),
    ("lenience-on-the-wrong-side", "q_tilde > self.lenience * r", "self.lenience * q_tilde > r"),
    ("lenience-by-the-tempered-law", "torch.where(q_tilde >", "torch.where(q >"),
    ("inner-caches-not-rolled-back", "self.crop(len(text) + len(tokens) - 1, first=j)", "pass"),
    ("smaller-drafters-not-rolled-back", "self.caches[first:]", "self.caches[first : first + 1]"),
    ("drafters-not-rolled-back", "        cascade.crop(len(tokens) - 1)\n", ""),
    ("row-of-the-target-for-all", "self.k_matrix[row][row:]", "self.k_matrix[0][row:]"),
    ("each-drafter-counts-alone", "wanted += count", "wanted = count"),
    ("max-gram-copies-the-match", "text[longest_match(text) :]", "text[longest_match(text) - 1 :]"),
    ("max-gram-copies-the-first-match", "if size[i] > longest:", "if size[i] >= longest:"),
    ("table-read-at-one-token", "guesses[-1] if guesses else text[-1]", "text[-1]"),
    ("inner-passes-not-counted", "self.passes += 1", "pass"),
    ("passes-of-all-steps-added-up", "cascade.passes = 0", "pass"),
]

PROMPT = [5, 3, 8, 1]
ONE, TWO = ((1, 0), (0, 1)), ((1, 0, 0), (0, 1, 1), (0, 0, 1))


def max_gram(vocab):
    return randomised(MaxGram, language_model(vocab).shape)


def drafters_for(vocab, count):
    return [language_model(vocab, seed=170 + i, layers=1) for i in range(count)]


def options(vocab, k_matrix, lenience=1.0):
    drafters = drafters_for(vocab, len(k_matrix) - 1)
    return {"drafters": drafters, "max_gram": max_gram(vocab), "k_matrix": k_matrix, "lenience": lenience}


@pytest.mark.parametrize("lenience", [1.0, 0.6, 0.2])
@pytest.mark.parametrize(("vocab", "k_matrix"), [(3, ((1, 1), (0, 1))), (3, ONE), (2, TWO)])
def test_the_law_is_the_targets_at_any_lenience(vocab, k_matrix, lenience):
    target, own = flat_model(vocab), options(vocab, k_matrix, lenience)
    law = exact_law(lambda s: generate(target, [0, 1], 2, sampler=s, **own))
    assert total_variation(law, autoregressive_law(target, [0, 1], 2)) < 1e-12


@pytest.mark.parametrize("k_matrix", [((1, 1), (1, 1)), ((1, 0, 0), (0, 1, 1), (0, 1, 1))])
def test_entries_that_nobody_would_read_are_one_sentence(k_matrix):
    """Drafter j reviews what later ones write, so in its row the first j + 1 columns say nothing."""
    with pytest.raises(ValueError, match="k_matrix has numbers left of its diagonal; set them to 0"):
        generate(flat_model(), [0, 1], 2, sampler=Sampler(0), **options(3, k_matrix))


@pytest.mark.parametrize("settings", [{"temperature": 1.3, "top_p": 0.85}, {"temperature": 0.5}])
def test_the_law_is_the_targets_with_lenience_and_other_settings(settings):
    target, own = flat_model(), options(3, ((1, 1), (0, 1)), 0.5)
    law = exact_law(lambda s: generate(target, [0, 1], 2, sampler=s, **own), **settings)
    assert total_variation(law, autoregressive_law(target, [0, 1], 2, **settings)) < 1e-12


def drafts(vocab, k_matrix, lenience):
    """Every draft that a cascade can write, with its laws and its probability."""
    own = options(vocab, k_matrix, lenience)
    found = []

    def run(sampler):
        cascade = Cascade(own["drafters"], own["max_gram"], k_matrix, lenience, sampler)
        with torch.inference_mode():
            tokens, laws = cascade.draft(0, [0, 1])
        found.append((tokens, laws, sampler))
        return Generation(tokens)

    exact_law(run)
    return [(tokens, laws, sampler.weight) for tokens, laws, sampler in found]


@pytest.mark.parametrize("lenience", [1.0, 0.4])
@pytest.mark.parametrize(
    ("vocab", "k_matrix"), [(3, ((2, 1), (0, 1))), (2, TWO), (2, ((1, 1, 0), (0, 1, 0), (0, 0, 1)))]
)
def test_the_law_handed_up_is_the_law_of_each_token_given_those_before_it(vocab, k_matrix, lenience):
    """By counting: in all drafts that reach a place after the same tokens, the next one follows the law beside it."""
    counted = defaultdict(Counter)
    law_of = {}
    for tokens, laws, weight in drafts(vocab, k_matrix, lenience):
        assert len(tokens) == len(laws) >= sum(k_matrix[0])
        for i, (token, law) in enumerate(zip(tokens, laws, strict=True)):
            # a place can be filled by another drafter where earlier tokens came in other blocks
            key = (*tokens[:i], tuple(round(x, 9) for x in law.tolist()))
            counted[key][token] += weight
            law_of[key] = law
    assert len(counted) > 2
    for key, counts in counted.items():
        for token, chance in enumerate(law_of[key].tolist()):
            assert counts[token] / counts.total() == pytest.approx(chance, abs=1e-9)


def test_without_lenience_a_drafter_hands_up_its_own_law():
    (drafter,) = drafters_for(3, 1)
    for tokens, laws, _ in drafts(3, ((3, 0), (0, 1)), 1.0):
        for i, law in enumerate(laws):
            torch.testing.assert_close(law, drafter([0, 1, *tokens[:i]])[-1].softmax(-1).detach())


def test_the_reviewers_law_in_place_of_the_true_one_gives_another_law(monkeypatch):
    """What sampling would be with the lenient rule and the laws as in published code."""
    review = Cascade.review

    def careless(self, draft, laws, logits):
        tokens, _ = review(self, draft, laws, logits)
        return tokens, self.sampler.probs(logits)[: len(tokens)]

    monkeypatch.setattr(Cascade, "review", careless)
    target, distance = flat_model(), {}
    for lenience in (1.0, 0.4):
        own = options(3, ONE, lenience)
        law = exact_law(lambda s, own=own: generate(target, [0, 1], 2, sampler=s, **own))
        distance[lenience] = total_variation(law, autoregressive_law(target, [0, 1], 2))
    assert distance[1.0] < 1e-12
    assert distance[0.4] > 0.05


def reviewed(soft, draft, laws, lenience):
    """What a review keeps, by a reviewer with these soft laws."""
    cascade = Cascade([], max_gram(3), ((1,),), lenience, Sampler(0))
    given, own = (torch.tensor(rows, dtype=torch.float64) for rows in (laws, soft))
    return cascade.review(draft, list(given), own.log())


def test_the_lenient_rule_at_temperature_0_is_the_published_one():
    """A guess passes if it is the best token, or if the reviewer's softmax is above lenience times its law."""
    p, hot = [[0.5, 0.3, 0.2], [0.6, 0.3, 0.1], [0.1, 0.2, 0.7]], [[0, 1, 0], [0, 1, 0]]
    assert reviewed(p, [1, 1], hot, 1.0)[0] == [0]
    assert reviewed(p, [1, 1], hot, 0.29)[0] == [1, 1, 2]
    assert reviewed(p, [1, 1], hot, 0.31)[0] == [0]
    assert reviewed(p, [0, 2], [[1, 0, 0], [0, 0, 1]], 0.2)[0] == [0, 0]
    tokens, t = reviewed(p, [1, 1], hot, 0.29)
    assert t.tolist() == [[0, 1, 0], [0, 1, 0], [0, 0, 1]]  # certain, like all that is greedy
    assert len(tokens) == 3


def test_lenience_compares_with_a_wide_law_whatever_the_reviewer_computes_in():
    """Equally likely tokens have a third each; in bfloat16 that would be 0.33398, and above 0.3335."""
    cascade = Cascade([], max_gram(3), ((1,),), 0.3335, Sampler(0))
    logits, law = torch.zeros(2, 3, dtype=torch.bfloat16), torch.tensor([0.0, 1.0, 0.0])
    assert cascade.review([1], [law], logits)[0] == [0]


@pytest.mark.parametrize("lenience", [1.0, 0.3, 0.01])
@pytest.mark.parametrize(
    "k_matrix",
    [
        ((3, 0), (0, 2)),
        ((2, 2), (0, 3)),
        ((0, 4), (0, 0)),
        ((4, 0), (0, 0)),
        ((2, 1, 3), (0, 1, 2), (0, 0, 2)),
        ((5,),),
    ],
)
def test_greedy_text_is_the_targets_for_any_matrix_and_lenience(k_matrix, lenience):
    target = varied_model()
    wanted = decode(target, PROMPT, 15, sampler=Sampler(0)).tokens
    models = [Erring.of(target), *drafters_for(11, 1)][: len(k_matrix) - 1]
    own = {"drafters": models, "max_gram": max_gram(11), "k_matrix": k_matrix, "lenience": lenience}
    assert generate(target, PROMPT, 15, sampler=Sampler(0), **own).tokens == wanted


def test_lenience_lets_more_of_the_inner_drafts_through():
    target, passes = varied_model(), []
    for lenience in (1.0, 0.01):
        own = {"drafters": drafters_for(11, 1), "max_gram": max_gram(11), "k_matrix": ((6, 0), (0, 2))}
        result = generate(target, PROMPT, 1, sampler=Sampler(0), lenience=lenience, **own)
        passes.append(result.draft_passes)
    assert passes[0] > passes[1] == 2  # three tokens a pass: two guesses and one of its own


def counted_passes(cascade):
    """How often each neural drafter is run."""
    found = Counter()
    for j, drafter in enumerate(cascade.drafters):
        drafter.register_forward_hook(lambda *_, j=j: found.update([j]))
    return found


def test_vertically_a_drafter_runs_once_for_a_whole_draft_of_a_smaller_one():
    """The larger drafter reviews what its equal wrote: one pass for four tokens, three of them guessed."""
    drafters = [varied_model(), varied_model()]
    cascade = Cascade(drafters, max_gram(11), ((4, 0, 0), (0, 3, 0), (0, 0, 0)), 1.0, Sampler(0))
    passes = counted_passes(cascade)
    with torch.inference_mode():
        tokens, _ = cascade.draft(0, PROMPT)
    assert passes == {0: 1, 1: 3}
    assert cascade.passes == 4
    assert tokens == decode(varied_model(), PROMPT, 4, sampler=Sampler(0)).tokens


def test_horizontally_the_larger_drafter_writes_first_and_max_gram_last():
    drafters, table = drafters_for(11, 2), max_gram(11)
    cascade = Cascade(drafters, table, ((2, 1, 3), (0, 0, 0), (0, 0, 0)), 1.0, Sampler(0))
    passes = counted_passes(cascade)
    with torch.inference_mode():
        tokens, laws = cascade.draft(0, PROMPT)
    assert passes == {0: 2, 1: 1}
    first = decode(drafters[0], PROMPT, 2, sampler=Sampler(0)).tokens
    second = decode(drafters[1], [*PROMPT, *first], 1, sampler=Sampler(0)).tokens
    assert tokens == [*first, *second, *table([*PROMPT, *first, *second], 3)]
    assert all(law[token] == 1 for token, law in zip(tokens, laws, strict=True))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_every_cache_holds_a_prefix_of_the_text(temperature, monkeypatch):
    """After each step: no less than the text before the step, and no more than all but its newest token."""
    target, seen = varied_model(), []
    drafters = [Erring.of(target), *drafters_for(11, 1)]
    draft = Cascade.draft

    def watched(self, row, text):
        if row == 0:
            seen.append((self, list(text), [len(cache) for cache in self.caches]))
        return draft(self, row, text)

    monkeypatch.setattr(Cascade, "draft", watched)
    own = {"drafters": drafters, "max_gram": max_gram(11), "k_matrix": ((2, 1, 1), (0, 1, 1), (0, 0, 2))}
    result = generate(target, PROMPT, 20, sampler=Sampler(temperature, seed=2), lenience=0.3, **own)
    text = PROMPT + result.tokens
    cascade = seen[0][0]
    for drafter, cache in zip(drafters, cascade.caches, strict=True):
        n = min(len(cache), len(text))
        fresh = drafter.new_cache()
        drafter(text[:n], fresh)
        for layer in range(drafter.shape.layers):
            torch.testing.assert_close(cache._store[layer, :, :, :n], fresh._store[layer, :, :, :n])
    for (_, before, _), (_, after, lengths) in pairwise(seen):
        assert all(len(before) <= length < len(after) for length in lengths)


def scan(text):
    """Where the last earlier occurrence of the longest proper suffix that has one ends, by looking everywhere."""
    for size in range(len(text) - 1, 0, -1):
        ends = [end for end in range(size, len(text)) if text[end - size : end] == text[-size:]]
        if ends:
            return ends[-1]
    return len(text)


def test_the_longest_match_is_the_one_that_a_full_search_finds():
    generator = torch.Generator().manual_seed(0)
    for vocab in (1, 2, 3, 9):
        for length in (1, 2, 5, 17):
            for _ in range(8):
                text = torch.randint(vocab, (length,), generator=generator).tolist()
                assert longest_match(text) == scan(text)


def test_the_search_for_the_longest_match_is_linear():
    """By counting how often the text is looked at, where everything repeats and where only the last token does not."""

    class Watched(list):
        looks = 0

        def __getitem__(self, place):
            if isinstance(place, slice):
                return Watched(super().__getitem__(place))
            Watched.looks += 1
            return super().__getitem__(place)

    for text in ([1] * 1000, [1] * 999 + [2], [1, 2] * 500, [1] * 500 + [2] + [1] * 499):
        Watched.looks = 0
        assert longest_match(Watched(text)) == scan(text)
        assert Watched.looks <= 6 * len(text)


def test_max_gram_copies_what_followed_and_goes_on_by_its_table():
    model = max_gram(11)
    follow = model.successor.tolist()
    assert model([1, 2, 3, 4, 9, 2, 3], 2) == [4, 9]
    assert model([1, 2, 3, 4, 2, 3], 4) == [4, 2, 3, follow[3]]
    assert model([1, 2, 5], 2) == [follow[5], follow[follow[5]]]


def test_a_cascade_of_max_gram_alone_saves_passes_where_the_text_repeats():
    model = language_model(11, seed=1)
    text = decode(model, PROMPT, 60, sampler=Sampler(0)).tokens  # most random models soon repeat themselves
    own = {"drafters": [], "max_gram": max_gram(11), "k_matrix": ((4,),)}
    result = generate(model, [*PROMPT, *text[:40]], 20, sampler=Sampler(0), **own)
    assert result.tokens == text[40:]
    assert result.passes <= 5
    assert result.draft_passes == 0


def test_defaults_are_the_documented_ones() -> None:
    assert defaults_of(
        importlib.import_module("reference_impls.speculative_decoding.cascade_speculative_drafting")
    ) == {"generate.lenience": 1.0, "Cascade.passes": 0}
