"""From a name to a proof: which suites apply, what each check found, and how long it took."""

from __future__ import annotations

import importlib
import inspect
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from accelgen.taxonomy.loading import TaxonomyError, load_taxonomy
from accelgen.taxonomy.schema import Method
from accelgen.taxonomy.suites import suites_of
from reference_impls.testing.accounting import ACCOUNTING, OPTIONS
from reference_impls.testing.checks import Check, Generate, Suite
from reference_impls.testing.early_exits import EARLY_EXIT
from reference_impls.testing.exactness import EXACT_LAW, GREEDY_IDENTITY
from reference_impls.testing.parallel import NON_AUTOREGRESSIVE
from reference_impls.testing.tiny import KitError

SUITES = {
    suite.name: suite for suite in (EXACT_LAW, GREEDY_IDENTITY, EARLY_EXIT, NON_AUTOREGRESSIVE, ACCOUNTING, OPTIONS)
}
Outcome = Literal["passed", "failed", "skipped"]


@dataclass(frozen=True)
class Result:
    """What a check found. `message` says why it failed or was skipped."""

    suite: str
    check: str
    claim: str
    outcome: Outcome
    seconds: float = 0.0
    message: str = ""


@dataclass
class Report:
    """All results for one method or function."""

    subject: str
    results: list[Result] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether something was checked and nothing failed."""
        outcomes = [result.outcome for result in self.results]
        return "passed" in outcomes and "failed" not in outcomes

    def to_dict(self) -> dict[str, Any]:
        """Plain data, for JSON."""
        return asdict(self) | {"passed": self.passed}


def suites_for(method: Method) -> list[Suite]:
    """The suites that prove what the taxonomy says of a method."""
    return [SUITES[suite.id] for suite in suites_of(method)]


def run_check(suite: Suite, check: Check) -> Result:
    """Run one check. Whatever it raises is a failure, except what only the kit can mend (KitError)."""
    start = time.perf_counter()
    outcome: Outcome = "passed"
    message = ""
    try:
        check.run()
    except KitError:
        raise
    except AssertionError as error:
        outcome, message = "failed", str(error)
    except Exception as error:  # noqa: BLE001 - a broken port may raise anything
        outcome, message = "failed", f"it raised {type(error).__name__}: {error}"
    return Result(suite.name, check.name, check.claim, outcome, time.perf_counter() - start, message)


def prove(generate: Generate, suites: Sequence[Suite], skip: dict[str, str] | None = None) -> Iterator[Result]:
    """Run the checks one by one. `skip` holds reasons by suite, or by suite and check as in `early-exit/layers`."""
    skip = skip or {}
    for suite in suites:
        for check in suite.checks(generate):
            reason = skip.get(suite.name) or skip.get(f"{suite.name}/{check.name}")
            if reason:
                yield Result(suite.name, check.name, check.claim, "skipped", message=reason)
            else:
                yield run_check(suite, check)


def verify(name: str, suites: Sequence[str] | None = None) -> Report:
    """Prove a method of the taxonomy, or somebody's own port of one given as `package.module:function`.

    Without `suites` a method gets those that its taxonomy fields select, and a port all that an exact method must
    pass. Raises KitError for what cannot be verified.
    """
    unknown = [suite for suite in suites or () if suite not in SUITES]
    if unknown:
        raise KitError(f"there is no suite {unknown[0]!r}; choose among {', '.join(SUITES)}")
    chosen = [SUITES[suite] for suite in suites or ()]
    if ":" in name:
        chosen = chosen or [EXACT_LAW, GREEDY_IDENTITY, ACCOUNTING, OPTIONS]
        return Report(name, list(prove(_function(name), chosen)))
    method = _method(name)
    generate = importlib.import_module(method.module).generate
    return Report(name, list(prove(generate, chosen or suites_for(method), method.implementation.skip)))


def _method(id: str) -> Method:
    try:
        method = load_taxonomy().method(id)
    except (KeyError, TaxonomyError) as error:
        reason = str(error) if isinstance(error, TaxonomyError) else f"the taxonomy has no method {id!r}"
        raise KitError(f"{reason}; `accelgen list` shows the ids, and a function is given as module:function") from None
    if not method.is_implemented:
        raise KitError(f"{id} is not implemented yet, so there is nothing to verify")
    return method


def _function(name: str) -> Generate:
    place, _, attribute = name.partition(":")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)  # people verify a file of the folder they stand in
    try:
        found = getattr(importlib.import_module(place), attribute)
    except (ImportError, ValueError) as error:
        raise KitError(f"module {place!r} cannot be imported ({error}); run from the folder it is in") from None
    except AttributeError:
        raise KitError(f"module {place!r} has no function {attribute!r}") from None
    if not callable(found):
        raise KitError(f"{name} is not a function")
    missing = [p for p in ("limit", "sampler") if p not in inspect.signature(found).parameters]
    if missing and "source" not in inspect.signature(found).parameters:
        wanted = "(target, prompt, limit, *, sampler, …, eos=None)"
        raise KitError(f"{name} has no parameter {missing[0]!r}; the kit calls it as {wanted}")
    generate: Generate = found
    return generate
