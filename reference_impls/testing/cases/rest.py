"""REST: guesses read from a datastore, where the end of the text occurs."""

from reference_impls.testing.case import Case

CASE = Case(
    refused={"longest": (0,), "nodes": (0,)},
    lacks="datastore (Datastore)",
    costs={"verify_tree": "rest"},
)
