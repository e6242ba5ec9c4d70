"""The machinery that plants bugs: it must be able to lose, and say so when it proves nothing."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import pytest

from accelgen.taxonomy.loading import load_taxonomy
from mutation import __main__ as program
from mutation import drawing, named
from mutation.changes import ROOT, Change, MutantError
from mutation.drawing import Source, drawn
from mutation.equivalents import EQUIVALENTS
from mutation.judging import Verdict, proofs, verdict

READING = "accelgen/checkpoints/reading.py"  # its own test is a quick one
COMPARED = "if ours.get(token) != theirs.get(token)"
TWO = "def f(a, b):\n    return a + b\n"


@pytest.fixture
def trial(tmp_path: Path):
    """Writes a module and gives its path."""

    def write(text: str, name: str = "trial") -> str:
        file = tmp_path / f"{name}.py"
        file.write_text(text, "utf-8")
        return str(file)

    return write


# What is listed


def test_every_known_bug_and_every_equivalent_change_still_applies_at_one_place_and_is_another_program():
    listed = [*named.named(), *EQUIVALENTS]
    for change in listed:
        text = change.text()
        assert ast.dump(ast.parse(text)) != ast.dump(ast.parse((ROOT / change.file).read_text("utf-8"))), change
    assert len({(change.file, change.text()) for change in listed}) == len(listed), "two are the same"


def test_known_bugs_are_told_apart_by_name_and_equivalent_changes_have_a_reason():
    names = Counter((change.file, change.name) for change in named.named())
    assert [name for name, count in names.items() if count > 1] == []
    assert all(len(why.split()) > 3 for why in EQUIVALENTS.values())


def test_a_change_that_does_not_apply_at_one_place_is_an_error(trial):
    file = trial(TWO)
    with pytest.raises(MutantError, match="mutant gone does not apply any more"):
        Change(file, "no such text", "", "gone").text()
    with pytest.raises(MutantError, match="mutant twice is ambiguous, it applies at 2 places"):
        Change(file, "b", "c", "twice").text()
    assert str(Change(file, "a + b", "a")) == f"{file}:2  'a + b' -> 'a'"


def test_a_list_belongs_to_the_module_whose_name_its_test_bears(tmp_path, monkeypatch):
    monkeypatch.setattr(named, "ROOT", tmp_path)
    for path in ("tests/room/test_trial.py", "tests/methods/room/test_own.py", "tests/room/test_room_long.py"):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(f"MUTANTS = [({path!r}, 'old', 'new')]\n", "utf-8")
    (tmp_path / "accelgen/room").mkdir(parents=True)
    for name in ("trial", "own", "long", "bare"):
        (tmp_path / f"accelgen/room/{name}.py").write_text("", "utf-8")
    assert {Path(change.file).stem: change.name for change in named.named()} == {
        "own": "tests/methods/room/test_own.py",
        "trial": "tests/room/test_trial.py",
        "long": "tests/room/test_room_long.py",
    }
    assert named.own_test("accelgen/room/bare.py") is None
    (tmp_path / "tests/room/test_none.py").write_text("MUTANTS = [('lost', 'old', 'new')]\n", "utf-8")
    with pytest.raises(MutantError, match=r"test_none\.py lists mutants, but no module bears its name"):
        named.named()


# What becomes of a mutant


def test_what_changes_nothing_survives_and_a_bug_an_endless_loop_and_nonsense_do_not():
    assert verdict(Change(READING, COMPARED, f"{COMPARED} ")) == Verdict("survived")
    by = Verdict("killed", "tests/checkpoints/test_reading.py")
    assert verdict(Change(READING, COMPARED, "if False")) == by
    assert verdict(Change(READING, COMPARED, "if [token for _ in iter(int, 1)]"), patience=3) == by
    assert verdict(Change(READING, "import torch\n", "import no_such_module\n")) == Verdict("killed", "import")
    assert verdict(Change("accelgen/project/places.py", "import", "import")).outcome == "error"


def test_of_a_method_only_its_own_proofs_may_find_a_mutant():
    method = next(method for method in load_taxonomy().methods if method.is_implemented)
    file = f"{method.module.replace('.', '/')}.py"
    names = [name for name, _ in proofs(file)]
    assert all(method.id in name or Path(file).stem in name for name in names)
    assert file in names  # the doctest
    assert any(name.endswith(f" of {method.id}") for name in names)


def test_core_is_proved_by_its_own_test_first_then_by_a_method_of_each_family_and_by_its_room():
    names = [name for name, _ in proofs("reference_impls/core/generation.py")]
    assert names[0] == "tests/core/test_core_generation.py"
    assert "tests/core/test_core_model.py" in names
    families = [
        load_taxonomy().method(id).category for id in {name.split(" of ")[1] for name in names if " of " in name}
    ]
    assert 1 < len(families) == len(set(families))


# What is drawn

SMALL = {
    "x = a + b": {"x = a - b"},
    "x *= 2": {"x /= 2", "pass", "x *= 3", "x *= 1"},
    "x = a < b": {"x = a <= b", "x = a >= b"},
    "x = a not in b": {"x = a in b"},
    "x = (a) is (b)": {"x = (a) is not (b)"},
    "x = a and b": {"x = a or b"},
    "x = not a": {"x = a"},
    "x = True": {"x = False"},
    "x = 1.5": {"x = 3.0", "x = 0.75"},
    "f(a, keepdim=True)": {"pass", "f(a, keepdim=False)"},
    "if a: f = b": {"if not (a): f = b"},
    "x = [i for i in a if i]": {"x = [i for i in a if not (i)]"},
    "a[i] = b": {"pass"},
    "x = f(a, b)": {"x = f(b, a)"},
    "x = max(a, b)": {"x = min(a, b)"},
    "x = a[i:]": {"x = a[(i) + 1:]", "x = a[(i) - 1:]"},
    "x = range(n)": {"x = range((n) + 1)", "x = range((n) - 1)"},
    "x = a.amin(b)": {"x = a.amax(b)"},
    "x = f(a, min=b)": {"x = f(a, max=b)"},
    "def f(): return a, b": {"def f(): return b, a"},
    "def f(): return a == b": {"def f(): return not (a == b)", "def f(): return a != b"},
    "def f(): return g(a).tolist()": {"def f(): return g(a)"},
    "def f(a, n=2): pass": {"def f(a, n=3): pass", "def f(a, n=1): pass"},
    "for i in a: break": {"for i in a: pass"},
    "größe = a - 1": {"größe = a + 1", "größe = a - 2", "größe = a - 0"},
}


@pytest.mark.parametrize("line", SMALL)
def test_the_small_changes_of_a_line(trial, line):
    source = Source(trial(line + "\n"))
    found = [source.change(*edit) for place in source.places() for edit in place]
    assert {change.new for change in found if source.differs(change)} == SMALL[line]


def test_a_value_that_is_given_again_may_be_left_out_and_one_that_is_given_first_may_not(trial):
    source = Source(trial("def f(a):\n    b = g()\n    a = g()\n    b = h()\n"))
    found = {source.change(*edit) for place in source.places() for edit in place}
    assert {change.old for change in found} == {"a = g()", "b = h()"}


def test_what_does_not_decide_what_is_computed_is_left_alone(trial):
    text = '''"""Title, 1 of 2."""
from __future__ import annotations
from a import b
Law = dict[int, 3]
@cached(1)
def f(a: X[0, 1], *, c: A | B = None) -> Y[2]:
    """From 0 to 1."""
    d: Z[5] = a
    if TYPE_CHECKING: f(1, 2)
    assert a, f(1, 2)
    raise ValueError(f"{1 + 2}", 3 < 4)
def example(): return {"gamma": 4}
x = f"{a + 1}"
'''
    source = Source(trial(text))
    assert {source.change(*edit).new for place in source.places() for edit in place} == {"assert not (a), f(1, 2)"}


def test_numbers_of_the_kit_are_changed_only_where_they_judge(monkeypatch, tmp_path):
    (tmp_path / "kit.py").write_text("PROMPT = [5, 3]\nfine = len(PROMPT) > 1\n", "utf-8")
    monkeypatch.setattr(drawing, "ROOT", tmp_path)
    everywhere = {new for place in Source("kit.py").places() for *_, new in place}
    monkeypatch.setattr(drawing, "KIT", "kit")
    judging = {new for place in Source("kit.py").places() for *_, new in place}
    assert everywhere - judging == {"6", "4"}
    assert judging == {" >= ", " <= ", "2", "0"}


def test_a_change_brings_along_as_many_lines_as_tell_it_from_others(trial):
    source = Source(trial("if a:\n    f(1)\nelse:\n    f(1)\n"))
    olds = {source.change(*edit).old for place in source.places() for edit in place}
    assert olds == {"if a:", "if a:\n    f(1)", "else:\n    f(1)"}


def test_the_same_seed_draws_the_same_mutants_and_each_place_once(trial):
    file = trial(TWO * 9 + "x = 1\n")
    assert drawn([file], 5, seed=1) == drawn([file], 5, seed=1) != drawn([file], 5, seed=2)
    assert len({change.text() for change in drawn([file], 99, seed=1)}) == 10


def test_small_modules_are_drawn_from_as_often_as_large_ones(trial):
    files = [trial(TWO * 40, "large"), trial(TWO * 4, "small")]
    count = Counter(Path(change.file).stem for seed in range(100) for change in drawn(files, 2, seed))
    assert 80 < count["small"] < 120


def test_equivalent_changes_are_not_drawn_however_they_are_written(trial, monkeypatch):
    file = trial(TWO)
    assert [change.new for change in drawn([file], 9, seed=1)] == ["return a - b"]
    monkeypatch.setattr(drawing, "EQUIVALENTS", {Change(file, "+", "-"): "the sum of nothing"})
    assert drawn([file], 9, seed=1) == []


# What is said


def run(monkeypatch, capsys, outcomes: list[str], *words: str) -> tuple[int, list[str]]:
    """The exit code and the lines of a run in which mutants end like this."""
    changes = [Change(READING, COMPARED, str(i), "bug" if not words else "") for i in range(len(outcomes))]
    ends = [Verdict(*outcome.split()) for outcome in outcomes]
    monkeypatch.setattr(program, "chosen", lambda *_: changes)
    monkeypatch.setattr(program, "judged", lambda *_: zip(changes, ends, strict=True))
    return program.main([*words]), capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    ("count", "alive", "least"),
    [(100, 0, 95), (100, 5, 95), (100, 6, 95), (20, 5, 15), (20, 6, 15)],  # of few, chance has a say
)
def test_of_random_mutants_few_may_survive_and_are_shown(monkeypatch, capsys, count, alive, least):
    outcomes = ["survived"] * alive + ["killed import"] * (count - alive)
    found, lines = run(monkeypatch, capsys, outcomes, "--random", str(count), "--seed", "7")
    assert found == (count - alive < least)
    assert lines[0] == f"{count} mutants, random, drawn with seed 7; at least {least} must die"
    assert lines[-1 - alive] == f"planted {count}, killed {count - alive}"
    assert all(line.startswith(f"survived  {READING}:") for line in lines[len(lines) - alive :])
    assert lines[1 : 1 + alive] == lines[len(lines) - alive :]  # also as they come
    assert len(lines) == 1 + count + 1 + alive


@pytest.mark.parametrize("end", ["survived", "killed import", "error"])
def test_all_known_bugs_must_die_and_not_only_because_they_do_not_run(monkeypatch, capsys, end):
    code, lines = run(monkeypatch, capsys, ["killed test"] * 99 + [end])
    assert (code, lines[-2]) == (1, "planted 100, killed 99")
    assert lines[-1].startswith(end.split()[0])
    assert run(monkeypatch, capsys, ["killed test"])[0] == 0


def test_modules_are_chosen_by_id_by_name_and_by_room(capsys):
    pool = program.pool()
    assert [file for file in pool if program.about(file, "verify")] == ["reference_impls/core/verify.py"]
    assert {Path(file).parent.name for file in pool if program.about(file, "testing")} == {"testing"}
    assert len(program.chosen("cache", 3, 1)) == 3
    assert {change.file for change in program.chosen("cache", None, 1)} == {"reference_impls/core/cache.py"}
    assert program.main(["--method", "unheard-of"]) == 2
    assert "no module with mutants is called 'unheard-of'" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="2"):
        program.main(["--random", "0"])
