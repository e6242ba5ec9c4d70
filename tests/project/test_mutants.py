"""The machinery that plants bugs: it must be able to lose, and say so when it proves nothing."""

import re

import mutants
import pytest
from mutants import CACHE, CATALOGUE, CatalogueError, Mutant


@pytest.mark.parametrize("mutant", CATALOGUE, ids=lambda mutant: mutant.name)
def test_every_mutant_still_applies_and_changes_the_program(mutant):
    file, text = mutants.patched(mutant)
    assert text != file.read_text("utf-8")
    compile(text, str(file), "exec")
    for test in mutant.tests:
        assert (mutants.ROOT / "tests" / test).is_file()


def test_mutants_are_told_apart_by_name_and_change():
    assert len({mutant.name for mutant in CATALOGUE}) == len(CATALOGUE)
    assert len({(mutant.module, mutant.old, mutant.new) for mutant in CATALOGUE}) == len(CATALOGUE)


def test_a_change_that_does_not_apply_at_one_place_is_an_error():
    with pytest.raises(CatalogueError, match="mutant gone does not apply any more"):
        mutants.patched(Mutant("gone", "core/cache", "no such text", "", (CACHE,)))
    with pytest.raises(CatalogueError, match=r"mutant twice is ambiguous, it applies at \d+ places"):
        mutants.patched(Mutant("twice", "core/cache", "self._lengths", "", (CACHE,)))


def test_what_changes_nothing_survives_a_bug_is_killed_and_nonsense_is_an_error():
    place = "return min(self._lengths)"
    nothing = Mutant("nothing", "core/cache", place, f"{place}  # no change", (CACHE,))
    bug = Mutant("bug", "core/cache", place, "return 0", (CACHE,))
    nonsense = Mutant("nonsense", "core/cache", "import torch\n", "import no_such_module\n", (CACHE,))
    with mutants.pool(workers=1) as workers:
        alive, dead, error = (workers.submit(mutants.survives, mutant) for mutant in (nothing, bug, nonsense))
        assert alive.result()
        assert not dead.result()
        with pytest.raises(CatalogueError, match="mutant nonsense does not run"):
            error.result()


def test_the_last_line_counts_and_the_exit_code_tells(monkeypatch, capsys):
    survivor = Mutant("survivor", "core/cache", "    def __len__", "    def __len__", (CACHE,))
    monkeypatch.setattr(mutants, "CATALOGUE", [survivor])
    assert mutants.main([]) == 1
    assert re.fullmatch(r"SURVIVED  survivor\nplanted 1, killed 0\n", capsys.readouterr().out)
    assert mutants.main(["unheard-of"]) == 2
