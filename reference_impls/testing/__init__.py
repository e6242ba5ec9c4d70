"""The public conformance kit: prove that a decoding method, ours or your own port, does what it promises.

`verify("my_package.my_module:generate")` or `verify("my_file.py:generate")` runs the suites that a function of this
call owes, and returns a `Report`; `accelgen verify` prints it. `prove` takes the function itself. `exact_law` and
`total_variation` are there for proofs of your own. A function that continues a prompt owes all that an exact method
does; the suite for early exits, which do not keep the law, is run only when it is asked for: `suites=["early-exit"]`.

A function is called as `generate(target, prompt, limit, *, sampler, …, eos=None)`; as `generate(model, source, …)`
where it translates, `generate(model, prompt, length, *, steps, …)` where it fills a canvas, `generate(target, prompts,
limits, *, …)` where it decodes a batch, and `predict(model, tokens, …)` where it classifies. What else it asks for is
built from its signature: by its annotation a `LanguageModel`, or a sequence of them, to draft with (without annotation
a `drafter`, or `drafters`), and a module class if its first argument is a `Shape` (an argument `k` says how many tokens
it reaches) or `tokens` (a text to retrieve from); `gamma` and `exits` by their names; and a `Literal` annotation is
tried in all its values. Everything else keeps its default. What a signature cannot tell stands
in a `Case`: options for a `Scene`, scenes of its own, values to be refused.

Of a result only `tokens` is needed. With `steps` like those of `core.generation.Generation` the trace is proved too;
without, the checks that need it are skipped and say so.

Suites: `exactness` of the text's law, `accounting` of the trace, `refusals` of what cannot work, `early_exits`,
`parallel` decoding, `canvases`, `batches` and `classifying`. What they are made of: `checks` names claims, `laws`
enumerates, `tiny` makes models, `from_signature` what a method asks for, `case` says what a signature cannot. Around
them: `importing` finds a function, `report` runs the suites that it owes.
"""

from reference_impls.testing.case import Case, Scene
from reference_impls.testing.checks import Check, Suite
from reference_impls.testing.from_signature import BUILDERS, KitError, options
from reference_impls.testing.laws import Exhaustive, autoregressive_law, exact_law, total_variation
from reference_impls.testing.report import SUITES, Report, Result, named_suites, prove, verify
from reference_impls.testing.tiny import flat_model, language_model

__all__ = [
    "BUILDERS",
    "SUITES",
    "Case",
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
    "named_suites",
    "options",
    "prove",
    "total_variation",
    "verify",
]
