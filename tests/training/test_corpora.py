"""The corpus: three sides that share nothing, not even a copy."""

from __future__ import annotations

from pathlib import Path

import pytest

from accelgen.training import corpora

NAMES = [f"module_{i}.py" for i in range(400)]


def text(place: int | str) -> str:
    return "".join(f"value_{place}_{line} = {line}\n" for line in range(12))


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A standard library of small files, each with its tests, and no packages."""
    (tmp_path / "test").mkdir()
    for name in NAMES:
        (tmp_path / name).write_text(text(name))
        (tmp_path / "test" / name).write_text(text(f"test_{name}"))
    names = [*NAMES, *(f"test/{name}" for name in NAMES)]
    monkeypatch.setattr(corpora, "library_files", lambda: [(name, tmp_path / name) for name in names])
    monkeypatch.setattr(corpora, "package_files", list)
    return tmp_path


def every(splits: corpora.Splits) -> set[str]:
    return {each for texts in splits.values() for each in texts}


@pytest.mark.usefixtures("files")
def test_no_text_is_on_two_sides_and_every_text_is_on_one() -> None:
    found = corpora.read_corpus(library=3)
    development, test = (every(found.held_out(side)) for side in ("development", "test"))
    assert development
    assert test
    assert not development & test
    assert not (development | test) & set(found.train)
    assert len(development) + len(test) + len(set(found.train)) == 2 * len(NAMES)
    assert set(found.held_out("test")) == {"library", "library_tests"}
    library = [each for each in found.train if "test_" not in each]
    assert len(library) == 3 * len(set(library))
    assert sorted(set(library)) == sorted(found.library)
    tests = [each for each in found.train if "test_" in each]
    assert len(tests) == len(set(tests))


def test_one_file_in_sixteen_is_held_out_and_a_third_of_these_is_for_choices() -> None:
    sides = [corpora.side_of(f"file {i}") for i in range(20_000)]
    assert 0.056 < 1 - sides.count("train") / 20_000 < 0.069
    assert 0.28 < sides.count("development") / (20_000 - sides.count("train")) < 0.39


@pytest.mark.parametrize("side", ["development", "test"])
def test_a_near_copy_of_a_training_file_is_on_no_side(files: Path, side: corpora.Side) -> None:
    held_out = next(name for name in NAMES if corpora.side_of(name) == side)
    learnt = next(name for name in NAMES if corpora.side_of(name) == "train")
    lines = text(learnt).splitlines(keepends=True)
    for changed, is_kept in ((3, False), (12, True)):  # of the eight runs of five lines, three are the training file's
        copy = "".join([f"other_{i} = 0\n" for i in range(changed)] + [f"    {line}\n" for line in lines[changed:]])
        (files / held_out).write_text(copy)
        assert (copy in every(corpora.read_corpus().held_out(side))) == is_kept


def test_how_much_of_a_text_was_seen() -> None:
    seen = corpora.runs("a\nb\nc\nd\ne\nf\n")
    assert len(seen) == 2
    assert corpora.copied("  a\n\nb\nc\nd\ne\nother\n", seen) == 0.5
    assert corpora.copied("a\nb\nc\nd\n", seen) == 0


def test_nothing_is_measured_on_what_was_learnt() -> None:
    with pytest.raises(ValueError, match="'train' is no held-out side"):
        corpora.Corpus(["text"]).held_out("train")
