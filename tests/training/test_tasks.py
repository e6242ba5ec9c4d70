"""The toy tasks: deterministic, closed in their words, and with every legal answer known."""

import hashlib
import random
from collections import Counter
from itertools import islice
from typing import Any

import pytest
from num2words import num2words

from reference_impls.zoo.errors import ZooError
from reference_impls.zoo.tasks import (
    DAYS,
    END,
    HELD_OUT,
    MASK,
    NAMES,
    PAD,
    PRICES,
    TASKS,
    Example,
    Task,
    compound,
    hyphenated,
    side_of,
    task,
    words,
)  # fmt: skip

each_task = pytest.mark.parametrize("own", [task(name) for name in TASKS], ids=TASKS)


def some(own: Task, count: int = 300, **options: Any) -> list[Example]:
    return list(islice(own.examples(**{"side": "train", **options}), count))


@each_task
def test_examples_are_distinct_and_the_same_every_time(own: Task) -> None:
    found = some(own)
    assert len({example.source for example in found}) == len(found)
    assert found == some(own)
    assert found != some(own, seed=1)


@each_task
def test_the_side_depends_on_the_source_alone(own: Task) -> None:
    for side in ("train", "development", "test"):
        assert {side_of(example.source) for example in some(own, 10, side=side)} == {side}
    assert next(own.examples()) == next(own.examples("test"))
    drawn = random.Random(5)
    sides = Counter(side_of(own.draw(drawn).source) for _ in range(8000))
    for side in ("development", "test"):
        assert 0.6 / (2 * HELD_OUT) < sides[side] / 8000 < 1.4 / (2 * HELD_OUT)
    with pytest.raises(ValueError, match="a task has no side 'held out'"):
        some(own, 1, side="held out")


@each_task
def test_the_words_survive_encoding_and_the_specials_come_first(own: Task) -> None:
    assert own.vocabulary[:3] == ("<pad>", "<end>", "<mask>")
    assert (PAD, END, MASK) == (0, 1, 2)
    for example in some(own, 500):
        for text in (example.source, *example.references):
            tokens = own.encode(text)
            assert own.decode(tokens) == text
            assert own.encode(own.join(text)) == tokens
            assert len(tokens) < own.longest


@each_task
def test_all_references_have_the_same_length_and_differ(own: Task) -> None:
    for example in some(own):
        assert len({len(own.encode(text)) for text in example.references}) == 1
        assert len(set(example.references)) == len(own.modes) == len(example.references)


@each_task
def test_raw_targets_take_each_mode_with_its_share(own: Task) -> None:
    pairs = own.pairs(1000, "train")
    references = [example.references for example in some(own, 1000)]
    modes = Counter(r.index(own.decode(target)) for r, (_, target) in zip(references, pairs, strict=True))
    for mode, share in enumerate(own.modes):
        assert abs(modes[mode] / 1000 - share) < 0.05
    assert pairs == own.pairs(1000, "train")


@each_task
def test_an_answer_is_right_in_every_mode_and_wrong_otherwise(own: Task) -> None:
    example = some(own, 1)[0]
    for text in example.references:
        tokens = own.encode(text)
        assert own.is_correct([*tokens, END, PAD, PAD], example)
        assert not own.is_correct(tokens[:-1], example)
        assert not own.is_correct([MASK, *tokens[1:]], example)


@each_task
def test_an_unknown_word_gets_one_clear_sentence(own: Task) -> None:
    with pytest.raises(ZooError, match=f"the task {own.name} has no word 'gibberish'"):
        own.encode("one gibberish")


def test_an_unknown_task_gets_one_clear_sentence() -> None:
    with pytest.raises(ZooError, match="there is no task 'sent'; the tasks are lite, frh"):
        task("sent")


def test_german_compounds_fall_into_parts_and_come_together_again() -> None:
    for number in PRICES:
        german = words(number, "de")
        assert german.replace("@@ ", "") == num2words(number, lang="de")
    assert words(21, "de") == "ein@@ und@@ zwanzig"
    assert words(28, "de", ordinal=True) == "acht@@ und@@ zwanzig@@ sten"
    assert compound("dreißigsten") == "dreißig@@ sten"
    assert compound("zwölften") == "zwölften"
    assert all(words(day, "de", ordinal=True).endswith("en") for day in DAYS)


def test_the_four_german_orders_hold_the_same_words() -> None:
    for example in some(task("lite")):
        assert len({tuple(sorted(text.split())) for text in example.references}) == 1


def test_a_german_sentence_says_who_bought_what() -> None:
    found = next(e for e in some(task("lite"), 1000) if e.source.startswith("on the") and " paid " in e.source)
    parts = found.source.split()
    payer, receiver = parts[parts.index("paid") - 1], parts[parts.index("paid") + 1]
    assert {payer, receiver} < set(NAMES)
    for text in found.references:
        assert f"zahlte {payer} {receiver}" in text or f"{payer} zahlte {receiver}" in text


def test_both_spellings_of_a_french_number() -> None:
    frh = task("frh")
    example = frh._of(345_180)
    assert example.source == "three hundred and forty- five thousand , one hundred and eighty"
    assert [frh.join(text) for text in example.references] == [
        "trois cent quarante-cinq mille cent quatre-vingts",
        "trois-cent-quarante-cinq-mille-cent-quatre-vingts",
    ]


def test_mixed_means_right_words_in_two_spellings_and_nothing_else() -> None:
    frh = task("frh")
    example = frh._of(345_180)
    traditional, reformed = map(frh.encode, example.references)
    mixture = [*traditional[:2], *reformed[2:]]
    assert frh.is_mixed(mixture, example)
    assert not frh.is_correct(mixture, example)
    assert not frh.is_mixed(traditional, example)
    assert not frh.is_mixed(reformed, example)
    assert not frh.is_mixed(mixture[1:], example)
    assert hyphenated(hyphenated(example.references[0])) == example.references[1]


def test_the_vocabularies_are_pinned_because_the_weights_depend_on_them() -> None:
    found = {name: hashlib.sha256("\n".join(task(name).vocabulary).encode()).hexdigest()[:12] for name in TASKS}
    assert found == {"lite": "8f2029df0d1f", "frh": "0eabc3d6da3c"}
