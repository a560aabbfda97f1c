import itertools
import math
import sys

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.spacegroup import crystal
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from hybridcsp.errors import InputError
from hybridcsp.similarity import (
    ENERGY_WINDOW,
    MINIMA,
    STARTS,
    StructureIndex,
    compute_descriptors,
    fingerprint,
    same_structure,
)

CONTENTS = [[14], [11, 17], [22, 8, 8], [29, 79, 79, 79], [38, 22, 8, 8, 8], [22, 22, 8, 8, 8, 8], [57, *[1] * 10]]
seeds = st.integers(0, 2**32 - 1)
quick = settings(max_examples=25, deadline=None, derandomize=True)


def random_crystal(rng, numbers, volume=12.0):
    """Any cell, thin and skewed ones too, and atoms wherever they fall."""
    cell = rng.normal(size=(3, 3))
    while abs(np.linalg.det(cell)) < 0.1 * np.prod(np.linalg.norm(cell, axis=1)):
        cell = rng.normal(size=(3, 3))
    cell *= (volume * len(numbers) / abs(np.linalg.det(cell))) ** (1 / 3)
    return Atoms(numbers, cell=cell, scaled_positions=rng.random((len(numbers), 3)), pbc=True)


def some_crystal(rng):
    return random_crystal(rng, CONTENTS[rng.integers(len(CONTENTS))])


def rotated(rng, atoms):
    turn = Rotation.random(random_state=rng).as_matrix()
    return Atoms(atoms.numbers, positions=atoms.positions @ turn, cell=atoms.cell.array @ turn, pbc=True)


def mirrored(rng, atoms):
    return Atoms(atoms.numbers, positions=-atoms.positions, cell=-atoms.cell.array, pbc=True)


def translated(rng, atoms):
    moved = atoms.copy()
    moved.translate(rng.normal(size=3))
    moved.wrap()
    return moved


def permuted(rng, atoms):
    return atoms[rng.permutation(len(atoms))]


def in_another_cell(rng, atoms):
    change = np.eye(3, dtype=int)
    for i, j in rng.permutation(list(itertools.permutations(range(3), 2)))[:3]:
        change[i] += rng.integers(-2, 3) * change[j]
    assert round(np.linalg.det(change)) == 1
    return Atoms(atoms.numbers, positions=atoms.positions, cell=change @ atoms.cell.array, pbc=True)


def supercell(rng, atoms):
    return atoms.repeat(tuple(rng.permutation([1, 1, 2, 3])[:3]))


def shaken(rng, atoms, displacement, strain):
    """No atom moves by more than the displacement, in Å."""
    moved = atoms.copy()
    moved.set_cell(atoms.cell.array @ (np.eye(3) + rng.uniform(-strain, strain, (3, 3))), scale_atoms=True)
    moved.positions += rng.uniform(-1, 1, (len(atoms), 3)) * displacement / 3**0.5
    return moved


SAME_CRYSTAL = [rotated, mirrored, translated, permuted, in_another_cell, supercell]


@pytest.mark.parametrize("disguise", SAME_CRYSTAL)
@given(seed=seeds)
@quick
def test_fingerprint_depends_on_the_crystal_alone(disguise, seed):
    rng = np.random.default_rng(seed)
    atoms = some_crystal(rng)
    np.testing.assert_allclose(fingerprint(disguise(rng, atoms)), fingerprint(atoms), atol=1e-6)


@pytest.mark.parametrize("disguise", SAME_CRYSTAL)
@pytest.mark.parametrize("tolerances", [MINIMA, STARTS], ids=["minima", "starts"])
@given(seed=seeds)
@quick
def test_index_finds_other_descriptions_of_a_crystal(disguise, tolerances, seed):
    rng = np.random.default_rng(seed)
    atoms = some_crystal(rng)
    index = StructureIndex(energy_window=ENERGY_WINDOW, tolerances=tolerances)
    index.add(3, random_crystal(rng, atoms.numbers), -1.0)
    index.add(7, atoms, -1.0)
    assert index.find(disguise(rng, atoms), -1.0) == 7


@given(seed=seeds, displacement=st.floats(1e-6, 0.1))
@quick
def test_fingerprint_changes_at_most_twice_as_much_as_the_atoms_move(seed, displacement):
    rng = np.random.default_rng(seed)
    atoms = some_crystal(rng)
    change = np.abs(fingerprint(shaken(rng, atoms, displacement, 0)) - fingerprint(atoms))
    assert change.max() <= 2 * displacement / (atoms.get_volume() / len(atoms)) ** (1 / 3) + 1e-6


@given(seed=seeds)
@quick
def test_minimum_relaxed_from_another_start_is_found(seed):
    rng = np.random.default_rng(seed)
    atoms = some_crystal(rng)
    index = StructureIndex(energy_window=ENERGY_WINDOW)
    index.add(1, atoms, -1.0)
    again = permuted(rng, in_another_cell(rng, rotated(rng, supercell(rng, atoms))))
    assert index.find(shaken(rng, again, 0.03, 0.002), -1.002) == 1


@given(seed=seeds)
@quick
def test_comparison_does_not_depend_on_the_order_of_the_two(seed):
    rng = np.random.default_rng(seed)
    atoms = random_crystal(rng, CONTENTS[seed % 4])
    other = shaken(rng, atoms, 0.2, 0.02)
    assert same_structure(atoms, other) == same_structure(other, atoms)


def test_fingerprint_shows_distances_of_a_known_crystal():
    """In a face-centred cubic crystal of unit volume per atom 12 neighbours lie at 2^(1/6), 6 at 2^(2/3)."""
    found = fingerprint(bulk("Cu", a=3.6))
    assert len(found) == 22 + 1
    np.testing.assert_allclose(found[:5], 2 ** (1 / 6))
    assert found[5] == pytest.approx(2 ** (2 / 3))  # the 13th to 16th
    np.testing.assert_allclose(found[11:22], 0, atol=1e-12)  # all atoms alike
    assert found[22] == pytest.approx(math.log(3.6**3 / 4))


def test_fingerprint_is_as_long_for_all_structures_of_the_same_elements():
    rng = np.random.default_rng(0)
    lengths = {len(fingerprint(random_crystal(rng, n))) for n in ([22, 8], [22, 8, 8], [22] * 7 + [8], [8, 22, 22])}
    assert lengths == {4 * 22 + 1}


def test_fingerprint_equals_distances_counted_by_brute_force():
    atoms = random_crystal(np.random.default_rng(4), [11, 11, 17, 17], volume=1.0)
    shifts = np.array(list(itertools.product(range(-12, 13), repeat=3))) @ atoms.cell.array
    chlorines = (atoms.positions[2:][:, None] + shifts).reshape(-1, 3)
    nearest = np.sort(np.linalg.norm(atoms.positions[:2][:, None] - chlorines, axis=2))
    edges = [0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48]  # half of the atoms of a shell are of each element
    shells = np.array([nearest[:, a:b].mean(axis=1) for a, b in itertools.pairwise(edges)])
    means, spreads = np.split(fingerprint(atoms)[:-1], 2)
    np.testing.assert_allclose(means[11:22], shells.mean(axis=1))  # after Na-Na come Na-Cl, Cl-Na and Cl-Cl
    np.testing.assert_allclose(spreads[11:22], shells.std(axis=1))


def layered(stacking, partner=""):
    """Close-packed layers, or tetrahedra if there is a partner."""
    where = {"A": (0, 0), "B": (1 / 3, 2 / 3), "C": (2 / 3, 1 / 3)}
    n, a = len(stacking), 3.0
    positions = [(*where[s], (i + up) / n) for up in (0, 0.75)[: 1 + bool(partner)] for i, s in enumerate(stacking)]
    cell = [[a, 0, 0], [-a / 2, a * 3**0.5 / 2, 0], [0, 0, n * a * (2 / 3) ** 0.5]]
    return Atoms("Si" * n + partner * n, cell=cell, scaled_positions=positions, pbc=True)


def perovskite(a_site="Ba", b_site="Ti", c_over_a=1.0, b=0.0, apical=0.0, equatorial=0.0):
    positions = [
        (0, 0, 0),
        (0.5, 0.5, 0.5 + b),
        (0.5, 0.5, apical),
        (0.5, 0, 0.5 + equatorial),
        (0, 0.5, 0.5 + equatorial),
    ]
    return Atoms([a_site, b_site, "O", "O", "O"], cell=[4, 4, 4 * c_over_a], scaled_positions=positions, pbc=True)


def gold_with_copper(repeat, sites):
    atoms = bulk("Au", cubic=True).repeat(repeat)
    atoms.numbers[sites] = 29
    return atoms


POLYMORPHS = {
    "3C and 2H": (layered("ABC"), layered("AB")),
    "3C and 4H": (layered("ABC"), layered("ABCB")),
    "4H and 6H": (layered("ABCB", "C"), layered("ABCACB", "C")),
    "polytypes of eight layers": (layered("ABCABCAB"), layered("ABCABACB")),
    "zincblende and wurtzite": (layered("ABC", "S"), layered("AB", "S")),
    "rock salt and zincblende": (bulk("NaCl", "rocksalt", a=5.6), bulk("NaCl", "zincblende", a=5.6)),
    "L1_2 and D0_22": (gold_with_copper((1, 1, 1), [0]), gold_with_copper((1, 1, 2), [0, 5])),
    "A and B of a perovskite swapped": (perovskite(), perovskite("Ti", "Ba")),
    "Pm-3m and P4mm as PBE has it": (
        perovskite(),
        perovskite(c_over_a=1.055, b=0.018, apical=-0.042, equatorial=-0.027),
    ),
}


@pytest.mark.parametrize("name", POLYMORPHS)
def test_polymorphs_of_equal_energy_are_different(name):
    one, other = POLYMORPHS[name]
    assert one.symbols.species() == other.symbols.species()
    index = StructureIndex(energy_window=ENERGY_WINDOW)
    index.add(1, one, 0.0)
    assert index.find(other, 0.0) is None
    assert not same_structure(one, other)


def test_enantiomorphs_and_swapped_sublattices_of_rock_salt_are_the_same():
    quartz = crystal(
        ["Si", "O"],
        [(0.4697, 0, 2 / 3), (0.4135, 0.2669, 0.7858)],
        spacegroup=154,
        cellpar=[4.92, 4.92, 5.41, 90, 90, 120],
    )
    salt = bulk("NaCl", "rocksalt", a=5.6)
    swapped = salt.copy()
    swapped.numbers = salt.numbers[::-1]
    for one, other in ((quartz, mirrored(None, quartz)), (salt, swapped)):
        index = StructureIndex(energy_window=None)
        index.add(1, one)
        assert index.find(other) == 1
        assert same_structure(one, other)


def test_starts_at_another_scale_are_the_same_but_minima_are_not():
    small, large = bulk("NaCl", "rocksalt", a=5.6), bulk("NaCl", "rocksalt", a=6.2)
    for tolerances, found in ((MINIMA, None), (STARTS, 1)):
        index = StructureIndex(energy_window=None, tolerances=tolerances)
        index.add(1, small)
        assert index.find(large) == found
        assert same_structure(small, large, tolerances) == (found == 1)


def test_distortion_makes_another_start_where_it_makes_no_other_minimum():
    index, starts = StructureIndex(energy_window=None), StructureIndex(energy_window=None, tolerances=STARTS)
    for each in (index, starts):
        each.add(1, perovskite())
    assert index.find(perovskite(b=0.02)) == 1
    assert starts.find(perovskite(b=0.02)) is None


def test_energy_window_separates_equal_geometries():
    index = StructureIndex(energy_window=0.005)
    index.add(1, bulk("Cu"), -3.500)
    assert index.find(bulk("Cu"), -3.504) == 1
    assert index.find(bulk("Cu"), -3.506) is None
    assert index.find(bulk("Cu")) == 1  # nothing known against it


def test_structure_without_energy_is_found_at_any_energy():
    index = StructureIndex(energy_window=0.005)
    index.add(1, bulk("Cu"))
    assert index.find(bulk("Cu"), -3.5) == 1


def test_nearest_of_several_is_found():
    rng = np.random.default_rng(2)
    atoms = random_crystal(rng, [22, 8, 8])
    index = StructureIndex(energy_window=None)
    index.add(1, shaken(rng, atoms, 0.03, 0))
    index.add(2, shaken(rng, atoms, 0.001, 0))
    index.add(3, shaken(rng, atoms, 0.03, 0))
    assert index.find(atoms) == 2


def test_compositions_and_magnetic_moments():
    index = StructureIndex(energy_window=None)
    iron = bulk("Fe", cubic=True)
    iron.set_initial_magnetic_moments([2.0, -2.0])
    index.add(1, iron)
    assert index.find(bulk("Fe")) == 1
    assert index.find(bulk("Cr", "bcc", a=iron.cell[0, 0])) is None


@given(seed=seeds)
@settings(max_examples=5, deadline=None, derandomize=True)
def test_index_agrees_with_a_dictionary_through_additions_replacements_and_removals(seed):
    rng = np.random.default_rng(seed)
    crystals = [random_crystal(rng, CONTENTS[i % 3]) for i in range(30)]
    index, held = StructureIndex(energy_window=0.01), {}
    for _ in range(60):
        key, which = int(rng.integers(20)), int(rng.integers(30))
        if key not in held:
            index.add(key, crystals[which], 0.0)
            held[key] = which
        elif rng.random() < 0.5:
            index.replace(key, crystals[which], 0.0)
            held[key] = which
        else:
            index.remove(key)
            del held[key]
    assert len(index) == len(held)
    for which, atoms in enumerate(crystals):
        keys = [key for key, other in held.items() if other == which]
        found = index.find(atoms, 0.0)
        assert found in keys if keys else found is None


def test_descriptors_can_replace_the_structure():
    described = compute_descriptors(bulk("NaCl", "rocksalt", a=5.6))
    index = StructureIndex(energy_window=0.01)
    assert index.find(described, -3.0) is None
    index.add(1, described, -3.0)
    assert index.find(described, -3.0) == index.find(bulk("NaCl", "rocksalt", a=5.6, cubic=True), -3.0) == 1
    np.testing.assert_array_equal(described.fingerprint, fingerprint(bulk("NaCl", "rocksalt", a=5.6)))


def test_matcher_compares_only_undecided_pairs_up_to_the_limit():
    rng = np.random.default_rng(5)
    atoms = random_crystal(rng, [22, 22, 8, 8, 8, 8])
    index = StructureIndex(energy_window=None)
    index.add(1, atoms)
    index.find(atoms)
    index.find(random_crystal(rng, atoms.numbers))
    assert index.statistics["exact"] == 0
    assert index.statistics["certain"] == 1
    for key in range(2, 22):  # all a little too far from the query to be the same, too near for the fingerprint to know
        index.add(key, shaken(rng, atoms, 0.3, 0))
    index.remove(1)
    index.find(atoms)
    assert 0 < index.statistics["exact"] <= MINIMA.exact_comparisons


def test_noise_that_hides_the_primitive_cell_from_one_of_two_supercells():
    rng = np.random.default_rng(6)
    atoms = random_crystal(rng, [22, 8, 8])
    along, across = (shaken(rng, atoms.repeat(n), 0.1, 0) for n in ((2, 1, 1), (1, 2, 1)))
    assert same_structure(along, across)
    index = StructureIndex(energy_window=None)
    index.add(1, along)
    assert index.find(across) == 1
    assert index.statistics["exact"] == 1


def test_cells_too_large_to_pair_their_atoms_are_compared_exactly():
    salt = bulk("NaCl", "rocksalt", a=5.6)
    index = StructureIndex(energy_window=None)
    index.add(1, salt.repeat((17, 1, 1)))
    assert index.find(salt.repeat((19, 1, 1))) == 1
    assert index.statistics["exact"] == 1


@pytest.mark.parametrize(
    "spoil",
    [
        lambda atoms: atoms.positions.__setitem__((0, 0), np.nan),
        lambda atoms: atoms.cell.array.__setitem__((0, 0), np.inf),
        lambda atoms: atoms.set_cell([[3, 0, 0], [3, 0, 0], [0, 0, 3]]),
        lambda atoms: atoms.set_cell([1e-4, 1e4, 1e4]),
        lambda atoms: atoms.set_pbc([True, True, False]),
        lambda atoms: atoms.__delitem__(slice(None)),
    ],
    ids=["NaN", "infinite cell", "flat cell", "thin cell", "slab", "no atoms"],
)
def test_invalid_crystals_are_refused(spoil):
    atoms = bulk("NaCl", "rocksalt", a=5.6)
    index = StructureIndex(energy_window=None)
    index.add(1, atoms)
    spoil(atoms)
    for use in (fingerprint, index.find, lambda a: same_structure(a, a), lambda a: index.add(2, a)):
        with pytest.raises(InputError, match=r"crystal|thin"):
            use(atoms)
    assert len(index) == 1


def test_wrong_keys_and_energies_are_refused_and_change_nothing():
    index = StructureIndex(energy_window=0.01)
    index.add(1, bulk("Cu"), -3.5)
    with pytest.raises(InputError, match="must be a new key"):
        index.add(1, bulk("Ni"), -3.5)
    with pytest.raises(InputError, match="must be a key that is in the index"):
        index.remove(2)
    with pytest.raises(InputError, match="must be a key that is in the index"):
        index.replace(2, bulk("Ni"), -3.5)
    for energy in (math.nan, math.inf):
        with pytest.raises(InputError, match="finite"):
            index.replace(1, bulk("Ni"), energy)
        with pytest.raises(InputError, match="finite"):
            index.find(bulk("Cu"), energy)
    for window in (0.0, -1.0, math.nan):
        with pytest.raises(InputError, match="positive"):
            StructureIndex(energy_window=window)
    assert index.find(bulk("Cu"), -3.5) == 1


def test_fingerprint_in_batches_of_atoms_is_the_same(monkeypatch):
    atoms = random_crystal(np.random.default_rng(1), [22] * 4 + [8] * 8)
    at_once = fingerprint(atoms)
    monkeypatch.setattr(sys.modules[compute_descriptors.__module__], "_DISTANCES_AT_ONCE", 1)
    shifted = atoms.copy()
    shifted.positions += 0.1  # another question to the cache
    assert fingerprint(shifted) == pytest.approx(at_once, abs=1e-9)


@pytest.mark.parametrize("cell", [[1e8, 3, 3], [1e30, 3, 3], [1e-6, 3e4, 3], [60, 60, 60]])
def test_cells_that_need_too_much_memory_are_refused(cell):
    n = 2 if max(cell) > 100 else 8000
    places = np.random.default_rng(0).random((n, 3))
    with pytest.raises(InputError, match=r"too thin|too many atoms"):
        compute_descriptors(Atoms(f"Cu{n}", scaled_positions=places, cell=cell, pbc=True))
