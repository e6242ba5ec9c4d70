"""How the methods of each kind are called."""

from __future__ import annotations

BASELINE = "autoregressive"  # what the methods are measured against; it has a recorded run too
