"""What a case says; each method has one in `reference_impls.testing.cases`, under its own name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from reference_impls.testing.tiny import Scene

Part = Literal["target", "draft", "rest"]


def nothing(_: Scene) -> dict[str, Any]:
    """No option beyond what the signature tells."""
    return {}


@dataclass(frozen=True)
class Case:
    """What the kit and the tools must know of one method, and cannot infer from the signature of its `generate`."""

    options: Callable[[Scene], Mapping[str, Any]] = nothing
    """Tiny models and options for a scene. A scene's `guess` says how good the guesses must be, whatever makes them:
    a drafter, heads, skipped layers, a datastore, a table, the text itself."""

    scene: Callable[[Scene], Scene] | None = None
    """Changes a scene where guesses of its quality need another target or prompt, as those that are copied do."""

    refused: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    """Values of its own options that must be refused with one sentence."""

    exits: Sequence[Mapping[str, Any]] = ()
    """For methods that skip layers: options from the earliest exit to the full model, which comes last."""

    checkpoint: Mapping[str, Any] | str = field(default_factory=dict)
    """Options with which it runs on any checkpoint; or the part that it lacks there, as `accelgen run` names it."""

    costs: Mapping[str, Part] = field(default_factory=dict)
    """Functions of its module, beside the models' own calls, that a step's time is spent in, and for which part."""

    learns: Sequence[str] = ()
    """Options that it changes while it decodes; everything else stays as it was."""
