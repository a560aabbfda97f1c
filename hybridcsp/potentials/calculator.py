"""ASE calculator of a committee of potentials: means of energy, forces and stress, and their spread."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes

from hybridcsp.errors import CalculatorError, InputError
from hybridcsp.potentials.committee import Committee
from hybridcsp.relaxation.calculators.models import split_committee
from hybridcsp.relaxation.calculators.server.exceptions import OptionError
from hybridcsp.relaxation.calculators.server.identity import digest_of_file
from hybridcsp.training.weights_io import WEIGHTS

#: Beginning of the message of :class:`UncertainError`, by which such failures are recognised in an archive.
UNCERTAIN = "the committee is uncertain"

# A structure is uncertain only if the uncertainty of its forces exceeds this share of the forces themselves: far from a
# minimum, forces are large, and errors in proportion do not mislead a relaxation.
_SHARE = 0.5


class UncertainError(RuntimeError):
    """The uncertainty of the forces on a structure is above the limit."""


class CommitteeCalculator(Calculator):
    """Calculator of a committee.

    In addition to the usual results, those hold ``energy_spread`` (eV), the standard deviation over the members, and
    ``forces_spread`` (eV/Å, shape ``(n_atoms,)``), that of a component of the force on each atom.

    Parameters
    ----------
    committee
        Trained committee.
    limit
        Largest uncertainty of forces in eV/Å: the calibrated standard deviation of a component, root mean square over
        the atoms. :class:`UncertainError` is raised above it, unless it is below half of the root mean square of the
        force components. ``None`` for no limit.
    """

    implemented_properties = ("energy", "free_energy", "forces", "stress")

    def __init__(self, committee: Committee, limit: float | None = None) -> None:
        super().__init__()
        self._committee = committee
        self._limit = limit

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: list[str] | None = None,
        system_changes: list[str] = all_changes,
    ) -> None:
        """Calculate all properties at once.

        Raises
        ------
        UncertainError
            If the uncertainty is above the limit.
        ValueError, IsolatedAtomsError
            As in :meth:`~hybridcsp.potentials.committee.Committee.predict`.
        """
        super().calculate(atoms, properties, system_changes)
        found = self._committee.predict(self.atoms)
        energy = float(found.energies.mean())
        spread = found.force_spread
        self.results = {
            "energy": energy,
            "free_energy": energy,
            "forces": found.forces.mean(axis=0),
            "stress": found.stresses.mean(axis=0),
            "energy_spread": found.energy_spread,
            "forces_spread": spread,
        }
        if self._limit is None:
            return
        uncertainty = force_uncertainty(self._committee, spread)
        size = float(np.sqrt(np.mean(self.results["forces"] ** 2)))
        if uncertainty > max(self._limit, _SHARE * size):
            self.results = {}
            raise UncertainError(f"{UNCERTAIN}: {uncertainty:.3g} eV/Å is above {self._limit:g} eV/Å")


def force_uncertainty(committee: Committee, spread: np.ndarray) -> float:
    """Return the standard deviation of force components in eV/Å, root mean square over the atoms.

    Parameters
    ----------
    committee
        Committee, whose calibration is used if it has one.
    spread
        Spread of the forces on each atom, shape ``(n_atoms,)``.
    """
    calibration = committee.calibration
    deviations = spread if calibration is None else calibration.standard_deviation(spread)
    return float(np.sqrt(np.mean(np.square(deviations))))


def build_committee(
    argument: str | None = None, *, device: str | None = None, precision: str | None = None
) -> tuple[Calculator, str]:
    """Build the calculator of a committee.

    Parameters
    ----------
    argument
        ``FOLDER`` or ``FOLDER:LIMIT``, with the limit of :class:`CommitteeCalculator` in eV/Å.
    device, precision
        The CPU and double precision are the only ones.

    Returns
    -------
    tuple of Calculator and str
        The calculator and its label, which contains the beginning of the hash of the weights.

    Raises
    ------
    CalculatorError
        If the folder holds no committee, or MACE is not installed.
    OptionError
        For another device or precision.
    """
    if device not in (None, "cpu"):
        raise OptionError("device", device, "a committee computes on the CPU only; leave it out")
    if precision not in (None, "float64"):
        raise OptionError("precision", precision, "a committee computes in float64 only; leave it out")
    folder, limit = split_committee(argument)
    torch.set_num_threads(1)
    try:
        committee = Committee.load(folder)
    except InputError as error:
        raise CalculatorError(f"committee:{argument}: {error}") from error
    digest = digest_of_file(Path(folder) / WEIGHTS)
    label = f"committee {folder.name} (mace-torch {version('mace-torch')}, weights={digest})"
    return CommitteeCalculator(committee, limit), label
