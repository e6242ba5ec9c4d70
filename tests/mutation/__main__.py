"""`make mutants`: plant the known bugs, or with RANDOM=100 SEED=1 random ones, and say what became of each."""

from __future__ import annotations

import argparse
import math
import sys
from datetime import UTC, datetime
from pathlib import Path

from accelgen.taxonomy.loading import load_taxonomy

from .changes import ROOT, Change, MutantError
from .drawing import drawn
from .judging import ROOMS, judged
from .named import named

BOUND = 95  # of 100 random mutants so many must die, and of the known ones all
DOUBT = 1e-3  # of draws below a hundred, the share that may fail although 95 in 100 die
ARBITRARY = {"__init__", "tiny", "from_signature", "case"}  # of the kit, judge nothing: another choice would be as good


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


def least_killed(count: int) -> int:
    """How many of so many random mutants must die: 95 in 100; of fewer, what chance alone hardly ever falls below."""
    if count >= 100:
        return math.ceil(BOUND * count / 100)
    rate, chance = BOUND / 100, 0.0
    for killed in range(count + 1):
        chance += math.comb(count, killed) * rate**killed * (1 - rate) ** (count - killed)
        if chance > DOUBT:
            break
    return killed


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
    known = given.random is None
    least = len(changes) if known else least_killed(len(changes))
    kind = "known" if known else f"random, drawn with seed {given.seed}"
    print(f"{len(changes)} mutants, {kind}; at least {least} must die", flush=True)
    unproved = []  # what survived, could not be judged or, of the known ones, does not even run
    for change, verdict in judged(changes, given.workers):
        line = f"{verdict.outcome:<9} {change}{verdict.by and f'  by {verdict.by}'}"
        print(line, flush=True)
        if verdict.outcome != "killed" or (change.name and verdict.by == "import"):
            unproved.append(line)
    killed = len(changes) - len(unproved)
    print(f"planted {len(changes)}, killed {killed}", *sorted(unproved), sep="\n")  # once more, below the count
    return int(killed < least)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
