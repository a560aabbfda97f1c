"""ase-ga's genetic algorithm for bulk crystals, as its tutorial sets it up (ase-lib.org/tutorials/ga/ga_bulk.html).

From the tutorial: 20 random structures by StartGenerator, half of them repeated twice along an axis; population of 20,
without duplicates by OFPComparator; operators chosen 4 : 3 : 3 among cut-and-splice pairing, soft mutation and strain
mutation with the tutorial's parameters; distances of at least half the summed covalent radii; its bounds of the cell;
scaling volumes updated every ten structures; structures that leave the bounds are killed.

Where the tutorial's example (24 Ag) says nothing:

- the volume of the random structures is the estimate that our own sources start from;
- with more than one element PermutationMutation, of its default strength, has the weight of a mutation, 3;
- a failed relaxation is killed like a structure out of bounds, and counted;
- an operator that gives nothing, or raises (SoftMutation has no data for lanthanides, and no modes left on a parent
  used often), is counted as a rejected proposal, and parents and operator are drawn again;
- while the population has fewer than two different structures to pair, random ones are added.

All random numbers come from one numpy RandomState; nothing else draws any.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import atomic_numbers
from ase_ga.cutandsplicepairing import CutAndSplicePairing
from ase_ga.data import DataConnection, PrepareDB
from ase_ga.offspring_creator import OffspringCreator, OperationSelector
from ase_ga.ofp_comparator import OFPComparator
from ase_ga.population import Population
from ase_ga.soft_mutation import SoftMutation
from ase_ga.standardmutations import PermutationMutation, StrainMutation
from ase_ga.startgenerator import StartGenerator
from ase_ga.utilities import CellBounds, closest_distances_generator

from hybridcsp.core.outcomes import Failed
from peers.record import Run, main

POPULATION = 20
UPDATE_VOLUME_EVERY = 10

# Degrees between each cell vector and the plane of the others, and lengths in Å.
START_BOUNDS = {**dict.fromkeys(("phi", "chi", "psi"), (35, 145)), **dict.fromkeys("abc", (3, 50))}
BOUNDS = {**dict.fromkeys(("phi", "chi", "psi"), (20, 160)), **dict.fromkeys("abc", (2, 60))}


class Starts:
    """Random structures; the cell is drawn anew when no atoms fit into it, which the generator would try for ever."""

    def __init__(self, run: Run, rng: np.random.RandomState) -> None:
        numbers = [atomic_numbers[symbol] for symbol in run.contents]
        self._generator = StartGenerator(
            Atoms("", pbc=True),
            run.contents,
            closest_distances_generator(numbers, 0.5),
            box_volume=run.volume,
            number_of_variable_cell_vectors=3,
            cellbounds=CellBounds(bounds=START_BOUNDS),
            splits={(2,): 1, (1,): 1},
            rng=rng,
        )

    def __call__(self) -> Atoms:
        while True:
            atoms = self._generator.get_new_candidate(maxiter=10_000)
            if atoms is not None:
                return atoms


def relax(run: Run, database: DataConnection, atoms: Atoms, operator: str) -> None:
    """Relax a candidate of the database and put it back, killed if it came to nothing or left the bounds."""
    outcome = run.relax(atoms, operator)
    with run.proposing():
        if isinstance(outcome, Failed):
            energy = 0.0  # of no consequence: it is extinct before the population looks
        else:
            energy = outcome.evaluation.energy
            atoms.set_cell(outcome.atoms.cell)
            atoms.set_positions(outcome.atoms.positions)
        atoms.wrap()
        atoms.calc = SinglePointCalculator(atoms, energy=energy)
        atoms.info["key_value_pairs"]["raw_score"] = -energy
        database.add_relaxed_step(atoms)
        if isinstance(outcome, Failed) or not CellBounds(bounds=BOUNDS).is_within_bounds(atoms.cell):
            database.kill_candidate(atoms.info["confid"])


def offspring(run: Run, population: Population, operators: OperationSelector, starts: Starts) -> tuple[Atoms, str, str]:
    """Return a new structure, what the database shall say of it, and the operator's name."""
    while True:
        parents = population.get_two_candidates()
        if parents is None:
            atoms = starts()
            atoms.info |= {"key_value_pairs": {"extinct": 0}, "data": {}}
            return atoms, "random: start", "random"
        operator: OffspringCreator = operators.get_operator()
        try:
            atoms, description = operator.get_new_individual(parents)
        except (ValueError, IndexError) as error:
            if not isinstance(operator, SoftMutation):
                raise
            run.reject(operator.descriptor, "no modes left" if isinstance(error, IndexError) else "no data for Z")
            continue
        if atoms is not None:
            return atoms, description, operator.descriptor
        run.reject(operator.descriptor, "nothing valid")


def search(run: Run) -> None:
    rng = np.random.RandomState(run.seed)
    np.random.seed(run.seed)  # for whatever does not use the generator it is given
    with run.proposing():
        numbers = [atomic_numbers[symbol] for symbol in run.contents]
        starts = Starts(run, rng)
        prepared = PrepareDB(db_file_name="gadb.db", stoichiometry=numbers)
        for _ in range(POPULATION):
            prepared.add_unrelaxed_candidate(starts())
        database = DataConnection("gadb.db")
        operators, scaled = _operators(database.get_slab(), numbers, rng)

    while True:
        with run.proposing():
            if database.get_number_of_unrelaxed_candidates() == 0:
                break
            atoms = database.get_an_unrelaxed_candidate()
            atoms.info.setdefault("key_value_pairs", {})
        relax(run, database, atoms, "random")

    with run.proposing():
        comparator = OFPComparator(
            n_top=len(numbers),
            dE=1.0,
            cos_dist_max=1e-3,
            rcut=10.0,
            binwidth=0.05,
            pbc=[True] * 3,
            sigma=0.05,
            nsigma=4,
        )
        population = Population(database, POPULATION, comparator, use_extinct=True, rng=rng)
        _update_volume(scaled, population)
    step = 0
    while True:
        with run.proposing():
            atoms, description, name = offspring(run, population, operators, starts)
            database.add_unrelaxed_candidate(atoms, description=description)
        relax(run, database, atoms, name)
        with run.proposing():
            population.update()
            if step % UPDATE_VOLUME_EVERY == 0:
                _update_volume(scaled, population)
            step += 1


def _operators(
    slab: Atoms, numbers: Sequence[int], rng: np.random.RandomState
) -> tuple[OperationSelector, tuple[CutAndSplicePairing, StrainMutation]]:
    blmin, soft = closest_distances_generator(numbers, 0.5), closest_distances_generator(numbers, 0.1)
    cell = {"cellbounds": CellBounds(bounds=BOUNDS), "number_of_variable_cell_vectors": 3}
    pairing = CutAndSplicePairing(slab, len(numbers), blmin, p1=1.0, p2=0.0, minfrac=0.15, rng=rng, **cell)
    strain = StrainMutation(blmin, stddev=0.7, rng=rng, **cell)
    weights, chosen = [4.0, 3.0, 3.0], [pairing, SoftMutation(soft, bounds=[2.0, 5.0]), strain]
    if len(set(numbers)) > 1:
        weights.append(3.0)
        chosen.append(PermutationMutation(len(numbers), blmin=blmin, rng=rng))
    return OperationSelector(weights, chosen, rng=rng), (pairing, strain)


def _update_volume(scaled: tuple[CutAndSplicePairing, StrainMutation], population: Population) -> None:
    if population.pop:
        for operator in scaled:
            operator.update_scaling_volume(population.pop, w_adapt=0.5, n_adapt=4)


if __name__ == "__main__":
    main(search, "ase-ga")
