"""Partial crystals are completed by the networks: what is known is kept, and contents are exact."""

from collections import Counter

import numpy as np
import pytest

from hybridcsp.generators.growing import PartialCrystal
from hybridcsp.structure.symmetry import in_group
from hybridcsp.structure.wyckoff import point_group_order, wyckoff_position

TITANIA = {"Ti": 2, "O": 4}


def contents_of(completed):
    counts = Counter()
    for symbol, letter in completed.sites:
        counts[symbol] += wyckoff_position(completed.spacegroup, letter).multiplicity
    return dict(counts)


def test_completions_have_the_contents(untrained):
    rng = np.random.default_rng(0)
    for completed in untrained.complete([PartialCrystal(contents=TITANIA)] * 5, rng):
        assert contents_of(completed) == TITANIA


def test_known_orbits_are_kept(untrained):
    begun = PartialCrystal(contents=TITANIA, spacegroup=136, sites=(("Ti", "b"),))
    for completed in untrained.complete([begun] * 4, np.random.default_rng(0)):
        assert (completed.spacegroup, completed.sites[0]) == (136, ("Ti", "b"))
        assert contents_of(completed) == TITANIA


def test_groups_are_drawn_from_the_given_ones(untrained):
    groups = tuple(number for number in range(1, 231) if point_group_order(number) == 8)
    partial = PartialCrystal(contents=TITANIA, spacegroups=groups)
    found = untrained.complete([partial] * 6, np.random.default_rng(0))
    assert {point_group_order(completed.spacegroup) for completed in found} == {8}


@pytest.mark.parametrize("change", [{"spacegroup": 225}, {"spacegroups": (225, 230)}])
def test_groups_that_do_not_hold_the_contents_have_no_completion(untrained, change):
    partial = PartialCrystal(contents={"Ti": 1, "O": 5}, **change)
    assert untrained.complete([partial], np.random.default_rng(0)) == [None]


def test_crystals_have_their_orbits(untrained):
    complete = PartialCrystal(contents={"Na": 1, "Cl": 1}, spacegroup=225, sites=(("Na", "a"), ("Cl", "b")))
    found = untrained.build([complete] * 8, np.random.default_rng(0))
    crystals = [atoms for atoms in found if atoms is not None]
    assert crystals
    for atoms in crystals:
        assert sorted(atoms.symbols) == ["Cl", "Na"]
        assert in_group(atoms, 225) is not None
