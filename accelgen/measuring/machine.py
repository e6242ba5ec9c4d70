"""The machine that figures depend on: its clock, its threads, its devices, its name."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import os
import platform
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

CPU = torch.device("cpu")
PACKAGES = ("torch", "numpy", "safetensors", "tokenizers")
Found = TypeVar("Found")


def timed(run: Callable[[], Found]) -> tuple[Found, float]:
    """What a run gives, and its seconds of wall time."""
    start = now()
    result = run()
    return result, now() - start


def now() -> float:
    """Seconds on the wall's clock; a graphics processor, where one is in use, has finished its work by then."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


def moved(value: Any, device: torch.device) -> Any:
    """The same value; every model in it, in lists, mappings and objects of ours too, is now on `device`."""
    if isinstance(value, nn.Module):
        return value.to(device)
    if isinstance(value, list | tuple):
        inner: Iterable[Any] = value
    elif isinstance(value, dict):
        inner = value.values()
    else:
        ours = type(value).__module__.startswith("reference_impls")
        inner = vars(value).values() if ours and hasattr(value, "__dict__") else ()
    for each in inner:
        moved(each, device)
    return value


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch with a single thread, and afterwards with as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def environment(device: torch.device | None = None) -> dict[str, Any]:
    """The machine and the versions that figures depend on; nothing that names a person or a host.

    A `device` other than the processor is named too.
    """
    graphics = device is not None and device.type == "cuda"
    named = torch.cuda.get_device_name(device) if graphics else str(device)
    return {
        "machine": {
            **({} if device is None or device.type == "cpu" else {"device": named}),
            "processor": processor(),
            "cores": os.cpu_count(),
            "threads": 1,
            "system": f"{platform.system()} {platform.machine()}",
        },
        "versions": {"python": platform.python_version()} | {p: importlib.metadata.version(p) for p in PACKAGES},
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
    }


def processor() -> str:
    """The processor's name as the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
