"""Plant one mutant in a process of its own and let the proofs of its module look for it, the cheapest first.

Only what belongs to the module may find it: of a method its suites, its own test and its doctest; of core and the kit
its own test, the suites of one method of each family, and the other tests of the room; of all else its own test.
A mutant that never ends, or fills the memory, is found as well.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import multiprocessing
import os
import resource
import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

import pytest

from accelgen.measuring.kinds import KINDS
from accelgen.taxonomy.loading import load_taxonomy
from accelgen.taxonomy.schema import Method
from accelgen.taxonomy.suites import claims_of

from .changes import ROOT, Change, MutantError, plant
from .named import own_test

ROOMS = {"core", "testing"}  # their modules are proved together, and by methods
PATIENCE = 20  # seconds of computing that one suite or test file may take
MEMORY = 4 << 30  # bytes that a mutant may fill

Proof = tuple[str, Callable[[], bool]]  # its name, and whether it holds


class Verdict(NamedTuple):
    """What became of a mutant, and what found it, or what went wrong."""

    outcome: str  # killed, survived, or error
    by: str = ""


def judged(changes: Iterable[Change], workers: int = 2) -> Iterator[tuple[Change, Verdict]]:
    """Every mutant with its verdict, as they come."""
    with ThreadPoolExecutor(workers) as threads:
        running = {threads.submit(verdict, change): change for change in changes}
        for done in as_completed(running):
            yield running[done], done.result()


def verdict(change: Change, patience: float = PATIENCE) -> Verdict:
    """Judge a mutant in a fresh process, forked from one that has imported torch and pytest but not this project.

    The last word of the process counts, also if it was its last because it hung or broke down.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "pytest", "pydantic", "yaml"])
    listen, speak = context.Pipe(duplex=False)
    process = context.Process(target=_judge, args=(change, patience, speak), daemon=True)
    process.start()
    speak.close()
    word = Verdict("error", "it was not even planted")
    with contextlib.suppress(EOFError):
        while True:
            word = listen.recv()
    process.join()
    return word


def _judge(change: Change, patience: float, speak: Connection) -> None:
    """Say before each proof that it is the one that finds the mutant, and at the end that none did."""
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    try:
        plant(change)
        speak.send(Verdict("killed", "import"))
        importlib.import_module(change.module)
        for name, holds in proofs(change.file):
            speak.send(Verdict("killed", name))
            signal.setitimer(signal.ITIMER_PROF, patience)  # both timers end the process
            signal.setitimer(signal.ITIMER_REAL, 10 * patience)
            if not holds():
                return
        speak.send(Verdict("survived"))
    except MutantError as error:
        speak.send(Verdict("error", str(error)))


def proofs(file: str) -> Iterator[Proof]:
    """All that may find a mutant of this module."""
    methods = {method.module: method for method in load_taxonomy().methods if method.is_implemented}
    module, room, own = file.removesuffix(".py").replace("/", "."), Path(file).parent.name, own_test(file)
    if module in methods:
        yield from checks(methods[module])
    if own:
        yield tested(own)
    if module in methods:
        yield tested(ROOT / file)  # its doctest
    elif room in ROOMS:
        for method in users(module, methods.values()):
            yield from checks(method)
        yield from (tested(test) for test in sorted((ROOT / "tests" / room).glob("test_*.py")) if test != own)


def users(module: str, methods: Iterable[Method]) -> list[Method]:
    """One method of each family: of core one that imports the module; the kit judges all of them."""
    found: dict[str, Method] = {}
    for method in methods:
        source = (ROOT / f"{method.module.replace('.', '/')}.py").read_text("utf-8")
        if f"from {module} import" in source or ".testing." in module:
            found.setdefault(method.category, method)
    return list(found.values())


def checks(method: Method) -> Iterator[Proof]:
    """The suites of a method. What costs most, the enumeration of laws, stands first in their list."""
    from reference_impls.testing import named_suites, prove
    from reference_impls.testing.cases import case_of

    function = getattr(importlib.import_module(method.module), KINDS[method.call].function)
    for claim in reversed(claims_of(method)):
        results = prove(function, named_suites([claim.id]), case_of(method.id), method.implementation.skip)
        yield f"{claim.id} of {method.id}", partial(all, (result.outcome != "failed" for result in results))


def tested(file: Path) -> Proof:
    """The tests or doctests of a file, but the slow ones."""
    return str(file.relative_to(ROOT)), partial(passes, file)


def passes(file: Path) -> bool:
    """Whether they all pass, or there are none."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        quiet = ["-x", "-q", "--no-header", "-p", "no:cacheprovider", "-p", "no:xdist", "-m", "not slow"]
        code = pytest.main([*quiet, "--rootdir", str(ROOT), str(file)])
    if code in {pytest.ExitCode.USAGE_ERROR, pytest.ExitCode.INTERNAL_ERROR}:
        raise MutantError("\n".join(output.getvalue().splitlines()[-12:]))
    return code in {pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED}
