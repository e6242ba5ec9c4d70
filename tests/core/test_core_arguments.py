"""What a method is called with: each wrong kind gets one sentence that names the parameter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn

from reference_impls.core.arguments import checked
from reference_impls.core.generation import Ends
from reference_impls.core.sampling import Sampler

LIST = "a list of whole numbers, as a tokenizer or Tensor.tolist\\(\\) gives them"


@checked
def trial(
    target: nn.Module,
    prompt: Sequence[int],
    limit: int,
    *,
    sampler: Sampler,
    threshold: float = 0.5,
    rows: Sequence[Sequence[int]] = (),
    table: Tensor | None = None,
    mode: Literal["a", "b"] = "a",
    measure: Callable[[int], float] | None = None,
    eos: Ends | None = None,
    **more: Any,
) -> list[Any]:
    """A method that only says what it was given."""
    return [target, prompt, limit, sampler, threshold, rows, table, mode, measure, eos, more]


MODEL, SAMPLER = nn.Identity(), Sampler()
GIVEN: dict[str, Any] = {"target": MODEL, "prompt": [1, 2], "limit": 3, "sampler": SAMPLER}


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"prompt": (1, 2)},
        {"prompt": []},
        {"prompt": range(4)},
        {"threshold": 1},
        {"threshold": float("inf")},
        {"rows": [[1], (2, 3)]},
        {"table": torch.zeros(2)},
        {"mode": "c"},  # a method's own to judge
        {"eos": 0},
        {"eos": [1, 2]},
        {"eos": frozenset()},
        {"free": object()},
    ],
)
def test_what_the_annotations_allow_passes_unchanged(given):
    wanted = GIVEN | given
    found = trial(**wanted)
    assert found[1] is wanted["prompt"]
    assert found[4] == given.get("threshold", 0.5)
    assert found[9] == given.get("eos")
    assert found[10] == ({"free": given["free"]} if "free" in given else {})


def test_numbers_of_numpy_are_numbers():
    numpy = pytest.importorskip("numpy")
    assert trial(MODEL, [numpy.int64(3)], numpy.int32(2), sampler=SAMPLER, threshold=numpy.float32(0.25))[2] == 2


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"prompt": "hello"}, f"prompt is 'hello'; it must be {LIST}"),
        ({"prompt": None}, f"prompt is None; it must be {LIST}"),
        ({"prompt": [1.5]}, rf"prompt is \[1.5\]; it must be {LIST}"),
        ({"prompt": [1, None]}, rf"prompt is \[1, None\]; it must be {LIST}"),
        ({"prompt": torch.ones(1, 5, dtype=torch.long)}, rf"prompt is a Tensor of shape \[1, 5\]; it must be {LIST}"),
        ({"prompt": torch.ones(5, dtype=torch.long)}, rf"prompt is a Tensor of shape \[5\]; it must be {LIST}"),
        ({"prompt": [[1, 2]]}, rf"prompt is \[\[1, 2\]\]; it must be {LIST}"),
        ({"limit": 2.5}, "limit is 2.5; it must be a whole number"),
        ({"limit": float("nan")}, "limit is nan; it must be a whole number"),
        ({"limit": "3"}, "limit is '3'; it must be a whole number"),
        ({"sampler": None}, "sampler is None; it must be a Sampler"),
        ({"sampler": 0.7}, "sampler is 0.7; it must be a Sampler"),
        ({"target": None}, "target is None; it must be a Module"),
        ({"target": "gpt2"}, "target is 'gpt2'; it must be a Module"),
        ({"threshold": None}, "threshold is None; it must be a number"),
        ({"threshold": torch.tensor(0.5)}, r"threshold is a Tensor of shape \[\]; it must be a number"),
        ({"rows": [1, 2]}, r"rows is \[1, 2\]; it must be a list"),
        ({"table": [1.0]}, r"table is \[1.0\]; it must be a Tensor or None"),
        ({"eos": "</s>"}, f"eos is '</s>'; it must be a whole number or {LIST} or None"),
        ({"eos": ["</s>"]}, rf"eos is \['</s>'\]; it must be a whole number or {LIST} or None"),
        ({"eos": 2.0}, f"eos is 2.0; it must be a whole number or {LIST} or None"),
    ],
)
def test_another_kind_is_a_type_error_that_names_the_parameter(given, sentence):
    with pytest.raises(TypeError, match=f"^{sentence}$"):
        trial(**(GIVEN | given))


def test_a_number_that_is_none_is_refused():
    with pytest.raises(ValueError, match=r"^threshold is not a number \(NaN\); it must be a number$"):
        trial(**GIVEN, threshold=float("nan"))


def test_a_long_list_is_shown_by_its_beginning():
    with pytest.raises(TypeError, match=r"^prompt is \[0, 1, 2, 3, 4, 5, \.\.\.\]; "):
        trial(**(GIVEN | {"prompt": [*range(10_000), 0.5]}))


def test_what_is_missing_or_unknown_is_named():
    with pytest.raises(TypeError, match="sampler"):
        trial(MODEL, [1], 2)  # type: ignore[call-arg]


def test_a_checked_function_says_what_it_is():
    assert (trial.__name__, trial.__doc__) == ("trial", "A method that only says what it was given.")


def test_any_object_that_answers_the_calls_may_stand_for_a_class():
    """So that a port with a sampler of its own, or a model behind an adapter, is not refused by its name."""
    stand_in = type("Own", (), {})()
    assert trial(stand_in, [1], 2, sampler=stand_in)[0] is stand_in
