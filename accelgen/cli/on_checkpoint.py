"""`accelgen run ID --target …`: which methods can run on a checkpoint of the user's, and with what."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from accelgen.checkpoints.naming import check_dtype, local
from accelgen.cli.outcome import DEFAULTS, Outcome, perform
from accelgen.cli.own_options import defaults, own_options
from accelgen.measuring.kinds import Kind
from accelgen.measuring.sides import Request, Side


@dataclass(frozen=True)
class Parts:
    """What `generate` asks for beside plain options: the argument for language models that draft, and for how many."""

    drafter: str | None = None
    several: bool = False

    def named(self, target: Any, *drafters: Any) -> dict[str, Any]:
        """The models as arguments of `generate`."""
        if self.drafter is None:
            return {"target": target}
        return {"target": target, self.drafter: list(drafters) if self.several else drafters[0]}


def run(
    id: str,
    kind: Kind,
    side: Side,
    text: str | None,
    given: dict[str, Any],
    asked: dict[str, Any],
    chosen: dict[str, Any],
) -> list[Outcome]:
    """Run the method with its own defaults and the options `given`, on checkpoints `chosen` by options of the run.

    Raises ValueError for what cannot be.
    """
    places = chosen.get("drafter", [])
    parts = parts_of(id, side.function, given)
    check_drafters(id, parts, len(places))
    from accelgen.checkpoints.reading import check_vocabulary, library, load, outlines

    quiet(library())
    places = [chosen["target"], *places]
    plain = defaults(side.function) | given
    rehearse(id, kind, kind.side(side.module, parts.named(*outlines(*places)) | plain), asked)
    loading = {name: value for name, value in chosen.items() if name in ("dtype", "device")}
    target, *drafters = (load(place, keep="keep-transformers" in chosen, **loading) for place in places)
    check_vocabulary(target, *drafters)
    models = parts.named(target.model, *(drafter.model for drafter in drafters))
    named = {name: ", ".join(value) if isinstance(value, list) else value for name, value in chosen.items()}
    return perform(id, kind, kind.side(side.module, models | plain), text, asked, named | plain, target)


def check_words(id: str, kind: Kind, chosen: dict[str, Any]) -> None:
    """Raise ValueError for what is wrong whatever the models are, before torch is imported."""
    if kind.unfit:
        raise ValueError(f"{id} {kind.unfit}; leave out --target")
    check_dtype(chosen.get("dtype", "float32"))
    for place in (chosen["target"], *chosen.get("drafter", ())):
        local(place)


def rehearse(id: str, kind: Kind, side: Side, asked: dict[str, Any]) -> None:
    """Ask for no token, so that options are judged while the weights still wait. Raises ValueError for wrong ones."""
    kind.refuse(id, side, list(asked))
    kind.perform(side, Request(kind.given([[0]]), **DEFAULTS | asked | {"limit": 0}))


def parts_of(id: str, generate: Callable[..., Any], given: dict[str, Any]) -> Parts:
    """What the method drafts with. Raises ValueError where it needs what no checkpoint has, or an option not given."""
    from reference_impls.testing.from_signature import OWN, drafting, hints

    drafts, plain, kinds = drafting(generate), own_options(generate), hints(generate)
    required = [name for name, one in inspect.signature(generate).parameters.items() if one.default is one.empty]
    for name in required:
        if name in OWN or name in drafts or name in given:
            continue
        if name not in plain:
            kind = kinds.get(name)
            raise ValueError(
                f"{id} needs a part that is made for its target, {name} ({getattr(kind, '__name__', kind)}), and there "
                "is one for the zoo's target only: leave out --target, or make one and call generate from Python"
            )
        option = name.replace("_", "-")
        raise ValueError(f"{id} needs --{option}, which depends on the target; `accelgen show {id}` says more")
    return next((Parts(name, several) for name, several in drafts.items()), Parts())


def check_drafters(id: str, parts: Parts, count: int) -> None:
    """Raise ValueError for drafters that are missing or too many."""
    if parts.drafter is None and count:
        raise ValueError(f"{id} needs no other model to draft: leave out --drafter")
    if parts.drafter is not None and not count:
        raise ValueError(f"{id} drafts with a smaller model of the target's vocabulary: name it with --drafter")
    if parts.drafter is not None and count > 1 and not parts.several:
        raise ValueError(f"{id} takes one drafter, and {count} are given")


def quiet(transformers: Any) -> None:
    """No remarks and no bars of its own on stderr; a download from a hub still shows how far it is."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
