"""Which method runs against which baseline, on what and how often: the same for the benchmark and its prediction."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from accelgen.measuring.kinds import KINDS, Kind
from accelgen.measuring.machine import CPU, moved
from accelgen.measuring.pairs import Run
from accelgen.measuring.sides import Request, Setting, Side
from accelgen.taxonomy.schema import Method, Taxonomy


@dataclass(frozen=True)
class Plan:
    """How much is measured. Raises ValueError for a number below 1."""

    prompts: int  # or sentences
    limit: int  # tokens after each prompt
    repeat: int = 1  # how often each prompt is run, each time with another seed
    ids: Sequence[str] = ()  # of the methods; all that are implemented where none is named
    device: torch.device = CPU
    tick: Callable[[str], None] = lambda _: None  # called with a row's title before every pair

    def __post_init__(self) -> None:
        for name in ("prompts", "limit", "repeat"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")

    @property
    def runs(self) -> int:
        """How many pairs a row of the benchmark is over."""
        return self.prompts * self.repeat

    def order(self, spare: int = 0) -> list[tuple[int, int]]:
        """Input and seed of every run: the benchmark's, then `spare` ones on inputs that it does not use."""
        own = [(place, seed) for seed in range(self.repeat) for place in range(self.prompts)]
        return own + [(self.prompts + i, 0) for i in range(spare)]


@dataclass(frozen=True)
class Contest:
    """A row of the benchmark: a method at one setting, and its baseline on the same inputs."""

    method: Method
    kind: Kind
    setting: Setting
    own: Side
    baseline: Side
    inputs: list[Any]
    limit: int
    order: list[tuple[int, int]]

    @property
    def title(self) -> str:
        """How the setting is called in its row."""
        return self.setting.title(self.own.options)

    @property
    def shared(self) -> str:
        """Contests with the same name here have the same runs of the baseline; empty if nobody shares them."""
        return self.kind.shares(self.setting)

    def runs(self, i: int) -> tuple[Run, Run]:
        """The i-th run of the baseline and of the method."""
        place, seed = self.order[i]
        request = Request(self.inputs[place], self.limit, self.setting.temperature or 0.0, seed)
        return lambda: self.kind.perform(self.baseline, request), lambda: self.kind.perform(self.own, request)


def chosen(taxonomy: Taxonomy, plan: Plan) -> list[Method]:
    """The methods that are measured."""
    return [method for method in taxonomy.methods if method.is_implemented and (not plan.ids or method.id in plan.ids)]


def settings_of(method: Method) -> list[Setting]:
    """What is varied between the rows of a method; loads no model."""
    kind = KINDS[method.call]
    return kind.settings(method, kind.side(importlib.import_module(method.module), {}))


def contests(method: Method, plan: Plan, spare: int = 0) -> Iterator[Contest]:
    """The rows of one method, with `spare` runs more than the benchmark has."""
    kind, module = KINDS[method.call], importlib.import_module(method.module)
    own = kind.side(module, moved(module.example(), plan.device))
    inputs, order = kind.inputs(plan.prompts + spare), plan.order(spare)
    for setting in kind.settings(method, own):
        side = replace(own, options={**own.options, **setting.options})
        rival = kind.rival(method.id, side, plan.limit)
        baseline = replace(rival, options=moved(rival.options, plan.device))
        yield Contest(method, kind, setting, side, baseline, inputs, plan.limit, order)
