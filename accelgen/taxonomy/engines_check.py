"""Whether what the taxonomy says about transformers holds for the installed package.

Run as `python -m accelgen.taxonomy.engines_check`: it looks up every name that a switch or a command of the
engine transformers uses, and it makes sure that what is called absent has not arrived.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from accelgen.taxonomy.loading import load_taxonomy
from accelgen.taxonomy.schema import Production, Taxonomy

ENGINE = "transformers"
PROPOSERS = frozenset(
    {
        "AssistedCandidateGenerator", "AssistedCandidateGeneratorDifferentTokenizers", "CandidateGenerator",
        "DFlashTokenCandidateGenerator", "EarlyExitCandidateGenerator", "MTPCandidateGenerator",
        "PromptLookupCandidateGenerator", "SinglePositionMultiTokenCandidateGenerator",
        "UniversalSpeculativeDecodingGenerator",
    }
)  # fmt: skip
"""Every class that proposes tokens in the release that was read: what is absent was looked for among these."""


@dataclass(frozen=True)
class Installed:
    """What the check has to know about a package."""

    version: str
    options: frozenset[str]
    """What `generate` takes, by itself or through GenerationConfig."""
    methods: frozenset[str]
    """What can be called on a model."""
    classes: dict[str, frozenset[str]]
    """Classes that have to do with generating, with what they take."""
    proposers: frozenset[str]
    public: frozenset[str]
    """What can be imported from the package, models included."""

    @property
    def names(self) -> frozenset[str]:
        """All that has to do with generating."""
        return self.options | self.methods | frozenset(self.classes)


def installed() -> Installed:
    """The transformers of this environment; ImportError if there is none."""
    import transformers
    from transformers.generation import candidate_generator, utils

    mixin: Any = utils.GenerationMixin
    takers = (transformers.GenerationConfig, mixin.generate, vars(mixin)["_assisted_decoding"])
    proposers = {
        name: kind
        for name, kind in vars(candidate_generator).items()
        if inspect.isclass(kind) and issubclass(kind, candidate_generator.CandidateGenerator)
    }
    public = {name: getattr(transformers, name) for name in _generation_names(transformers)}
    return Installed(
        version=transformers.__version__,
        options=frozenset().union(*map(_takes, takers)),
        methods=frozenset(dir(mixin)) | frozenset(dir(transformers.PreTrainedModel)),
        classes={name: _takes(kind) for name, kind in (proposers | public).items()},
        proposers=frozenset(proposers),
        public=frozenset(dir(transformers)),
    )


def _generation_names(package: Any) -> Iterator[str]:
    """Public classes that have to do with generating; to import every model would take minutes."""
    for name in dir(package):
        if re.search(r"(Config|Generator|Sampler)$", name) and re.search("Generation|Batching|Sampler|Candidate", name):
            yield name


def _takes(thing: Any) -> frozenset[str]:
    """The names of its parameters; those of a configuration are its attributes."""
    if inspect.isclass(thing) and "GenerationConfig" in {base.__name__ for base in thing.__mro__}:
        return frozenset(vars(thing()))
    return frozenset(inspect.signature(thing).parameters)


# ---- what an entry names ------------------------------------------------------------------------------------------


def uses(production: Production) -> Iterator[tuple[str, str]]:
    """The names that an entry uses, as pairs of kind (option, method, class, name or `Class.parameter`) and name."""
    for span in re.findall(r"`([^`]+)`", production.switch):
        try:
            (call,) = ast.parse(f"generate({span})").body
        except SyntaxError:
            yield "name", span  # no Python: no name of transformers either
            continue
        yield from _of_arguments(call.value)  # type: ignore[attr-defined]
    if production.command:
        yield from _of_command(ast.parse(production.command))


def _of_arguments(call: ast.Call) -> Iterator[tuple[str, str]]:
    """Names in a span of code: `option=value`, `Class(parameter=value)`, or a name alone."""
    yield from (("option", keyword.arg) for keyword in call.keywords if keyword.arg)
    for argument in call.args:
        if isinstance(argument, ast.Name):
            yield "name", argument.id
        elif isinstance(argument, ast.Call):
            yield from _of_call(argument)


def _of_command(tree: ast.AST) -> Iterator[tuple[str, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module == ENGINE:
            yield from (("class", alias.name) for alias in node.names)
        elif isinstance(node, ast.Call):
            yield from _of_call(node)


def _of_call(call: ast.Call) -> Iterator[tuple[str, str]]:
    if isinstance(call.func, ast.Attribute):
        yield "method", call.func.attr
        if call.func.attr == "generate":
            yield from _of_arguments(call)
    elif isinstance(call.func, ast.Name):
        yield "class", call.func.id
        yield from (("parameter", f"{call.func.id}.{k.arg}") for k in call.keywords if k.arg)


# ---- the check ----------------------------------------------------------------------------------------------------


def problems(taxonomy: Taxonomy, package: Installed) -> Iterator[str]:
    """A sentence for every statement about transformers that does not hold."""
    for method in taxonomy.methods:
        for production in method.production:
            if production.engine != ENGINE:
                continue
            where = f"{method.id}, transformers {package.version}"
            missing = dict.fromkeys(name for kind, name in uses(production) if not _has(package, kind, name))
            yield from (f"{where}: there is no {name}, which `{production.switch}` names" for name in missing)
            if production.switch.startswith("absent"):
                for name in sorted(name for name in package.names if _is_about(name, method.id)):
                    yield f"{where}: said to be absent, but there is {name}"
    for name in sorted(package.proposers - PROPOSERS):
        yield f"transformers {package.version}: {name} is new; look whether it is one of the techniques called absent"


def _has(package: Installed, kind: str, name: str) -> bool:
    if kind == "parameter":
        owner, _, parameter = name.partition(".")
        return owner not in package.public or parameter in package.classes.get(owner, ())
    if kind == "name":
        return name in package.names | package.public | frozenset().union(*package.classes.values())
    return name in {"option": package.options, "method": package.methods, "class": package.public}[kind]


def _is_about(name: str, method: str) -> bool:
    """Whether the words of a method's id stand side by side in a name such as MedusaHeads or use_medusa."""
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+", name)
    return f"-{method}-" in f"-{'-'.join(words).lower()}-"


def main() -> int:
    """Print what does not hold; 0 if everything does, 1 if something does not, 2 without transformers."""
    try:
        package = installed()
    except ImportError:
        sys.stderr.write("This check reads the installed transformers: pip install transformers\n")
        return 2
    found = list(problems(load_taxonomy(), package))
    sys.stdout.write("\n".join(found or [f"Every statement about transformers holds in {package.version}."]) + "\n")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
