"""Acceptance rules against their closed forms."""

import math

import pytest
import torch

from reference_impls.core.generation import Generation
from reference_impls.core.sampling import Sampler
from reference_impls.core.verify import check_draft, residual, verify_chain
from reference_impls.testing import exact_law, total_variation

P = torch.tensor([[0.2, 0.5, 0.3], [0.6, 0.1, 0.3], [0.25, 0.25, 0.5]], dtype=torch.float64)
Q = torch.tensor([[0.5, 0.1, 0.4], [0.2, 0.2, 0.6]], dtype=torch.float64)


def test_residual_is_what_the_draft_gave_too_little_of():
    assert residual(P[0], Q[0]).tolist() == pytest.approx([0, 1, 0])
    assert residual(P[1], Q[1]).tolist() == pytest.approx([1, 0, 0])
    wide = residual(torch.tensor([0.4, 0.4, 0.2]), torch.tensor([0.1, 0.2, 0.7]))
    assert wide.tolist() == pytest.approx([0.6, 0.4, 0])


def test_residual_of_several_places_sums_to_one_everywhere():
    rows = residual(P[:2], Q)
    assert rows.sum(-1).tolist() == pytest.approx([1, 1])
    assert torch.equal(rows[1], residual(P[1], Q[1]))


def test_residual_of_equal_laws_is_the_law_itself():
    assert torch.equal(residual(P[0], P[0]), P[0])


def test_residual_of_nothing_drafted_is_the_target_law():
    assert torch.equal(residual(P[0], torch.zeros(3, dtype=torch.float64)), P[0])


def outcomes(draft, **options):
    """The exact law of (kept, extra) for a draft."""
    return exact_law(lambda sampler: Generation(list(verify_chain(sampler, draft, Q, P, **options))))


@pytest.mark.parametrize("draft", [[0, 0], [1, 2], [2, 1], [0, 1]])
def test_chain_has_the_law_of_the_closed_form(draft):
    wanted, reached = {}, 1.0
    for i, token in enumerate(draft):
        chance = min(1.0, float(P[i, token] / Q[i, token]))
        rest = residual(P[i], Q[i]).tolist()
        wanted |= {(i, extra): reached * (1 - chance) * rest[extra] for extra in range(3)}
        reached *= chance
    wanted |= {(2, extra): reached * float(P[2, extra]) for extra in range(3)}
    assert total_variation(outcomes(draft), wanted) < 1e-12


def test_chain_gives_the_first_token_the_law_of_the_target():
    law = [0.0] * 3
    for first in range(3):
        for second in range(3):
            drafted = float(Q[0, first] * Q[1, second])
            for (kept, extra), chance in outcomes([first, second]).items():
                law[first if kept else extra] += drafted * chance
    assert law == pytest.approx(P[0].tolist())


def test_chain_of_equal_laws_is_always_kept():
    same = torch.cat((Q, P[2:]))
    found = exact_law(lambda sampler: Generation(list(verify_chain(sampler, [2, 0], Q, same))))
    assert {kept for kept, _ in found} == {2}


def test_lenience_divides_the_draft_law_and_no_token_exceeds_its_share():
    assert outcomes([0, 0], lenience=0.5) != outcomes([0, 0])
    for lenience in (0.5, 0.1):
        law = [0.0] * 3
        for first in range(3):
            for (kept, extra), chance in outcomes([first, 0], lenience=lenience).items():
                law[first if kept else extra] += float(Q[0, first]) * chance
        assert sum(law) == pytest.approx(1)
        assert all(x <= float(p) / lenience + 1e-12 for x, p in zip(law, P[0], strict=True))


def test_lenience_accepts_with_p_over_lq():
    kept = sum(chance for (kept, _), chance in outcomes([0, 0], lenience=0.5).items() if kept)
    assert kept == pytest.approx(0.2 / (0.5 * 0.5))


def test_greedy_chain_keeps_exactly_the_prefix_that_agrees():
    hot = torch.eye(3, dtype=torch.float64)
    p = hot[[1, 2, 0]]
    for draft, wanted in {(1, 2): (2, 0), (1, 1): (1, 2), (0, 2): (0, 1)}.items():
        q = hot[list(draft)]
        assert verify_chain(Sampler(0), list(draft), q, p) == wanted


def test_chain_of_a_broken_target_gives_the_impossible_token():
    assert verify_chain(Sampler(), [0, 1], Q, P * math.nan) == (0, -1)


def test_drafts_that_cannot_work_are_refused():
    with pytest.raises(ValueError, match="gamma is 0"):
        check_draft(0)
