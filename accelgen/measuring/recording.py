"""Which calls a decoding loop makes, and how long each takes where it really stands.

A drafter that is called again and again alone has its weights at hand, and looks three times cheaper than it is: so the
calls are timed inside the loops. Every outermost call of a model, of what all loops share and of what a method's case
names is noted once.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from torch import Tensor, nn

from accelgen.measuring import machine
from reference_impls.core.batch import Batch
from reference_impls.core.cache import Cache
from reference_impls.core.model import LanguageModel
from reference_impls.core.sampling import Sampler
from reference_impls.core.seq2seq import EncoderDecoder
from reference_impls.core.tree import Tree

PARTS = ("target", "draft", "rest")
# What all loops call that is no model: drawing, masks, repairs of the cache.
SHARED: tuple[tuple[type, str], ...] = (
    (Sampler, "probs"), (Sampler, "draw"), (Sampler, "accept"), (Tree, "layout"), (Cache, "keep"),
)  # fmt: skip
LEFT_OUT = ("new_cache", "forget_angles", "loss")  # of a model's public methods


@dataclass(frozen=True, order=True)
class Operation:
    """A kind of call: calls that agree in all of this are taken to cost the same."""

    part: str  # one of PARTS
    who: str  # "target", "drafter of 2 layers", a class, or a function
    name: str  # of the method that was called, if it was one
    how: str  # what else its cost depends on: the mask of a tree, the number of layers, greedy or not
    new: int  # tokens, rows, places or nodes


class Recorder:
    """Notes every outermost call of what it watches, with its seconds; calls inside calls belong to the outer one."""

    def __init__(self) -> None:
        self.calls: list[tuple[Operation, float]] = []
        self._inside = False
        self._patched: list[tuple[Any, str, Any]] = []  # what is replaced just now, with what stood there

    def wrap(self, part: str, who: str, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, noted down."""
        return self._noting(
            function, lambda *args, **kwargs: Operation(part, who, name, manner(args, kwargs), size(args))
        )

    def _noting(self, function: Callable[..., Any], operation: Callable[..., Operation]) -> Callable[..., Any]:
        """The function, whose calls are noted as the `operation` that their arguments tell."""

        @functools.wraps(function)
        def noted(*args: Any, **kwargs: Any) -> Any:
            if self._inside:
                return function(*args, **kwargs)
            self._inside, call = True, operation(*args, **kwargs)
            start = machine.now()
            try:
                return function(*args, **kwargs)
            finally:
                self.calls.append((call, machine.now() - start))
                self._inside = False

        return noted

    @contextmanager
    def watching(
        self, module: ModuleType, options: Mapping[str, Any], costs: Mapping[str, str], counted: str = "target"
    ) -> Iterator[None]:
        """While it lasts, models among the options, the shared pieces and the module's `costs` are noted down.

        `costs` are functions of the module with the part that their time belongs to, as a case names them; `counted` is
        the option whose passes are counted. Raises ValueError for a function that the module does not have.
        """
        if absent := next((name for name in costs if name not in vars(module)), None):
            raise ValueError(f"the case of {module.__name__} names {absent} among its costs, which is not there")
        found = roles(options, counted)
        try:
            for model, (part, who) in found:
                for name in public_methods(type(model)):
                    self._watch(model, name, part, who, name)
                for name, child in model.named_children():  # a loop may ask a part of a model alone
                    if "forward" in public_methods(type(child)):
                        self._watch(child, "forward", part, who, name)
            passes = functools.partial(batch_pass, {id(model): role for model, role in found})
            self._replace(Batch, "__call__", self._noting(Batch.__call__, passes))
            for owner, name in SHARED:
                self._watch(owner, name, "rest", owner.__name__, name)
            for name, part in costs.items():
                own = "" if ".core." in vars(module)[name].__module__ else f"{module.__name__.rpartition('.')[2]}."
                self._watch(module, name, part, own + name, "")
            yield
        finally:
            while self._patched:
                owner, attribute, before = self._patched.pop()
                delattr(owner, attribute) if before is None else setattr(owner, attribute, before)

    def _watch(self, owner: Any, attribute: str, part: str, who: str, name: str) -> None:
        self._replace(owner, attribute, self.wrap(part, who, name, getattr(owner, attribute)))

    def _replace(self, owner: Any, attribute: str, function: Callable[..., Any]) -> None:
        self._patched.append((owner, attribute, vars(owner).get(attribute)))
        setattr(owner, attribute, function)


def roles(options: Mapping[str, Any], counted: str = "target") -> list[tuple[nn.Module, tuple[str, str]]]:
    """The models among the options, each with its part and its name; a model that is there twice comes once.

    The option `counted` is the model that a method decodes with. A second model that translates is one more target,
    if it is no drafter.
    """
    found: dict[int, tuple[nn.Module, tuple[str, str]]] = {}
    for key, value in options.items():
        for model in value if isinstance(value, list | tuple) else [value]:
            if isinstance(model, nn.Module):
                found.setdefault(id(model), (model, _role(key, model, counted)))
    return list(found.values())


def _role(key: str, model: nn.Module, counted: str) -> tuple[str, str]:
    if isinstance(model, EncoderDecoder):
        return "draft" if key == "drafter" else "target", type(model).__name__
    if key == counted == "target":  # the same model in all methods that have one
        return "target", key
    part, name = ("target", type(model).__name__) if key == counted else ("draft", "drafter")
    if isinstance(model, LanguageModel):
        return part, f"{name} of {model.shape.layers} layers"
    return part, type(model).__name__


def public_methods(kind: type) -> list[str]:
    """The names of the public methods that a model's class and its bases define, those of torch left out."""
    found = dict.fromkeys(
        name
        for base in kind.__mro__
        if base.__module__.startswith("reference_impls")
        for name, value in vars(base).items()
        if inspect.isfunction(value) and not name.startswith("_") and name not in LEFT_OUT
    )
    return list(found)


def batch_pass(
    known: Mapping[int, tuple[str, str]], batch: Batch, tokens: Sequence[Sequence[int]], **_: Any
) -> Operation:
    """A pass over several sequences: what it costs depends on the tokens that it reads, and on how many read some."""
    part, who = known.get(id(batch.model), ("rest", "Batch"))
    rows = sum(map(bool, tokens))
    return Operation(part, who, "forward", f"batch of {rows}", sum(map(len, tokens)))


def size(args: Sequence[Any]) -> int:
    """How many tokens, rows, places or nodes a call is about: the size of its first argument that has one."""
    for value in args:
        if isinstance(value, Tensor):
            rows = value.numel() // value.shape[-1] if value.is_floating_point() and value.dim() else value.numel()
            return max(1, rows)
        if isinstance(value, list | tuple | Tree):
            return len(value)
    return 1


def manner(args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """What else the cost of a call depends on."""
    sampler = next((value for value in args if isinstance(value, Sampler)), None)
    found = ["greedy" if sampler.temperature == 0 else "sampling"] if sampler is not None else []
    if kwargs.get("visible") is not None:
        found.append("masked")
    if kwargs.get("layers") is not None:
        found.append(f"{len(kwargs['layers'])} layers")
    return ", ".join(found)
