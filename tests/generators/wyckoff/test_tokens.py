from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from ase.build import bulk
from wyckoff_examples import CRYSTALS, matches

from hybridcsp.generators.wyckoff.representation import Site, WyckoffCrystal, decode_wyckoff, encode_wyckoff
from hybridcsp.generators.wyckoff.tokens import detokenize, tokenize


@pytest.mark.parametrize("atoms", CRYSTALS, ids=lambda atoms: atoms.get_chemical_formula())
def test_tokens_restore_the_crystal(atoms, positions):
    written = tokenize(encode_wyckoff(atoms), positions)
    back = decode_wyckoff(detokenize(written, positions))
    assert matches(atoms, back)
    assert back.get_volume() / len(back) == pytest.approx(atoms.get_volume() / len(atoms), rel=1e-6)
    assert dict(zip(written.elements, written.counts, strict=True)) == Counter(back.numbers.tolist())


@pytest.mark.parametrize("angle", [15.0, 28.0, 152.0, 165.0])
def test_tokens_allow_small_monoclinic_angles(angle, positions):
    """Settings are chosen for what is on the sites, not for the shape of the cell."""
    sites = (Site(22, "a", ()), Site(8, "i", (0.31, 0.12)), Site(9, "i", (0.72, 0.41)))
    sharp = WyckoffCrystal(12, sites, (17.3, 3.35, 17.6, 90.0, angle, 90.0))
    back = detokenize(tokenize(sharp, positions), positions)
    assert back.cell == pytest.approx(sharp.cell)
    for one, other in zip(back.sites, sharp.sites, strict=True):
        assert (one.element, one.letter) == (other.element, other.letter)
        assert one.coordinates == pytest.approx(other.coordinates)


def test_detokenize_returns_none_for_invalid_angles(positions):
    triclinic = tokenize(encode_wyckoff(bulk("Cu") * (1, 1, 1)), positions)
    flat = np.array([0, 0, 0, 3.0, 3.0, 3.0])
    impossible = replace(triclinic, spacegroup=1, letters=np.array([0]), cell=flat, coordinates=np.zeros((1, 3)))
    assert detokenize(impossible, positions) is None
