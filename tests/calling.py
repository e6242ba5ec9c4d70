"""How the `generate` of a method or of a baseline is called on tiny random models, whatever its kind."""

import inspect
from collections.abc import Callable
from typing import Any, get_type_hints

from reference_impls.core.sampling import Sampler
from reference_impls.testing import Scene, options
from reference_impls.testing.cases import case_of
from reference_impls.testing.from_signature import module_class
from reference_impls.testing.tiny import language_model, sequence_model


def tiny_call(id: str, generate: Callable[..., Any]) -> dict[str, Any]:
    """The arguments of a short run, as the method's case builds them."""
    takes, kind = inspect.signature(generate).parameters, module_class(get_type_hints(generate).get("model"))
    scene = (
        Scene(language_model(11, layers=4), [1, 2, 3], 3) if kind is None else Scene(sequence_model(kind), [3, 4, 5], 3)
    )
    run = {"target": scene.target, "model": scene.target, "prompt": scene.prompt, "source": scene.prompt, "limit": 9}
    run |= {"prompts": [scene.prompt, scene.prompt[:1]], "limits": [9, 4], "sampler": Sampler(1.0, seed=1)}
    own = {name: value for name, value in run.items() if name in takes}
    ends = {"eos": 1} if kind is not None and "eos" in takes else {}
    return own | ends | options(generate, scene, case_of(id))
