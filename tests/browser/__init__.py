"""Tests of the built site in a real browser. A package, because it has a conftest beside that of all tests."""
