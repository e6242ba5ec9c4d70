"""Bugs planted on purpose, known ones and random ones: the proofs must find them. Run with `python -m tests.mutation`.

`changes` says what a mutant is, `named` finds the known ones at the tops of the tests, `drawing` draws random ones,
`equivalents` lists those that change nothing, and `judging` plants one and lets its module's own proofs look for it.
"""
