"""Trial methods for the tests of everything that measures."""

import pytest
import trials


@pytest.fixture
def trial_zoo(monkeypatch: pytest.MonkeyPatch) -> None:
    """The trial methods of every kind, and tiny models in the place of the zoo's."""
    trials.install(monkeypatch)
