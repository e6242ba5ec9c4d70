r"""What drafting should gain: tokens per pass, wall time and the best draft length, from a handful of numbers.

Fast Inference from Transformers via Speculative Decoding. Yaniv Leviathan, Matan Kalman, Yossi Matias. ICML 2023.
https://arxiv.org/abs/2211.17192

The cost of a pass that grows with its tokens is the roofline of Williams, Waterman and Patterson: Communications of the
ACM 52 (4), 2009, https://doi.org/10.1145/1498765.1498785. Nothing here needs torch.

`acceptance` is one number, the chance alpha that a guess is kept, or one number for each place: the chance that the
guess there is kept *if all before it were*. A list speaks of no place beyond its end, so gamma stays within it.

>>> round(expected_tokens(0.8, 4), 3), round(speedup(0.8, 4, cost_ratio=0.1), 3), best_gamma(0.8, cost_ratio=0.1)
(3.362, 2.401, 6)
>>> best_gamma(0.8, cost_ratio=0.1, verify_cost=lambda k: verification(k, batch=128, ridge=295))
1
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

Acceptance = float | Sequence[float]

LARGEST = 64  # the longest draft that `best_gamma` tries


def expected_tokens(acceptance: Acceptance, gamma: int) -> float:
    r"""Mean tokens of a target pass over `gamma` guesses, the target's own token included.

    $1 + a_1 + a_1 a_2 + \dots + a_1 \cdots a_\gamma$: the draft gets past place i with chance $a_1 \cdots a_i$. With
    one alpha it is equation 1, $(1 - \alpha^{\gamma+1}) / (1 - \alpha)$, which takes guesses to be kept independently.

    Raises ValueError for a chance outside [0, 1], a negative gamma, or a list shorter than gamma.
    """
    tokens = 1.0
    for chance in reversed(_places(acceptance, gamma)):  # Horner's rule: no division, so alpha = 1 is no special case
        tokens = 1 + chance * tokens
    return tokens


def speedup(acceptance: Acceptance, gamma: int, cost_ratio: float, verify_cost: float = 1.0) -> float:
    r"""Expected ratio of the wall time of plain decoding to that of drafting; below 1 drafting is slower.

    $n / (\gamma c + r)$ with n = `expected_tokens`. The time of a drafter pass, c = `cost_ratio`, and that of a target
    pass over $\gamma + 1$ tokens, r = `verify_cost`, are both counted in target passes over one token. By default r is
    1, as in theorem 3.8, which takes checking $\gamma + 1$ tokens to last no longer than one. If it does, measure r.

    Raises ValueError as `expected_tokens` does, for a negative cost ratio, and for a verify cost that is not positive.
    """
    if not (0 <= cost_ratio < math.inf):
        raise ValueError(f"the cost ratio is {cost_ratio}; it must be 0 or more")
    if not (0 < verify_cost < math.inf):
        raise ValueError(f"the cost of the verification is {verify_cost}; it must be positive")
    return expected_tokens(acceptance, gamma) / (gamma * cost_ratio + verify_cost)


def operations(acceptance: Acceptance, gamma: int, operations_ratio: float = 0.0) -> float:
    r"""Arithmetic for each token of the result, compared with plain decoding (theorem 3.11); at least 1.

    $(\gamma \hat c + \gamma + 1) / n$: guesses that are not kept were computed in vain. $\hat c$ = `operations_ratio`:
    the drafter's operations for a token in those of the target; the default 0 counts the target alone.

    Raises ValueError as `expected_tokens` does, and for a negative ratio.
    """
    if not (0 <= operations_ratio < math.inf):
        raise ValueError(f"the ratio of operations is {operations_ratio}; it must be 0 or more")
    return (gamma * operations_ratio + gamma + 1) / expected_tokens(acceptance, gamma)


def ridge_point(operations_per_second: float, bytes_per_second: float, bytes_per_weight: float = 2.0) -> float:
    """Tokens of one pass at which computing takes as long as reading the weights.

    A token asks for 2 operations with each weight, a multiplication and an addition, and a pass reads each weight once,
    however many tokens it has: so the roofline's ridge in operations a byte, peak arithmetic / bandwidth, is reached at
    `bytes_per_weight` / 2 times as many tokens.

    Raises ValueError for a number that is not positive.
    """
    if not all(0 < value < math.inf for value in (operations_per_second, bytes_per_second, bytes_per_weight)):
        raise ValueError("arithmetic, bandwidth and bytes of a weight must be positive")
    return operations_per_second / bytes_per_second * bytes_per_weight / 2


def pass_cost(new_tokens: int, batch: int = 1, ridge: float = math.inf) -> float:
    """Time of a pass over `batch` sequences of `new_tokens` each, in passes over one token of one sequence.

    The slower of reading the weights, which is the same for every pass, and computing, which takes as long at `ridge`
    tokens: max(1, batch * new_tokens / ridge). An ideal: it leaves out the cache, attention and every fixed expense.

    Raises ValueError unless there is a token and a sequence and the ridge is 1 or more.
    """
    if new_tokens < 1 or batch < 1:
        raise ValueError(f"a pass over {batch} sequences of {new_tokens} tokens; both must be 1 or more")
    if not ridge >= 1:
        raise ValueError(f"the ridge point is {ridge} tokens; it must be 1 or more")
    return max(1.0, batch * new_tokens / ridge)


def verification(new_tokens: int, batch: int = 1, ridge: float = math.inf) -> float:
    """`pass_cost` in passes of the same batch over one token each, which is what plain decoding takes for a token.

    It is the `verify_cost` of a batch. The drafter's pass grows like the target's, so the cost ratio stays as it is.
    """
    return pass_cost(new_tokens, batch, ridge) / pass_cost(1, batch, ridge)


def best_gamma(
    acceptance: Acceptance,
    cost_ratio: float,
    verify_cost: Callable[[int], float] = verification,
    largest: int = LARGEST,
) -> int:
    """The draft length of the greatest `speedup` (section 3.5: found by trying); 0 if none beats plain decoding.

    `verify_cost` gives the time of a target pass over so many tokens, in passes over one token. At most `largest`
    guesses are tried, and no more than a list of chances has places. Of equally good lengths it returns the shortest.

    Raises ValueError as `speedup` does.
    """
    longest = largest if isinstance(acceptance, (int, float)) else min(largest, len(acceptance))
    return max(range(longest + 1), key=lambda gamma: speedup(acceptance, gamma, cost_ratio, verify_cost(gamma + 1)))


def _places(acceptance: Acceptance, gamma: int) -> list[float]:
    """The chances of the first `gamma` places, checked."""
    if gamma < 0:
        raise ValueError(f"gamma is {gamma}; it must be 0 or more")
    constant = isinstance(acceptance, (int, float))
    given = [acceptance] if isinstance(acceptance, (int, float)) else list(acceptance)
    for chance in given:
        if not 0 <= chance <= 1:
            raise ValueError(f"an acceptance is {chance}; it must lie between 0 and 1")
    if not constant and gamma > len(given):
        raise ValueError(f"gamma is {gamma}, but only {len(given)} places have an acceptance")
    return given * gamma if constant else given[:gamma]
