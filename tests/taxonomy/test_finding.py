"""What people type is what they mean, or one sentence with the candidates."""

import pytest

from accelgen.taxonomy.calls import BASELINES, Baseline
from accelgen.taxonomy.finding import find, find_entry, find_group, find_implemented, find_runnable, resolve, search
from accelgen.taxonomy.loading import load_taxonomy

KNOWN = {
    "first-trial-nobody": ("First Trial", "A Careful Look at Things"),
    "trial-two": ("Try & Again", "Looking Twice"),
    "trial": ("Trial", "On Trials"),
    "ccc": ("Third", "A Careful Account"),
    "careful-one": ("One", "Plain"),
}


@pytest.mark.parametrize(
    ("typed", "id"),
    [
        ("trial", "trial"),  # an id, though others begin with it
        ("TRIAL", "trial"),
        ("Trial Two", "trial-two"),
        ("trial_two", "trial-two"),
        ("trialtwo", "trial-two"),
        ("try & again", "trial-two"),
        ("First", "first-trial-nobody"),
        ("nobody", "first-trial-nobody"),
        ("noBo", "first-trial-nobody"),
        ("third", "ccc"),
        ("looking", "trial-two"),
        ("careful", "careful-one"),  # the beginning of an id, before words of titles
        ("careful look", "first-trial-nobody"),
        ("look at", "first-trial-nobody"),
    ],
)
def test_what_is_typed_is_found(typed: str, id: str) -> None:
    assert resolve(typed, KNOWN, "trial") == id


@pytest.mark.parametrize(
    ("typed", "sentence"),
    [
        ("a careful", "'a careful' may be first-trial-nobody, ccc: name one of them"),
        ("trail", "no trial is called 'trail'; did you mean 'trial'"),
        ("nobodi", "no trial is called 'nobodi'; did you mean 'first-trial-nobody'?"),
        ("lookng", "did you mean 'trial-two'?"),
        ("", "no trial is called ''"),
        ("&", "no trial is called '&'"),
    ],
)
def test_what_is_not_clear_is_a_sentence(typed: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=r"called|may be") as caught:
        resolve(typed, KNOWN, "trial")
    assert sentence in str(caught.value)


def test_many_candidates_are_counted() -> None:
    with pytest.raises(ValueError, match=r"may be a-0, a-1, .*a-7 and 4 more: name one of them$"):
        resolve("a", {f"a-{i}": () for i in range(12)}, "trial")


def test_every_id_and_every_name_of_one_method_finds_it() -> None:
    taxonomy = load_taxonomy()
    names = [method.name.casefold() for method in taxonomy.methods]
    for method in taxonomy.methods:
        assert find(taxonomy, method.id.upper()) == method
        assert find_entry(taxonomy, method.id) == method
        if names.count(method.name.casefold()) == 1 and method.name.casefold() not in {m.id for m in taxonomy.methods}:
            assert find(taxonomy, method.name) == method


@pytest.mark.parametrize("baseline", BASELINES.values(), ids=lambda baseline: baseline.id)
def test_baselines_are_found_too(baseline: Baseline) -> None:
    taxonomy = load_taxonomy()
    assert find_runnable(taxonomy, baseline.id.upper()) == find_entry(taxonomy, baseline.name) == baseline
    with pytest.raises(ValueError, match=r"called|may be"):
        find(taxonomy, baseline.id)


def test_what_is_planned_is_found_and_not_run() -> None:
    taxonomy = load_taxonomy()
    planned = next(method for method in taxonomy.methods if not method.is_implemented)
    for look in (find_implemented, find_runnable):
        with pytest.raises(ValueError, match=f"^{planned.id} is not implemented yet; `accelgen list --status proved`"):
            look(taxonomy, planned.name)


def test_groups_are_categories_and_branches() -> None:
    taxonomy = load_taxonomy()
    for category in taxonomy.categories:
        assert find_group(taxonomy, category.name) == category.id
        assert all(find_group(taxonomy, branch.id) == branch.id for branch in category.subcategories)
    with pytest.raises(ValueError, match="no category or branch is called 'xyzzy'"):
        find_group(taxonomy, "xyzzy")


def test_search_holds_all_words_and_puts_names_first() -> None:
    taxonomy = load_taxonomy()
    method = taxonomy.methods[-1]
    hits = search(taxonomy, method.name)
    assert (hits[0].id, hits[0].kind) == (method.id, "method")
    scores = [hit.score for hit in search(taxonomy, "decoding")]
    assert scores == sorted(scores, reverse=True)
    assert len(set(scores)) > 1
    term = taxonomy.glossary[0]
    assert term.id in [hit.id for hit in search(taxonomy, term.term) if hit.kind == "term"]
    branch = taxonomy.categories[0].subcategories[0]
    assert ("branch", branch.id) in [(hit.kind, hit.id) for hit in search(taxonomy, branch.name)]
    assert len(search(taxonomy, f"{method.name} xyzzy")) == 0
    assert search(taxonomy, " , ") == []


def test_search_shows_the_sentence_and_takes_the_beginning_of_a_word() -> None:
    taxonomy = load_taxonomy()
    whole = {hit.id for hit in search(taxonomy, "diffusion language model")}
    assert whole
    assert whole <= {hit.id for hit in search(taxonomy, "diffus lang")}
    assert all("\n" not in hit.sentence for hit in search(taxonomy, "diffusion"))
    assert any("diffusion" in hit.sentence.lower() for hit in search(taxonomy, "diffusion"))
