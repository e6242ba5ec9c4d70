"""What the methods of each kind are compared with. How a kind is run stands in `accelgen.measuring.kinds`."""

from __future__ import annotations

from dataclasses import dataclass

from accelgen.taxonomy.schema import Call


@dataclass(frozen=True)
class Baseline:
    """Plain decoding of one kind; it is no technique, so no entry of the taxonomy, but it can be run like one."""

    id: str
    name: str
    call: Call

    @property
    def module(self) -> str:
        """Name of its module."""
        return f"reference_impls.baselines.{self.id}"


BASELINE = "autoregressive"  # what most methods are measured against; it has a recorded run too
BASELINES = {
    each.id: each
    for each in (
        Baseline(BASELINE, "Autoregressive decoding", Call.CONTINUE),
        Baseline("translation", "Autoregressive translation", Call.TRANSLATE),
    )
}
