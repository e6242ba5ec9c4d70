"""NAT with fertilities: one pass, from a plan of how many words each source word becomes."""

from reference_impls.testing.case import Case

CASE = Case(refused={"samples": (0,), "decoding": ("guesswork",)}, lacks="encoder-decoder")
