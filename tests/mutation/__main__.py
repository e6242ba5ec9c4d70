"""`make mutants`: plant the known bugs, or with RANDOM=100 SEED=1 random ones, and say what became of each."""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime
from pathlib import Path

from accelgen.taxonomy.loading import load_taxonomy

from .changes import ROOT, Change, MutantError
from .drawing import drawn
from .judging import ROOMS, judged
from .named import named

BOUND = 95  # of 100 random mutants so many must die, and of the known ones all
ARBITRARY = {"__init__", "tiny", "case"}  # modules of the kit that judge nothing: another choice would be as good


def pool() -> list[str]:
    """The modules that random mutants are drawn from: the methods, core, and the kit's own judgements."""
    methods = [f"{method.module.replace('.', '/')}.py" for method in load_taxonomy().methods if method.is_implemented]
    rooms = [path for room in sorted(ROOMS) for path in (ROOT / "reference_impls" / room).glob("*.py")]
    return methods + [path.relative_to(ROOT).as_posix() for path in rooms if path.stem not in ARBITRARY]


def about(file: str, name: str) -> bool:
    """Whether a module is meant by the id of a method, or by the name of a module or of its room; all are by none."""
    return not name or name.replace("-", "_") in {Path(file).stem, Path(file).parent.name}


def chosen(name: str, count: int | None, seed: int) -> list[Change]:
    """The known bugs, or `count` random ones, of the modules that `name` means. MutantError if it means none."""
    known = named() if count is None else []
    files = [file for file in (pool() if count else {change.file for change in known}) if about(file, name)]
    if not files:
        raise MutantError(f"no module with mutants is called {name!r}: give a method's id, a module of core, or a room")
    return drawn(files, count, seed) if count else [change for change in known if change.file in files]


def main(arguments: list[str]) -> int:
    """Plant mutants and print what became of each. Returns 1 where too many survive, 2 where nothing can be judged."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation", description=__doc__)
    parser.add_argument("--random", type=int, metavar="N", help="draw N random mutants in place of the known bugs")
    parser.add_argument("--seed", type=int, default=int(datetime.now(UTC).strftime("%Y%m%d")), help="default: the date")
    parser.add_argument("--method", default="", metavar="NAME", help="only of this method, core module or room")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="processes at a time (2)")
    given = parser.parse_args(arguments)
    if given.random is not None and given.random < 1:
        parser.error("--random is the number of mutants to draw, at least 1")
    try:
        changes = chosen(given.method, given.random, given.seed)
    except MutantError as error:
        print(error, file=sys.stderr)
        return 2
    kind, bound = ("known", 100) if given.random is None else (f"random, drawn with seed {given.seed}", BOUND)
    print(f"{len(changes)} mutants, {kind}; at least {bound} in 100 must die", flush=True)
    unproved = []  # what survived, could not be judged or, of the known ones, does not even run
    for change, verdict in judged(changes, given.workers):
        line = f"{verdict.outcome:<9} {change}{verdict.by and f'  by {verdict.by}'}"
        print(line, flush=True)
        if verdict.outcome != "killed" or (change.name and verdict.by == "import"):
            unproved.append(line)
    killed = len(changes) - len(unproved)
    print(f"planted {len(changes)}, killed {killed}", *sorted(unproved), sep="\n")  # once more, below the count
    return int(100 * killed < bound * len(changes))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
