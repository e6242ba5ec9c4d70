"""Changes that provably change nothing observable, each with the reason in one sentence: they are not drawn.

A change that merely no test finds does not belong here: write the test.
"""

from .changes import Change

EQUIVALENTS: dict[Change, str] = {}
