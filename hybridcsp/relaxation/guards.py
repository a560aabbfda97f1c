"""Calculator of one job that counts force calls, enforces limits, and ends relaxations that cannot succeed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import BaseCalculator, Calculator, PropertyNotImplementedError
from ase.data import covalent_radii
from numpy.typing import NDArray

from hybridcsp.core.outcomes import FailureReason
from hybridcsp.core.records import Limits
from hybridcsp.errors import message_of
from hybridcsp.relaxation.calculators.jobs import OwnRelaxation, Target, TimeUsedUpError
from hybridcsp.relaxation.calculators.server.exceptions import IsolatedAtomsError
from hybridcsp.relaxation.calculators.server_process import ServerLostError
from hybridcsp.relaxation.calculators.stand_in import class_name_of
from hybridcsp.relaxation.minimum_images import minimum_image_distances
from hybridcsp.relaxation.properties import NotFiniteError, WrongKindError, real_array, real_number
from hybridcsp.relaxation.settings import RelaxationSettings
from hybridcsp.structure.validity import has_finite_geometry
from hybridcsp.utils.activity import report_step

# Differences below this length (Å) are rounding: some codes write a structure to a file and read it again.
_ROUNDING = 1e-4

# Atoms are never isolated while a neighbour is within this distance (Å): noble gases have small covalent radii and
# distant neighbours.
_MIN_ISOLATION_DISTANCE = 6.0


class JobEnded(Exception):
    """Signal that a job ends before its relaxation has converged.

    Attributes
    ----------
    reason
        Reason of the failure; ``None`` if only the force calls of the job are used up, which is not a failure.
    detail
        Explanation for the record of the outcome.
    """

    def __init__(self, reason: FailureReason | None, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluated:
    """A structure that was evaluated, with its results.

    Attributes
    ----------
    geometry
        Positions and cell as bytes.
    results
        Results of the calculator.
    pressure
        External pressure in eV/Å³.
    """

    geometry: tuple[bytes, bytes]
    results: dict[str, Any]
    pressure: float

    @property
    def enthalpy_per_atom(self) -> float:
        """Enthalpy in eV/atom."""
        positions, cell = (np.frombuffer(part).reshape(-1, 3) for part in self.geometry)
        volume = abs(float(np.linalg.det(cell)))
        return float(self.results["energy"] + self.pressure * volume) / len(positions)


class GuardedCalculator(BaseCalculator):  # type: ignore[misc]
    """Calculator that passes each structure to another calculator once, and checks the structure and its results.

    Parameters
    ----------
    calculator
        The calculator that evaluates the structures.
    atoms
        The structure at the start of the job; later volumes and forces are compared with it.
    limits
        Force calls and seconds of the job.
    settings
        Pressure, and the limits at which a relaxation is given up.
    on_evaluation
        Function that is called with each structure that was evaluated and its checked results.
    clock
        Returns the time in s that the job has taken, from any start.

    Attributes
    ----------
    force_calls
        Number of evaluations so far.
    pressure
        External pressure in eV/Å³.
    results
        Checked results of the last evaluation.
    """

    implemented_properties = ("energy", "free_energy", "forces", "stress", "magmoms", "charges")

    def __init__(
        self,
        calculator: Calculator,
        atoms: Atoms,
        limits: Limits,
        settings: RelaxationSettings,
        on_evaluation: Callable[[Atoms, dict[str, Any]], None] | None = None,
        *,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        super().__init__()
        self.calculator = calculator
        self.force_calls = 0
        self.pressure = settings.pressure
        self.results: dict[str, Any] = {}
        self._limits = limits
        self._on_evaluation = on_evaluation
        self._settings = settings
        self._evaluated: tuple[bytes, bytes] | None = None  # geometry of the results
        self._owed = False  # whether a structure that was moved elsewhere must still be evaluated
        self._clock, self._start = clock, clock()
        self._start_volume = _volume(atoms)
        self._start_force = 0.0
        self._radii = covalent_radii[atoms.numbers][:, None] + covalent_radii[atoms.numbers]

    @property
    def settings(self) -> RelaxationSettings:
        """Pressure, convergence criteria and limits of the job."""
        return self._settings

    @property
    def seconds(self) -> float:
        """Time since the start of the job in s."""
        return self._clock() - self._start

    @property
    def max_force(self) -> float | None:
        """Largest force on an atom in eV/Å; ``None`` if the calculator provides no forces."""
        forces = self.results.get("forces")
        return None if forces is None else float(np.sqrt((forces**2).sum(axis=1).max()))

    @property
    def max_stress_residual(self) -> float | None:
        """Largest component of the stress plus the pressure in eV/Å³; ``None`` if the calculator provides no stress."""
        stress = self.results.get("stress")
        if stress is None:
            return None
        return float(max(np.abs(stress[:3] + self.pressure).max(), np.abs(stress[3:]).max()))

    def get_property(self, name: str, atoms: Atoms | None = None, allow_calculation: bool = True) -> Any:
        """Return a property of a structure; all properties are calculated together, once.

        Raises
        ------
        JobEnded
            If a limit is reached, a check fails, or the calculator fails.
        PropertyNotImplementedError
            If the calculator does not provide the property.
        """
        if atoms is not None and _geometry(atoms) != self._evaluated:
            if not allow_calculation:
                return None
            self.calculate(atoms)
        if name not in self.results:
            raise PropertyNotImplementedError(f"{class_name_of(self.calculator)} returned no {name}")
        value = self.results[name]
        return value.copy() if isinstance(value, np.ndarray) else value

    def evaluated(self) -> Evaluated:
        """Return the last structure that was evaluated, to which :meth:`return_to` leads back."""
        assert self._evaluated is not None, "a structure was evaluated"
        return Evaluated(geometry=self._evaluated, results=self.results, pressure=self.pressure)

    def return_to(self, evaluated: Evaluated, atoms: Atoms) -> None:
        """Move atoms to a structure that was evaluated, and take its results back."""
        self._evaluated, self.results = evaluated.geometry, evaluated.results
        self.restore(atoms)

    def restore(self, atoms: Atoms) -> bool:
        """Move atoms to the geometry of the results; return whether there are any results."""
        if self._evaluated is None:
            return False
        positions, cell = (np.frombuffer(part).reshape(-1, 3) for part in self._evaluated)
        atoms.set_cell(cell)
        atoms.positions[:] = positions
        return True

    def calculate(
        self, atoms: Atoms, properties: list[str] | None = None, system_changes: list[str] | None = None
    ) -> None:
        """Calculate all properties of a structure; errors as in :meth:`get_property`."""
        if self.force_calls >= max(1, self._limits.force_calls) and not self._owed:
            raise JobEnded(None, "force-call limit")
        if self.seconds > self._limits.seconds:
            raise JobEnded(FailureReason.TIME_LIMIT, f"more than {self._limits.seconds:g} s")
        self._check_structure(atoms)
        self.force_calls += 1
        self._owed = False
        with _errors_as_ends():
            results = self._evaluate(atoms)
        if self._on_evaluation is not None:
            self._on_evaluation(atoms, results)
        if "forces" in results:
            self._check_forces(results["forces"])
        self.results = results
        self._evaluated = _geometry(atoms)
        report_step(self.force_calls, (results["energy"] + self.pressure * _volume(atoms)) / len(atoms))

    def relax_with(self, own: OwnRelaxation, atoms: Atoms, target: Target) -> None:
        """Have a code relax a structure by itself; its steps count as force calls. Errors as in :meth:`get_property`.

        The end must be evaluated afterwards, whereby it is checked as any other structure.
        """
        self._check_structure(atoms)
        with _errors_as_ends():
            self.count(own.relax(atoms, target))

    def count(self, calls: int) -> None:
        """Add force calls that were made elsewhere; whatever their number, one more is allowed to evaluate the end."""
        self.force_calls += calls
        self._owed = True

    @property
    def left(self) -> Limits:
        """Limits of what remains of the job."""
        calls = max(1, self._limits.force_calls - self.force_calls)
        return replace(self._limits, force_calls=calls, seconds=max(0.0, self._limits.seconds - self.seconds))

    def _evaluate(self, atoms: Atoms) -> dict[str, Any]:
        """Return the checked results of the calculator; only the energy is required."""
        given = atoms.copy()  # so that a calculator that changes its atoms does not change those of the relaxation
        results: dict[str, Any] = {}
        known: Mapping[str, Any] = {}
        for name in ("forces", "stress", "energy", "free_energy", "magmoms", "charges"):
            if name in ("free_energy", "magmoms") and name not in self.calculator.implemented_properties:
                continue
            if name == "charges" and name not in known:  # charges are kept only if they come for free
                continue
            try:
                value = known[name] if name in known else self.calculator.get_property(name, given)
            except PropertyNotImplementedError:
                if name == "energy":
                    raise
                continue
            _check_untouched(atoms, given)
            # Each call of get_property compares structures; from here on the results belong to this structure.
            results_of_calculator = getattr(self.calculator, "results", None)
            known = results_of_calculator if isinstance(results_of_calculator, Mapping) else {}
            if name == "energy" or (name == "free_energy" and value is not None):
                results[name] = real_number(name, value, len(atoms))
            elif value is not None:
                results[name] = real_array(name, value, len(atoms))
        results.setdefault("free_energy", results["energy"])
        return results

    def _check_structure(self, atoms: Atoms) -> None:
        limits = self._settings
        volume = _volume(atoms)
        if not has_finite_geometry(atoms):
            raise JobEnded(FailureReason.NON_FINITE, "positions or cell are not finite")
        per_atom = volume / len(atoms)
        if not limits.min_volume_per_atom <= per_atom <= limits.max_volume_per_atom:
            raise JobEnded(FailureReason.VOLUME, f"{per_atom:.3g} Å³ per atom")
        if volume > limits.max_volume_factor * self._start_volume:
            raise JobEnded(FailureReason.VOLUME, f"{volume / self._start_volume:.2f} times the volume at the start")
        nearest = minimum_image_distances(atoms.cell.array, atoms.positions)
        fraction = nearest / self._radii
        if fraction.min() < limits.min_distance_fraction:
            i, j = np.unravel_index(int(fraction.argmin()), fraction.shape)
            raise JobEnded(FailureReason.OVERLAP, f"{atoms.symbols[i]} and {atoms.symbols[j]} at {nearest[i, j]:.2f} Å")
        reach = max(_MIN_ISOLATION_DISTANCE, float(limits.isolation_fraction * self._radii.max()))
        if nearest.min(axis=1).max() > reach:
            from ase.neighborlist import neighbor_list  # imports scipy

            isolated = len(atoms) - len(np.unique(neighbor_list("i", atoms, reach)))  # exact also in flat cells
            if isolated:
                raise JobEnded(
                    FailureReason.ISOLATED_ATOMS,
                    f"{isolated} of {len(atoms)} atoms have no neighbour within {reach:.1f} Å",
                )

    def _check_forces(self, forces: NDArray[np.float64]) -> None:
        largest = float(np.abs(forces).max())
        if self.force_calls == 1:
            self._start_force = largest
        if largest > max(self._settings.force_explosion, self._start_force):
            raise JobEnded(FailureReason.FORCE_EXPLOSION, f"a force of {largest:.3g} eV/Å")


@contextmanager
def _errors_as_ends() -> Iterator[None]:
    """Convert every error of a calculator into the end of the job."""
    try:
        yield
    except IsolatedAtomsError as error:
        raise JobEnded(FailureReason.ISOLATED_ATOMS, str(error)) from error
    except TimeUsedUpError as error:
        raise JobEnded(FailureReason.TIME_LIMIT, str(error)) from error
    except MemoryError as error:
        raise JobEnded(FailureReason.MEMORY_LIMIT, f"MemoryError: {error}") from error
    except ServerLostError as error:
        raise JobEnded(FailureReason.WORKER_DIED, str(error)) from error
    except NotFiniteError as error:
        raise JobEnded(FailureReason.NON_FINITE, str(error)) from error
    except WrongKindError as error:
        raise JobEnded(FailureReason.WRONG_RESULTS, str(error)) from error
    except Exception as error:  # a calculator may raise anything, and none of it may end a search
        raise JobEnded(FailureReason.CALCULATOR, message_of(error)) from error


def _check_untouched(atoms: Atoms, given: Atoms) -> None:
    """Check that a calculator has not changed the structure that it was given.

    Changes by rounding and by lattice vectors are allowed.

    Raises
    ------
    WrongKindError
        If the structure has changed.
    """
    if len(given) != len(atoms):
        change = f"it has {len(given)} atoms now instead of {len(atoms)}"
    elif (given.numbers != atoms.numbers).any():
        change = f"its atoms are {given.symbols} now instead of {atoms.symbols}"
    elif (given.pbc != atoms.pbc).any():
        change = "its periodic directions are different"
    elif not (strained := float(np.abs(given.cell.array - atoms.cell.array).max())) <= _ROUNDING:
        change = f"its cell was changed by {strained:.2g} Å"
    elif not (moved := _largest_move(atoms, given)) <= _ROUNDING:
        change = f"its atoms were moved by {moved:.2g} Å"
    else:
        return
    raise WrongKindError(
        f"the calculator changed the structure that it was given: {change}. It must evaluate a structure as it is, "
        "without an optimiser of its own (in VASP: NSW = 0)"
    )


def _largest_move(atoms: Atoms, given: Atoms) -> float:
    steps = given.positions - atoms.positions
    if not steps.any():
        return 0.0
    fractional = steps @ np.linalg.inv(atoms.cell.array)
    return float(np.abs((fractional - np.rint(fractional)) @ atoms.cell.array).max())


def _volume(atoms: Atoms) -> float:
    return float(abs(np.linalg.det(atoms.cell.array)))


def _geometry(atoms: Atoms) -> tuple[bytes, bytes]:
    """Return positions and cell as bytes, which compare fast and exactly."""
    return atoms.positions.tobytes(), atoms.cell.array.tobytes()
