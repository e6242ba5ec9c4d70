"""The one place that turns a device's name into a device that works."""

import pytest
import torch

from reference_impls.core.device import find_device

MUTANTS = [
    ("known-by-name-alone", "        probe.item()  # fails where a device is known by name alone\n", ""),
    ("all-of-torchs-devices-counted-up", "    except RuntimeError:  #", "    except MemoryError:  #"),
]


def test_a_device_that_computes_is_found():
    assert find_device("cpu") == find_device(torch.device("cpu")) == torch.device("cpu")


def test_a_device_that_computes_nothing_is_refused():
    with pytest.raises(ValueError, match=r"^the device 'meta' cannot be used here: \S.+; use cpu"):
        find_device("meta")


def test_a_name_that_is_no_device_is_told_in_one_sentence():
    with pytest.raises(ValueError, match=r"^no device is called 'abacus'; use cpu"):
        find_device("abacus")
