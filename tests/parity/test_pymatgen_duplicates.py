"""Held against pymatgen's StructureMatcher asked about all pairs, with its own reduction to primitive cells."""

import itertools

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from pymatgen.analysis.structure_matcher import ElementComparator, StructureMatcher
from scipy.spatial.transform import Rotation

from hybridcsp.similarity import MINIMA, STARTS, StructureIndex
from hybridcsp.structure.conversion import to_pymatgen


def wurtzite(u):
    return bulk("NaCl", "wurtzite", a=3.9, c=6.4, u=u)


def nickel_arsenide(c):
    positions = [(0, 0, 0), (0, 0, 0.5), (1 / 3, 2 / 3, 0.25), (2 / 3, 1 / 3, 0.75)]
    return Atoms("Na2Cl2", cell=[4.0, 4.0, c, 90, 90, 120], scaled_positions=positions, pbc=True)


def distinct_crystals():
    rng = np.random.default_rng(11)
    yield bulk("NaCl", "rocksalt", a=5.6)
    yield bulk("NaCl", "cesiumchloride", a=3.5)
    yield bulk("NaCl", "zincblende", a=5.6)
    yield wurtzite(0.375)
    yield wurtzite(0.44)
    yield nickel_arsenide(5.0)
    yield nickel_arsenide(6.0)
    for n in (2, 4):
        yield Atoms(
            ["Na", "Cl"] * n, cell=np.diag([4, 4.5, 2.4 * n]), scaled_positions=rng.random((2 * n, 3)), pbc=True
        )


def found_again(atoms, rng, noise):
    """The same crystal in another cell, turned, reordered, displaced by up to the noise in Å and strained a little."""
    change = np.array([[1, 0, 0], [1, 1, 0], [0, -1, 1]])[:, rng.permutation(3)]
    turn = Rotation.random(random_state=rng).as_matrix() @ (np.eye(3) + rng.uniform(-noise, noise, (3, 3)) / 20)
    cell, numbers = change @ atoms.cell.array @ turn, atoms.numbers
    positions = atoms.positions @ turn + rng.uniform(-noise, noise, atoms.positions.shape) + rng.normal(size=3)
    return Atoms(numbers, positions=positions, cell=cell, pbc=True)[rng.permutation(len(atoms))]


@pytest.fixture(scope="module", params=[(MINIMA, 0.02), (STARTS, 0.002)], ids=["minima", "starts"])
def case(request):
    tolerances, noise = request.param
    rng = np.random.default_rng(3)
    crystals = list(distinct_crystals())
    crystals += [found_again(atoms, rng, noise) for atoms in crystals for _ in range(2)]
    matcher = StructureMatcher(
        ltol=tolerances.lattice,
        stol=tolerances.displacement,
        angle_tol=tolerances.angle,
        comparator=ElementComparator(),
    )
    return tolerances, crystals, matcher


def test_every_pair_gets_the_verdict_of_structure_matcher(case):
    tolerances, crystals, matcher = case
    structures = [to_pymatgen(atoms) for atoms in crystals]
    asked = 0
    for i, j in itertools.combinations(range(len(crystals)), 2):
        index = StructureIndex(energy_window=None, tolerances=tolerances)
        index.add(i, crystals[i])
        ratio = np.prod([(crystals[n].get_volume() / len(crystals[n])) ** power for n, power in ((i, 1), (j, -1))])
        similar_volume = tolerances.volume is None or abs(np.log(ratio)) <= tolerances.volume
        either_way = ((structures[i], structures[j]), (structures[j], structures[i]))
        same = similar_volume and any(matcher.fit(*pair) for pair in either_way)
        assert (index.find(crystals[j]) == i) == same, (i, j)
        asked += index.statistics["exact"]
    assert asked < 0.1 * len(crystals) ** 2 / 2


def test_one_after_the_other_gives_the_groups_of_structure_matcher(case):
    tolerances, crystals, matcher = case
    index, group_of = StructureIndex(energy_window=None, tolerances=tolerances), []
    for number, atoms in enumerate(crystals):
        found = index.find(atoms)
        if found is None:
            index.add(number, atoms)
        group_of.append(number if found is None else found)
    groups = matcher.group_structures([to_pymatgen(atoms) for atoms in crystals])
    assert len(index) == len(groups) == len(list(distinct_crystals()))
    assert group_of == [*range(len(index)), *np.repeat(np.arange(len(index)), 2)]
