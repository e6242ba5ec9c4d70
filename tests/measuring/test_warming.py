"""Cold and warm: the same texts from tries that know nothing, other texts, or these."""

import json

import pytest

from accelgen.measuring import warming
from accelgen.measuring.rows import WarmthRow, rows_of
from accelgen.project.places import RESULTS
from accelgen.site.results import Results
from accelgen.site.views import VIEWS
from accelgen.taxonomy.loading import load_taxonomy
from reference_impls.baselines.autoregressive import generate as autoregressive
from reference_impls.core.sampling import Sampler
from reference_impls.speculative_decoding.lookahead_trie import Trie
from reference_impls.testing.tiny import varied_model

STORED = json.loads((RESULTS / "warming.json").read_text(encoding="utf-8"))
PROMPTS, OTHERS = ([5, 3, 8, 1], [2, 9]), ([7, 7, 0], [4, 1], [6, 2])
GREEDY, SAMPLED = "greedy", "temperature 0.8"


def rows():
    return list(warming.measure(varied_model(), PROMPTS, OTHERS, limit=12))


def test_there_is_a_row_for_each_kind_of_trie_at_each_temperature():
    found = rows()
    assert [(row.setting, row.trie) for row in found] == [
        (setting, kind) for setting in (GREEDY, SAMPLED) for kind in (warming.COLD, warming.OTHERS, warming.SAME)
    ]
    assert {(row.texts, row.tokens) for row in found} == {(2, 24)}


def test_a_cold_trie_has_learned_nothing_and_a_warm_one_what_it_saw():
    cold, others, same = rows()[:3]
    assert cold.learned == 0
    for row, prompts in ((others, OTHERS), (same, PROMPTS)):
        trie = Trie()
        for prompt in prompts:
            trie.begin(prompt)
            trie.end(autoregressive(varied_model(), prompt, 12, sampler=Sampler(0)).tokens)
        assert row.learned == sum(1 for _ in trie.root.below())


def test_texts_that_are_known_by_heart_take_the_fewest_passes():
    """The first pass gives one token, and a pass that follows a branch of twelve can give the rest."""
    same = rows()[2]
    assert same.tokens_per_pass == pytest.approx(24 / 4)


def test_each_cold_text_has_a_trie_of_its_own_and_warm_ones_share_theirs():
    target, twice = varied_model(), [PROMPTS[0]] * 2
    first, second = warming.stream(target, twice, None, 0.0, 12, seed=0)
    assert first.steps == second.steps
    trie = Trie()
    first, second = warming.stream(target, twice, trie, 0.0, 12, seed=0)
    assert second.passes < first.passes
    drawn = warming.stream(target, twice, None, 1.0, 12, seed=3)
    assert drawn[0].tokens != drawn[1].tokens  # each has a seed of its own


def test_the_stored_figures_rise_with_what_was_learned():
    found = {(row.setting, row.trie): row for row in rows_of(WarmthRow, STORED)}
    assert len(found) == 6
    for setting in (GREEDY, SAMPLED):
        cold, others, same = (found[setting, kind] for kind in (warming.COLD, warming.OTHERS, warming.SAME))
        assert 1 < cold.tokens_per_pass < min(others.tokens_per_pass, same.tokens_per_pass)
        # The same prompts give the same texts at temperature 0 alone.
        assert setting == SAMPLED or others.tokens_per_pass < same.tokens_per_pass
        assert cold.learned == 0 < others.learned
        assert cold.texts == others.texts == same.texts == warming.PROMPTS
    assert STORED["limit"] == warming.LIMIT


def test_the_page_shows_every_row_and_says_how_it_is_made():
    page = VIEWS["warming"][1](load_taxonomy(), Results(warming=STORED))
    assert all(f"{row['tokens_per_pass']:.2f}" in page for row in STORED["rows"])
    assert page.count("<svg") == 1
    assert "warming.json" in page
    empty = VIEWS["warming"][1](load_taxonomy(), Results())
    assert warming.__name__ in empty
    assert "<svg" not in empty
