"""The assignment without scipy is scipy's."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from hybridcsp.generators.flow.assignment import minimal_assignment, shortest_augmenting_paths


@given(st.integers(1, 12), st.integers(0, 2**32 - 1), st.booleans())
def test_assignment_costs_agree_with_scipy(n, seed, ties):
    rng = np.random.default_rng(seed)
    cost = rng.integers(0, 4, (n, n)).astype(float) if ties else rng.random((n, n))
    rows, columns = linear_sum_assignment(cost)
    for found in (shortest_augmenting_paths(cost), minimal_assignment(cost)):
        assert sorted(found) == list(range(n))
        assert np.isclose(cost[np.arange(n), found].sum(), cost[rows, columns].sum())
