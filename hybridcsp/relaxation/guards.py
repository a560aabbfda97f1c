"""The calculator of one job: it counts, keeps the limits, and ends what is hopeless."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator, Calculator, PropertyNotImplementedError
from ase.data import covalent_radii
from numpy.typing import NDArray

from hybridcsp.core.records import FailureReason, Limits
from hybridcsp.errors import message_of
from hybridcsp.relaxation.calculators.registry import IsolatedAtomsError
from hybridcsp.relaxation.properties import NotFiniteError, WrongKindError, real_array, real_number
from hybridcsp.structure.validity import has_finite_geometry
from hybridcsp.utils.activity import report_step

_IMAGES = np.array([(i, j, k) for i in (-1, 0, 1) for j in (-1, 0, 1) for k in (-1, 0, 1)], dtype=float)
_HOME = 13  # the row of _IMAGES that is no translation; those after it are the reverse of those before it
_UNTOUCHED = 1e-4  # Å: codes that write a structure to a file and read it again round it
_ISOLATION_FLOOR = 6.0  # Å: noble gases have small radii and distant neighbours


class Ended(Exception):
    """A job is over before its relaxation is; ``reason`` is ``None`` where it only ran out of force calls."""

    def __init__(self, reason: FailureReason | None, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """What makes a relaxation hopeless; see :class:`~hybridcsp.relaxation.relax.RelaxationSettings`."""

    max_volume_factor: float
    max_volume_per_atom: float
    min_volume_per_atom: float
    max_force: float
    min_distance_fraction: float
    isolation_fraction: float


class GuardedCalculator(BaseCalculator):  # type: ignore[misc]
    """Hands structures to the real calculator once, and looks at each before and at its results after.

    Parameters
    ----------
    calculator
        The real one.
    atoms
        The structure as the job starts; volumes and forces are compared with it.
    limits, thresholds
        When to end.
    pressure
        In eV/Å³.
    """

    implemented_properties = ("energy", "free_energy", "forces", "stress", "magmoms", "charges")

    def __init__(
        self, calculator: Calculator, atoms: Atoms, limits: Limits, thresholds: Thresholds, pressure: float
    ) -> None:
        super().__init__()
        self.calculator = calculator
        self.force_calls = 0
        self.pressure = pressure
        self.results: dict[str, Any] = {}
        self._limits = limits
        self._thresholds = thresholds
        self._evaluated: tuple[bytes, bytes] | None = None  # the geometry that the results belong to
        self._start = time.perf_counter()
        self._start_volume = _volume(atoms)
        self._start_force = 0.0
        self._radii = covalent_radii[atoms.numbers][:, None] + covalent_radii[atoms.numbers]

    @property
    def seconds(self) -> float:
        """Wall time since the job began."""
        return time.perf_counter() - self._start

    @property
    def max_force(self) -> float | None:
        """Largest force on an atom in eV/Å, ``None`` where the calculator gave none."""
        forces = self.results.get("forces")
        return None if forces is None else float(np.sqrt((forces**2).sum(axis=1).max()))

    @property
    def max_stress_residual(self) -> float | None:
        """Largest component of the stress plus the pressure in eV/Å³, ``None`` where the calculator gave no stress."""
        stress = self.results.get("stress")
        if stress is None:
            return None
        return float(max(np.abs(stress[:3] + self.pressure).max(), np.abs(stress[3:]).max()))

    def get_property(self, name: str, atoms: Atoms | None = None, allow_calculation: bool = True) -> Any:
        """Return a property of a structure; everything is calculated together, once.

        Raises
        ------
        Ended
            If a limit is reached or a guard has seen enough.
        """
        if atoms is not None and _geometry(atoms) != self._evaluated:
            if not allow_calculation:
                return None
            self.calculate(atoms)
        if name not in self.results:
            raise PropertyNotImplementedError(f"{type(self.calculator).__name__} returned no {name}")
        value = self.results[name]
        return value.copy() if isinstance(value, np.ndarray) else value

    def restore(self, atoms: Atoms) -> bool:
        """Put atoms back where they were when the results were calculated; return whether there are results at all."""
        if self._evaluated is None:
            return False
        positions, cell = (np.frombuffer(part).reshape(-1, 3) for part in self._evaluated)
        atoms.set_cell(cell)
        atoms.positions[:] = positions
        return True

    def calculate(
        self, atoms: Atoms, properties: list[str] | None = None, system_changes: list[str] | None = None
    ) -> None:
        """Calculate everything for a structure; raises :class:`Ended` like :meth:`get_property`."""
        if self.force_calls >= max(1, self._limits.force_calls):
            raise Ended(None, "force-call limit")
        if self.seconds > self._limits.seconds:
            raise Ended(FailureReason.TIME_LIMIT, f"more than {self._limits.seconds:g} s")
        self._check_structure(atoms)
        self.force_calls += 1
        try:
            results = self._ask(atoms)
        except IsolatedAtomsError as error:
            raise Ended(FailureReason.ISOLATED_ATOMS, str(error)) from error
        except MemoryError as error:
            raise Ended(FailureReason.MEMORY_LIMIT, f"MemoryError: {error}") from error
        except NotFiniteError as error:
            raise Ended(FailureReason.NON_FINITE, str(error)) from error
        except WrongKindError as error:
            raise Ended(FailureReason.WRONG_RESULTS, str(error)) from error
        except Exception as error:  # a calculator may fail in any way, and no failure of one may end a search
            raise Ended(FailureReason.CALCULATOR, message_of(error)) from error
        if "forces" in results:
            self._check_forces(results["forces"])
        self.results = results
        self._evaluated = _geometry(atoms)
        report_step(self.force_calls, (results["energy"] + self.pressure * _volume(atoms)) / len(atoms))

    def _ask(self, atoms: Atoms) -> dict[str, Any]:
        """Return what the calculator gives of what a relaxation needs, checked; only the energy it must give."""
        given = atoms.copy()  # a calculator that moves or replaces atoms does not get hold of those of the relaxation
        results: dict[str, Any] = {}
        known: Mapping[str, Any] = {}
        for name in ("forces", "stress", "energy", "free_energy", "magmoms", "charges"):
            if name in ("free_energy", "magmoms") and name not in self.calculator.implemented_properties:
                continue
            if name == "charges" and name not in known:  # nothing here needs them
                continue
            try:
                value = known[name] if name in known else self.calculator.get_property(name, given)
            except PropertyNotImplementedError:
                if name == "energy":
                    raise
                continue
            _check_untouched(atoms, given)
            # to ask for each property costs a comparison of structures; from here on the results are of this one
            held = getattr(self.calculator, "results", None)
            known = held if isinstance(held, Mapping) else {}
            if name == "energy" or (name == "free_energy" and value is not None):
                results[name] = real_number(name, value, len(atoms))
            elif value is not None:
                results[name] = real_array(name, value, len(atoms))
        results.setdefault("free_energy", results["energy"])
        return results

    def _check_structure(self, atoms: Atoms) -> None:
        limits = self._thresholds
        volume = _volume(atoms)
        if not has_finite_geometry(atoms):
            raise Ended(FailureReason.NON_FINITE, "positions or cell are not finite")
        per_atom = volume / len(atoms)
        if not limits.min_volume_per_atom <= per_atom <= limits.max_volume_per_atom:
            raise Ended(FailureReason.VOLUME, f"{per_atom:.3g} Å³ per atom")
        if volume > limits.max_volume_factor * self._start_volume:
            raise Ended(FailureReason.VOLUME, f"{volume / self._start_volume:.2f} times the volume at the start")
        nearest = nearest_distances(atoms.cell.array, atoms.positions)
        fraction = nearest / self._radii
        if fraction.min() < limits.min_distance_fraction:
            i, j = np.unravel_index(int(fraction.argmin()), fraction.shape)
            raise Ended(FailureReason.OVERLAP, f"{atoms.symbols[i]} and {atoms.symbols[j]} at {nearest[i, j]:.2f} Å")
        reach = max(_ISOLATION_FLOOR, float(limits.isolation_fraction * self._radii.max()))
        if nearest.min(axis=1).max() > reach:
            from ase.neighborlist import neighbor_list  # brings scipy along

            lonely = len(atoms) - len(np.unique(neighbor_list("i", atoms, reach)))  # exact, in flat cells too
            if lonely:
                raise Ended(
                    FailureReason.ISOLATED_ATOMS, f"{lonely} of {len(atoms)} atoms have none within {reach:.1f} Å"
                )

    def _check_forces(self, forces: NDArray[np.float64]) -> None:
        largest = float(np.abs(forces).max())
        if self.force_calls == 1:
            self._start_force = largest
        if largest > max(self._thresholds.max_force, self._start_force):
            raise Ended(FailureReason.FORCE_EXPLOSION, f"a force of {largest:.3g} eV/Å")


def _check_untouched(atoms: Atoms, given: Atoms) -> None:
    """Make sure that results belong to the structure that was asked about.

    Raises
    ------
    WrongKindError
        If the calculator has changed the structure it was given, by more than rounding and lattice vectors.
    """
    if len(given) != len(atoms):
        what = f"it has {len(given)} atoms now, not {len(atoms)}"
    elif (given.numbers != atoms.numbers).any():
        what = f"its atoms are {given.symbols} now, not {atoms.symbols}"
    elif (given.pbc != atoms.pbc).any():
        what = "its periodicity is another one now"
    elif not (strained := float(np.abs(given.cell.array - atoms.cell.array).max())) <= _UNTOUCHED:
        what = f"its cell was changed by {strained:.2g} Å"
    elif not (moved := _largest_move(atoms, given)) <= _UNTOUCHED:
        what = f"its atoms were moved by {moved:.2g} Å"
    else:
        return
    raise WrongKindError(
        f"the calculator changed the structure it was given: {what}. It has to evaluate a structure as it is, without "
        "an optimiser of its own (in VASP: NSW = 0)"
    )


def _largest_move(atoms: Atoms, given: Atoms) -> float:
    steps = given.positions - atoms.positions
    if not steps.any():
        return 0.0
    fractional = steps @ np.linalg.inv(atoms.cell.array)
    return float(np.abs((fractional - np.rint(fractional)) @ atoms.cell.array).max())


def nearest_distances(cell: NDArray[Any], positions: NDArray[Any]) -> NDArray[np.float64]:
    """Return the distance of each atom to the nearest image of each other atom, and of itself.

    Exact where the result is below 1.5 times the smallest height of the cell; never too small.

    Parameters
    ----------
    cell
        Lattice vectors in rows, shape ``(3, 3)``.
    positions
        Cartesian, shape ``(n_atoms, 3)``.

    Returns
    -------
    ndarray
        Shape ``(n_atoms, n_atoms)``.
    """
    first, second = _pairs(len(positions))
    difference = (positions[second] - positions[first]) @ np.linalg.inv(cell)
    difference -= np.rint(difference)
    images = _IMAGES @ cell
    vectors = (difference @ cell)[:, None, :] + images
    squared = np.einsum("ijk,ijk->ij", vectors, vectors).min(axis=1)
    own = np.einsum("ij,ij->i", images[:_HOME], images[:_HOME]).min()
    distances = np.full((len(positions), len(positions)), np.sqrt(own))
    distances[first, second] = distances[second, first] = np.sqrt(squared)
    return distances


@cache
def _pairs(n_atoms: int) -> tuple[NDArray[Any], NDArray[Any]]:
    first, second = np.triu_indices(n_atoms, 1)
    return first, second


def _volume(atoms: Atoms) -> float:
    return float(abs(np.linalg.det(atoms.cell.array)))


def _geometry(atoms: Atoms) -> tuple[bytes, bytes]:
    """Positions and cell to the last bit, in the form that compares fastest."""
    return atoms.positions.tobytes(), atoms.cell.array.tobytes()
