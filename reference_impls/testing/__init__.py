"""The public conformance kit: prove that a decoding method, ours or your own port, does what it promises.

`verify("speculative-decoding-leviathan")` or `verify("my_package.my_module:generate")` runs the suites and returns a
`Report`; `accelgen verify` prints it. `exact_law` and `total_variation` are there for proofs of your own.

A function is called as `generate(target, prompt, limit, *, sampler, …, eos=None)`, or as `generate(model, source, …)`
where it translates. What else it asks for is built from its signature: `drafter`, `gamma` and `exits` by their names, a
module class by its annotation if its first argument is a `Shape` (an argument `k` says how many tokens it reaches) or
`tokens` (a text to retrieve from), and a `Literal` annotation is tried in all its values. Everything else keeps its
default. For a parameter of another kind, put a function of a `Scene` into `BUILDERS` under its name.
"""

from reference_impls.testing.checks import Check, Suite
from reference_impls.testing.laws import Exhaustive, autoregressive_law, exact_law, total_variation
from reference_impls.testing.report import SUITES, Report, Result, prove, suites_for, verify
from reference_impls.testing.tiny import BUILDERS, KitError, Scene, flat_model, language_model, options

__all__ = [
    "BUILDERS",
    "SUITES",
    "Check",
    "Exhaustive",
    "KitError",
    "Report",
    "Result",
    "Scene",
    "Suite",
    "autoregressive_law",
    "exact_law",
    "flat_model",
    "language_model",
    "options",
    "prove",
    "suites_for",
    "total_variation",
    "verify",
]
