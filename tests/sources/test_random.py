"""The random source: what it draws, what it obeys, and that it follows its random numbers."""

import hashlib
import subprocess
import sys
from collections import Counter
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import spglib
from archives import NO_MINIMA
from crystals import rutile

from hybridcsp.archive.archive import Archive
from hybridcsp.archive.distances import search_distances
from hybridcsp.core.problem import Problem
from hybridcsp.errors import InputError
from hybridcsp.sources.base import Context, SourceStatus
from hybridcsp.sources.random import REDRAWS, RandomSource
from hybridcsp.sources.registry import SOURCES
from hybridcsp.structure.geometry import niggli_parameters
from hybridcsp.structure.separations import usual_distances
from hybridcsp.structure.validity import shortest_violation
from hybridcsp.structure.wyckoff import point_group_order


def context(problem, seed=0):
    return Context(problem=problem, archive=NO_MINIMA, rng=np.random.default_rng(seed))


def draw(problem, n, seed=0):
    return RandomSource(problem).propose(n, context(problem, seed))


def spglib_number(atoms, symprec=0.01):
    return spglib.get_symmetry_dataset((atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers), symprec).number


def n_primitive(atoms):
    found = spglib.find_primitive((atoms.cell.array, atoms.get_scaled_positions(), atoms.numbers), 0.01)
    return len(found[2])


def check(problem, proposals):
    low, high = problem.volume_bounds
    for proposal in proposals:
        atoms = proposal.atoms
        assert proposal.operator == "random"
        assert proposal.cost.seconds > 0
        assert atoms.pbc.all()
        assert problem.units_of(atoms.numbers) in problem.units
        assert low <= atoms.get_volume() / len(atoms) <= high
        assert shortest_violation(atoms, problem.distance_table) is None
        assert proposal.tag["spacegroup"] == spglib_number(atoms)


@pytest.mark.parametrize(("formula", "expected"), [("ZrO2", 225), ("CaBe2Ge2", 139)])
def test_centred_groups_come_up_with_primitive_contents_within_200_draws(formula, expected):
    problem = Problem(formula, formula_units=1)
    source, stream = RandomSource(problem), context(problem)
    for _ in range(200):
        proposals = source.propose(1, stream)
        check(problem, proposals)
        if any(spglib_number(proposal.atoms) == expected for proposal in proposals):
            return
    pytest.fail(f"{expected} did not come up")


def test_draws_are_diverse_and_obey_the_problem():
    problem = Problem("TiO2", formula_units=2)
    proposals = draw(problem, 200)
    assert len(proposals) == 200
    check(problem, proposals)
    groups = Counter(proposal.tag["spacegroup"] for proposal in proposals)
    assert len(groups) > 40
    assert max(groups.values()) < 40
    assert all(n_primitive(proposal.atoms) == 6 for proposal in proposals)
    # Almost all draws have symmetry, and most have what was asked for.
    assert sum(number > 1 for number in groups.elements()) > 190
    assert sum(proposal.tag["spacegroup"] == proposal.tag["drawn"] for proposal in proposals) > 100


def test_atoms_keep_their_usual_distances():
    problem = Problem("TiO2", formula_units=4)
    proposals = draw(problem, 40)
    usual = 0.999 * usual_distances(problem)
    assert sum(shortest_violation(proposal.atoms, usual) is None for proposal in proposals) >= 30
    # The others may have bonds between oxygen atoms, as in peroxides.
    bonds = 0.89 * usual_distances(problem, bonds=True)
    assert sum(shortest_violation(proposal.atoms, bonds) is None for proposal in proposals) >= 38


def test_half_of_the_crystals_keep_the_distances_of_the_best_minima():
    problem = Problem("TiO2", formula_units=2, volume_per_atom=(14, 16))
    wide = SimpleNamespace(height=0.0, niche=1, end=SimpleNamespace(atoms=rutile(a=5.2, c=3.4)))
    found = SimpleNamespace(preferred_minima=lambda n: [wide] * n)
    own = search_distances(cast(Archive, found), problem)
    kept = []
    for archive in (found, NO_MINIMA):
        told = Context(problem=problem, archive=archive, rng=np.random.default_rng(2))
        proposals = RandomSource(problem).propose(30, told)
        kept.append(sum(shortest_violation(proposal.atoms, 0.999 * own) is None for proposal in proposals))
    assert kept[0] > kept[1] + 6


def test_large_cells_have_few_symmetry_operations_and_small_ones_many():
    orders = {}
    for units in (1, 8):
        tags = [proposal.tag for proposal in draw(Problem("NaCl", formula_units=units), 40)]
        orders[units] = [point_group_order(tag["spacegroup"]) for tag in tags]
        # Crystals that special positions make more symmetric than drawn are drawn again.
        drawn = [point_group_order(tag["drawn"]) for tag in tags]
        assert sum(a == b for a, b in zip(drawn, orders[units], strict=True)) >= 36
    assert np.mean(np.array(orders[1]) > 8) > 0.6 > 0.45 > np.mean(np.array(orders[8]) > 8)


def test_every_number_of_formula_units_comes_up():
    problem = Problem("TiO2", formula_units=(1, 4))
    units = Counter(problem.units_of(proposal.atoms.numbers) for proposal in draw(problem, 60))
    assert set(units) == {1, 2, 3, 4}


@pytest.mark.parametrize(
    "problem",
    [
        Problem("C", formula_units=1),
        Problem("Ar", formula_units=(1, 4)),
        Problem("H", formula_units=(1, 2), pressure_gpa=500),
        Problem("LaH10", formula_units=1),
        Problem("MgSiO3", formula_units=4),
        Problem("LaCeMnFeO6", formula_units=2),
        Problem("Si", formula_units=40, max_atoms=40),
    ],
    ids=lambda problem: problem.formula,
)
def test_elements_hydrides_and_large_cells_work(problem):
    proposals = draw(problem, 8)
    assert len(proposals) == 8
    check(problem, proposals)


def test_only_allowed_space_groups_come_out():
    problem = Problem("TiO2", formula_units=(1, 2), spacegroups=(1, 5, 136))
    proposals = draw(problem, 40)
    assert len(proposals) == 40
    assert {spglib_number(proposal.atoms) for proposal in proposals} == {1, 5, 136}


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        (Problem("NaCl", formula_units=1, spacegroups=(227, 230)), "do not hold 1 x NaCl.* 225"),
        (Problem("C", formula_units=1, spacegroups=(1,)), "more symmetric, for example: 2"),
        (Problem("NaCl", formula_units=4, spacegroups=(225,), cell=(5, 6, 7, 90, 90, 90)), "fixed cell.* 47"),
    ],
)
def test_space_groups_that_cannot_come_out_are_refused_at_once(problem, message):
    with pytest.raises(InputError, match=message):
        RandomSource(problem)


def test_an_argument_is_refused():
    with pytest.raises(InputError, match="no argument"):
        RandomSource(Problem("C"), "7")


def test_minimum_distances_of_pairs_are_obeyed():
    problem = Problem("TiO2", formula_units=2, min_distances={"O-O": 2.3, "Ti-O": 1.85})
    proposals = draw(problem, 20)
    assert proposals
    for proposal in proposals:
        atoms = proposal.atoms.repeat(3)
        apart = atoms.get_all_distances(mic=True) + 9 * np.eye(len(atoms))
        oxygen, titanium = atoms.symbols == "O", atoms.symbols == "Ti"
        assert apart[np.ix_(oxygen, oxygen)].min() >= 2.3 - 1e-9
        assert apart[np.ix_(titanium, oxygen)].min() >= 1.85 - 1e-9


def test_bounds_of_volume_and_niggli_cell_are_obeyed():
    problem = Problem("TiO2", formula_units=2, volume_per_atom=(14, 15), length_bounds=(3, 7), angle_bounds=(60, 100))
    proposals = draw(problem, 20)
    assert len(proposals) == 20
    check(problem, proposals)
    for proposal in proposals:
        found = niggli_parameters(proposal.atoms)
        assert (found[:3] >= 3).all() and (found[:3] <= 7).all()
        assert (found[3:] >= 60).all() and (found[3:] <= 100).all()


@pytest.mark.parametrize(
    ("cell", "units", "highest"),
    [
        ((4.6, 4.6, 2.96, 90, 90, 90), 2, 142),
        ((2.96, 4.6, 4.6, 90, 90, 90), 2, 142),
        ((5.0, 5.1, 5.2, 80, 85, 95), 4, 2),
        ((5.0, 5.5, 5.2, 90, 90, 101), 4, 15),
        ((5.0, 5.0, 5.2, 90, 90, 120), 3, 194),
        ((5.0, 5.0, 5.0, 90, 90, 90), 4, 230),
    ],
    ids=["tetragonal along c", "tetragonal along a", "triclinic", "monoclinic along c", "hexagonal", "cubic"],
)
def test_a_fixed_cell_is_filled_as_it_is(cell, units, highest):
    problem = Problem("TiO2", formula_units=units, cell=cell)
    proposals = draw(problem, 25)
    assert len(proposals) == 25
    check(problem, proposals)
    for proposal in proposals:
        assert proposal.atoms.cell.cellpar() == pytest.approx(cell)
        assert len(proposal.atoms) == 3 * units
    highest_found = max(proposal.tag["spacegroup"] for proposal in proposals)
    lowest_of_system = {2: 1, 15: 3, 142: 75, 194: 143, 230: 195}[highest]
    assert lowest_of_system <= highest_found <= highest


def test_impossible_distances_end_without_structures_and_without_an_error():
    problem = Problem("TiO2", formula_units=4, volume_per_atom=(8, 9), min_distances={"O-O": 2.6, "Ti-O": 2.3})
    assert draw(problem, 1) == []


def test_it_is_never_exhausted_and_does_not_learn():
    problem = Problem("C")
    source = SOURCES["random"].load()(problem)
    first = source.propose(2, context(problem))
    source.proposed([])
    source.observe([])
    second = source.propose(2, context(problem))
    assert source.status() is SourceStatus.READY
    for one, other in zip(first, second, strict=True):
        assert one.atoms == other.atoms
        assert one.tag == other.tag


SCRIPT = """
import hashlib, numpy as np
from types import SimpleNamespace
from hybridcsp.core.problem import Problem
from hybridcsp.sources.base import Context
from hybridcsp.sources.random import RandomSource
problem = Problem("MgSiO3", formula_units=(1, 2))
empty = SimpleNamespace(preferred_minima=lambda n: [])
context = Context(problem=problem, archive=empty, rng=np.random.default_rng([5, 7]))
digest = hashlib.sha256()
for proposal in RandomSource(problem).propose(12, context):
    atoms = proposal.atoms
    for array in (atoms.numbers, atoms.positions, atoms.cell.array):
        digest.update(array.tobytes())
    digest.update(repr(sorted(proposal.tag.items())).encode())
print(digest.hexdigest())
"""


def test_two_processes_draw_the_same_bits_and_print_nothing_else():
    runs = [subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True) for _ in range(2)]
    for run in runs:
        assert run.returncode == 0, run.stderr
        assert run.stderr == ""
        assert len(run.stdout.strip()) == 2 * hashlib.sha256().digest_size
    assert runs[0].stdout == runs[1].stdout


def test_orders_that_a_cell_does_not_allow_are_given_up_soon():
    problem = Problem("Cu", formula_units=1, cell=(2.55, 2.55, 2.55, 60, 60, 60))  # one atom in it is always cubic
    (proposal,) = RandomSource(problem).propose(1, context(problem))
    assert proposal.tag["spacegroup"] == 225
    assert proposal.tag["separation"] == 1.0
    assert proposal.tag["attempts"] <= REDRAWS
