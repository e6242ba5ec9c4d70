"""What a run is asked for, and who answers: a method with its models and options, or what it is compared with."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reference_impls.core.generation import Ends, Generation
    from reference_impls.core.sampling import Sampler


def setting_name(temperature: float) -> str:
    """How a temperature is called."""
    return "greedy" if temperature == 0 else f"temperature {temperature:g}"


def plain_options(options: Mapping[str, Any]) -> list[str]:
    """The options that are numbers or words, as people write them; models are left out."""
    return [f"{name} {value}" for name, value in options.items() if isinstance(value, int | float | str)]


@dataclass(frozen=True)
class Setting:
    """What is varied between the rows of one method."""

    temperature: float | None = None  # None: it draws nothing
    options: Mapping[str, Any] = field(default_factory=dict)

    def title(self, options: Mapping[str, Any]) -> str:
        """How the setting is called, beside the other options of the method."""
        drawn = [] if self.temperature is None else [setting_name(self.temperature)]
        return ", ".join([*drawn, *plain_options({**options, **self.options})])


@dataclass(frozen=True)
class Request:
    """What one run is asked for, whoever answers it: token ids, or the ids of several texts, and how to decode."""

    given: Any
    limit: int
    temperature: float = 0.0
    seed: int = 0
    eos: Ends | None = None

    def sampler(self) -> Sampler:
        """A fresh sampler, so that the same request gives the same text again."""
        from reference_impls.core.sampling import Sampler

        return Sampler(self.temperature, seed=self.seed)


@dataclass(frozen=True)
class Side:
    """A function with the models and options that it is always called with: a method, or what it is compared with."""

    module: ModuleType
    function: Callable[..., Any]
    options: Mapping[str, Any]

    @cached_property
    def required(self) -> frozenset[str]:
        """The parameters that a kind has to fill: those without a default, and the end of the text."""
        found = inspect.signature(self.function).parameters.values()
        return frozenset(p.name for p in found if p.default is p.empty or p.name == "eos")

    def choices(self) -> list[dict[str, Any]]:
        """The choices that the function offers between words, one by one; one empty choice if it offers none."""
        from reference_impls.testing.from_signature import variants

        return variants(self.function)


@dataclass(frozen=True)
class Shown:
    """A run that a method's page shows."""

    title: str
    request: Request
    results: list[Generation]
    settings: Mapping[str, float] = field(default_factory=dict)
