"""Space groups are drawn with the point-group orders of crystals of their size."""

from collections import Counter

import numpy as np
import pytest

from hybridcsp.structure.symmetry_orders import order_probabilities, random_groups
from hybridcsp.structure.wyckoff import point_group_order

EVERY_GROUP = tuple(range(1, 231))


def test_every_order_has_a_probability_at_every_size():
    for n_atoms in (1, 7, 20, 52, 300):
        probabilities = order_probabilities(n_atoms)
        assert set(probabilities) == {point_group_order(number) for number in EVERY_GROUP}
        assert sum(probabilities.values()) == pytest.approx(1, abs=0.01)
        assert min(probabilities.values()) > 0


def test_small_cells_are_more_symmetric_than_large_ones():
    high = [sum(p for order, p in order_probabilities(n).items() if order > 8) for n in (2, 8, 16, 30)]
    assert high == sorted(high, reverse=True)
    assert high[0] > 0.6 > 0.35 > high[2] > high[3]


def test_first_groups_have_the_probabilities_of_their_orders():
    rng = np.random.default_rng(0)
    first = Counter(point_group_order(next(random_groups(EVERY_GROUP, 16, rng))) for _ in range(2000))
    for order, probability in order_probabilities(16).items():
        assert first[order] / 2000 == pytest.approx(probability, abs=0.04)


def test_all_groups_come_up_once():
    assert sorted(random_groups(EVERY_GROUP, 12, np.random.default_rng(1))) == list(EVERY_GROUP)
    assert sorted(random_groups((225, 2, 14), 12, np.random.default_rng(1))) == [2, 14, 225]


def test_groups_of_one_order_come_first_equally_often():
    rng = np.random.default_rng(2)
    first = Counter(next(random_groups((3, 4, 5, 6), 8, rng)) for _ in range(800))
    assert min(first.values()) > 150
