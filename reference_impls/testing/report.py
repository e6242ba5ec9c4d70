"""From a function to a proof: which suites apply, what each check found, and how long it took."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from reference_impls.testing.accounting import ACCOUNTING
from reference_impls.testing.batches import BATCH
from reference_impls.testing.canvases import CANVAS
from reference_impls.testing.case import EMPTY, Case
from reference_impls.testing.checks import Check, Skip, Suite
from reference_impls.testing.classifying import CLASSIFY
from reference_impls.testing.early_exits import EARLY_EXIT
from reference_impls.testing.exactness import EXACT_LAW, GREEDY_IDENTITY
from reference_impls.testing.from_signature import KitError
from reference_impls.testing.importing import call_of, function
from reference_impls.testing.parallel import NON_AUTOREGRESSIVE
from reference_impls.testing.refusals import OPTIONS

EXACT = (EXACT_LAW, GREEDY_IDENTITY, ACCOUNTING, OPTIONS)
SUITES = {suite.name: suite for suite in (*EXACT, EARLY_EXIT, NON_AUTOREGRESSIVE, CANVAS, BATCH, CLASSIFY)}
OWED = {
    "limit": EXACT,
    "source": (NON_AUTOREGRESSIVE,),
    "length": (CANVAS,),
    "prompts": (BATCH,),
    "tokens": (CLASSIFY,),
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


def run_check(suite: Suite, check: Check) -> Result:
    """Run one check. Whatever it raises is a failure, except what only the kit can mend (KitError)."""
    start = time.perf_counter()
    outcome: Outcome = "passed"
    message = ""
    try:
        check.run()
    except KitError:
        raise
    except Skip as reason:
        outcome, message = "skipped", str(reason)
    except AssertionError as error:
        outcome, message = "failed", str(error)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a broken port may raise anything
        outcome, message = "failed", f"it raised {type(error).__name__}: {error}"
    return Result(suite.name, check.name, check.claim, outcome, time.perf_counter() - start, message)


def prove(
    generate: Callable[..., Any], suites: Sequence[Suite], case: Case = EMPTY, skip: Mapping[str, str] | None = None
) -> Iterator[Result]:
    """Run the checks one by one. `skip` holds reasons by suite, or by suite and check as in `early-exit/layers`."""
    skip = skip or {}
    for suite in suites:
        for check in suite.checks(generate, case):
            reason = skip.get(suite.name) or skip.get(f"{suite.name}/{check.name}")
            if reason:
                yield Result(suite.name, check.name, check.claim, "skipped", message=reason)
            else:
                yield run_check(suite, check)


def verify(name: str, suites: Sequence[str] | None = None, case: Case = EMPTY) -> Report:
    """Prove somebody's own method, given as `package.module:function` or `file.py:function`.

    Without `suites` it gets those that its call owes: one that continues a prompt all that an exact method must pass.
    `case` says what its signature does not. Raises KitError for what cannot be verified.
    """
    chosen = named_suites(suites or ())
    generate = function(name)
    return Report(name, list(prove(generate, chosen or OWED[call_of(generate)], case)))


def named_suites(names: Sequence[str]) -> list[Suite]:
    """The suites of these names. Raises KitError for a name that there is not."""
    unknown = [name for name in names if name not in SUITES]
    if unknown:
        raise KitError(f"there is no suite {unknown[0]!r}; choose among {', '.join(SUITES)}")
    return [SUITES[name] for name in names]
