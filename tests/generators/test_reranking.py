"""What is made again and again is tried first."""

import numpy as np
from ase.build import bulk
from crystals import random_crystal, rutile

from hybridcsp.generators.base import Reject, Request, Sample
from hybridcsp.generators.reranking import agreed_first

DIOXIDE = Request(contents={"Ti": 2, "O": 4})


def near(atoms, seed):
    other = atoms.copy()
    other.rattle(0.02, seed=seed)
    return other


def other(seed):
    return random_crystal("Ti2O4", 12, np.random.default_rng(seed))


def answers_to(*structures):
    return [
        Reject(request=i, reason="out of luck") if atoms is None else Sample(atoms=atoms, request=i, log_likelihood=-i)
        for i, atoms in enumerate(structures)
    ]


def test_first_answer_represents_most_and_the_second_most_of_the_others():
    squat = rutile(a=4.0, c=3.6, u=0.25)
    given = answers_to(
        other(1), near(squat, 1), None, near(rutile(), 1), near(squat, 2), near(rutile(), 2), near(rutile(), 3)
    )
    placed = agreed_first([DIOXIDE] * 7, given)
    assert [answer.request for answer in placed] == list(range(7))
    origins = [int(-a.log_likelihood) if isinstance(a, Sample) else None for a in placed]
    assert origins[0] in (3, 5, 6)
    assert origins[1] in (1, 4)
    assert origins[2] == 0
    assert origins[-1] is None
    assert set(origins) == {0, 1, 3, 4, 5, 6, None}


def test_only_answers_to_equal_requests_change_places():
    copper = Request(contents={"Cu": 1})
    requests = [copper, DIOXIDE, Request(contents={"Ti": 2, "O": 4}, spacegroup=136), DIOXIDE, copper, DIOXIDE]
    crystals = [bulk("Cu"), other(1), other(2), near(rutile(), 1), bulk("Cu", "bcc", a=2.9), near(rutile(), 2)]
    placed = agreed_first(requests, answers_to(*crystals))
    origins = [int(-a.log_likelihood) for a in placed]
    assert origins[0] == 0 and origins[4] == 4  # of two there is none that speaks for more
    assert origins[2] == 2
    assert origins[1] in (3, 5) and set(origins[1::2]) == {1, 3, 5}


def test_invalid_answers_come_last():
    broken = rutile()
    broken.positions[:] = np.nan
    placed = agreed_first([DIOXIDE] * 4, answers_to(broken, other(1), rutile(), near(rutile(), 1)))
    assert int(-placed[-1].log_likelihood) == 0
