"""Checks of the records that the parts of a search exchange."""

import numpy as np
import pytest
from crystals import random_crystal

from hybridcsp.core.records import LOWEST, Proposal
from hybridcsp.errors import InputError


def crystal(formula, seed=0):
    return random_crystal(formula, 15.0, np.random.default_rng(seed))


def test_alternatives_get_the_order_of_the_proposed_atoms():
    first, other = crystal("Cu2Ag2"), crystal("Cu2Ag2", seed=1)
    proposal = Proposal(atoms=first, operator="made", level=LOWEST, alternatives=(other[[2, 0, 3, 1]],))
    (found,) = proposal.alternatives
    assert list(found.symbols) == list(first.symbols)
    for symbol in ("Cu", "Ag"):
        assert found.positions[found.symbols == symbol] == pytest.approx(other.positions[other.symbols == symbol])


def test_alternatives_with_other_contents_are_refused():
    with pytest.raises(
        InputError, match=r"alternatives = 'Cu3Ag' is not valid: it must be a structure with the contents of Cu2Ag2"
    ):
        Proposal(atoms=crystal("Cu2Ag2"), operator="made", level=LOWEST, alternatives=(crystal("Cu3Ag"),))


def test_alternatives_with_another_level_are_refused():
    with pytest.raises(
        InputError, match="level = 'relax' is not valid: it must be the level 'lowest' for a proposal with alternatives"
    ):
        Proposal(atoms=crystal("Cu2"), operator="made", alternatives=(crystal("Cu2", seed=1),))
