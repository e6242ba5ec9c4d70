"""Where tensors can be: the one place that turns a device's name into a device that works."""

from __future__ import annotations

import torch

from reference_impls.core.arguments import checked


@checked
def find_device(name: torch.device | str) -> torch.device:
    """The device of this name. Raises ValueError if it is not there, or computes nothing."""
    hint = "use cpu, or cuda with a GPU and a torch built for it"
    try:
        torch.device(name)
    except RuntimeError:  # torch would count up all of its devices, most of which nobody has
        raise ValueError(f"no device is called {str(name)!r}; {hint}") from None
    try:
        probe = torch.zeros(1, device=name)
        probe.item()  # fails where a device is known by name alone
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise ValueError(f"the device {str(name)!r} cannot be used here: {reason}; {hint}") from None
    return probe.device
