"""What every recipe says of its part: what it stands on, how it is trained, and how good it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Generic, Self, TypeVar

from torch import nn

from accelgen.training.shelf import Shelf


@dataclass(frozen=True)
class Settings:
    """The numbers of a recipe; they go into the manifest. The seed is that of all chance in it."""

    seed: int = 0

    def shortened(self, steps: int) -> Self:
        """The same recipe with so many steps. Raises ValueError for one that takes no steps."""
        if "steps" not in {field.name for field in fields(self)}:
            raise ValueError("this recipe counts and does not train, so it has no steps: leave out --steps")
        changed: dict[str, Any] = {"steps": steps}
        return replace(self, **changed)


S = TypeVar("S", bound=Settings)


@dataclass(frozen=True)
class Part:
    """A module, and the arguments of its class, from which `zoo.load` makes it again."""

    module: Any
    arguments: Mapping[str, Any]

    @classmethod
    def of(cls, kind: type[nn.Module], **arguments: Any) -> Part:
        """A new module of this class."""
        return cls(kind(**arguments), arguments)


@dataclass(frozen=True)
class Recipe(Generic[S]):
    """How one part of the zoo is made; each file of `recipes` holds one as RECIPE.

    `train` makes the part with what is on the shelf, and `measure` gives its figures: choices from the development
    side, figures from the test side. `needs` are the parts that it stands on, `corpus` says what it learns from.
    """

    name: str
    settings: S
    train: Callable[[Shelf, S], Part]
    measure: Callable[[Shelf, S, Any], dict[str, Any]]
    needs: tuple[str, ...] = ()
    corpus: Callable[[S], dict[str, Any]] | None = None
