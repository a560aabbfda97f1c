"""ase-ga's own example of a search of variable composition, on the crystals and with the relaxations of ``systems.py``.

The example (ase-lib.org/tutorials/ga/ga_convex_hull.html) looks for the convex hull of a binary alloy on the sites of
an fcc(111) slab: it decides which element is on which site. Operators, their weights, the population ranked within each
composition, its size of twice the number of sites, and the lattice constant by Vegard's law are those of the example.
Changed is what a search of crystals needs: the sites are those of three conventional fcc cells in a row (12 atoms, so
that all compositions of twelfths are reached), and the energy of a candidate is that after a relaxation of cell and
positions, in place of that on the sites. Children inherit the sites.

It cannot find a crystal that is no ordering of fcc, nor compositions whose formula unit does not divide the 12 sites
(A4B, A3B2 of the grid), and it needs experimental lattice constants of fcc metals, so that it runs on Cu-Au, Ni-Al,
Cu-Al, Ag-Pd and Pt-Al and not on the Lennard-Jones systems.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import atomic_numbers, reference_states
from ase_ga import set_raw_score
from ase_ga.data import DataConnection, PrepareDB
from ase_ga.offspring_creator import OperationSelector
from ase_ga.population import RankFitnessPopulation
from ase_ga.slab_operators import CutSpliceSlabCrossover, RandomCompositionMutation, RandomSlabPermutation

from hybridcsp import System
from hybridcsp.core.outcomes import Relaxed
from hybridcsp.core.records import Candidate, Job, Proposal
from hybridcsp.relaxation.calculators.registry import CalculatorLike
from hybridcsp.relaxation.relax import Relaxer
from hybridcsp.relaxation.settings import RelaxationSettings

#: Conventional fcc cells in a row.
CELLS = (1, 1, 3)


class Relaxations:
    """Relax decorated sites, and note the minima that lower the best of their compositions.

    Attributes
    ----------
    minima
        Force calls until then, composition and enthalpy in eV/atom.
    force_calls, done
        Numbers of force calls and relaxations so far.
    """

    def __init__(self, system: System, calculator: CalculatorLike) -> None:
        self.minima: list[tuple[int, str, float]] = []
        self.force_calls = self.done = 0
        self._lowest: dict[str, float] = {}
        self._system = system
        self._run = Relaxer(calculator=calculator, settings=RelaxationSettings())()

    def __call__(self, atoms: Atoms) -> float | None:
        """Return the enthalpy per atom after the relaxation; ``None`` if it failed."""
        self.done += 1
        plain = Atoms(numbers=atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=True)
        candidate = Candidate(proposal=Proposal(atoms=plain, operator="ase-ga"), id=self.done, source="ase-ga")
        outcome = self._run(Job(candidate=candidate, atoms=plain))
        self.force_calls += outcome.cost.force_calls
        if not isinstance(outcome, Relaxed):
            return None
        formula, enthalpy = self._system.formula_of(plain.numbers), outcome.enthalpy_per_atom
        if formula in self._system.compositions and enthalpy < self._lowest.get(formula, np.inf) - 1e-6:
            self._lowest[formula] = enthalpy
            self.minima.append((self.force_calls, formula, round(enthalpy, 6)))
        return float(enthalpy)


def runs_on(name: str) -> bool:
    """Return whether the lattice constants of both elements as fcc metals are known."""
    states = [reference_states[atomic_numbers[element]] for element in name.split("-") if element in atomic_numbers]
    return len(states) == 2 and all(state is not None and state["symmetry"] == "fcc" for state in states)


def search(system: System, calculator: CalculatorLike, relaxations: int, seed: int) -> Relaxations:
    """Search a binary system of fcc metals, and return what was found."""
    relax = Relaxations(system, calculator)
    rng = np.random.RandomState(seed)
    np.random.seed(seed)  # for the population, which uses no generator that is given
    constants = {element: reference_states[atomic_numbers[element]]["a"] for element in system.elements}
    sites = bulk(system.elements[0], "fcc", a=1.0, cubic=True).repeat(CELLS)

    def decorated(symbols: list[str]) -> Atoms:
        atoms = sites.copy()
        atoms.symbols[:] = symbols
        atoms.set_cell(sites.cell * np.mean([constants[symbol] for symbol in symbols]), scale_atoms=True)
        return atoms

    pure = {element: relax(decorated([element] * len(sites))) for element in system.elements}

    def evaluate(atoms: Atoms) -> None:
        energy = relax(atoms)
        mixing = 1e3 if energy is None else energy - float(np.mean([pure[symbol] for symbol in atoms.symbols]))
        set_raw_score(atoms, -mixing * len(atoms))
        atoms.calc = SinglePointCalculator(atoms, energy=mixing * len(atoms))

    with tempfile.TemporaryDirectory() as folder:
        file, size = str(Path(folder) / "hull.db"), 2 * len(sites)
        prepared = PrepareDB(file, population_size=size)
        for element in system.elements:
            atoms = decorated([element] * len(sites))
            set_raw_score(atoms, 0.0)
            atoms.calc = SinglePointCalculator(atoms, energy=0.0)
            prepared.add_relaxed_candidate(atoms, atoms_string="".join(atoms.symbols))
        for _ in range(size - len(system.elements)):
            symbols = rng.choice(system.elements, len(sites), p=_mixed(rng)).tolist()
            prepared.add_unrelaxed_candidate(decorated(symbols), atoms_string="".join(symbols))
        database = DataConnection(file)
        while database.get_number_of_unrelaxed_candidates() and relax.done < relaxations:
            atoms = database.get_an_unrelaxed_candidate()
            atoms.info.setdefault("key_value_pairs", {})
            evaluate(atoms)
            database.add_relaxed_step(atoms)
        operators = OperationSelector(
            [3, 1, 1],
            [
                CutSpliceSlabCrossover(rng=rng),
                RandomSlabPermutation(rng=rng),
                RandomCompositionMutation(rng=rng),
            ],
            rng=rng,
        )
        population = RankFitnessPopulation(database, size, variable_function=lambda one: one.get_chemical_formula())
        population.update()
        while relax.done < relaxations:
            child, _ = operators.get_new_individual(population.get_two_candidates())
            if child is None:  # these parents have no child of the operator that was drawn
                continue
            child = _at_vegard(child, decorated)
            evaluate(child)
            database.add_relaxed_candidate(child)
            population.update()
    return relax


def _mixed(rng: np.random.RandomState) -> tuple[float, float]:
    """Return fractions of both elements, so that the start holds all compositions."""
    fraction = rng.random_sample()
    return fraction, 1 - fraction


def _at_vegard(child: Atoms, decorated: Callable[[list[str]], Atoms]) -> Atoms:
    """Return a child on the sites of its own lattice constant, with what the database says of it."""
    atoms = decorated(child.get_chemical_symbols())
    atoms.info = child.info
    return atoms
