"""Files of all structures that a job evaluated, with energies, forces and stresses, from which potentials learn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator

from hybridcsp.core.records import Job
from hybridcsp.io.structure_writer import structure_writer

#: Name of the folder of these files in a run directory.
EVALUATIONS = "evaluations"


class JobEvaluations:
    """Structures that one job evaluates, which are written into one extended XYZ file when the job has ended.

    A job that is killed runs again, and so leaves no file but that of its last run.

    Parameters
    ----------
    folder
        Folder of the file, which is made if it does not exist.
    job
        The job. Its candidate, its level and the number of its calculator name the file.
    label
        Label of the calculator, which every structure carries as ``calculator``.
    """

    def __init__(self, folder: Path, job: Job, label: str) -> None:
        self.path = folder / f"{job.candidate.id:06}-{job.level}{job.calculator or ''}.extxyz"
        self._info = {"candidate": job.candidate.id, "level": job.level, "calculator": label}
        self._frames: list[Atoms] = []

    def add(self, atoms: Atoms, results: dict[str, Any]) -> None:
        """Add a structure and the results of its evaluation."""
        frame = Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=True, info=dict(self._info))
        kept = {name: results[name] for name in ("energy", "forces", "stress") if name in results}
        frame.calc = SinglePointCalculator(frame, **kept)
        self._frames.append(frame)

    def write(self) -> None:
        """Write the structures, if there are any."""
        if self._frames:
            with structure_writer(self.path, key="keep_evaluations", follow=False) as write:
                for frame in self._frames:
                    write(frame)
