"""Samples of a generator in a file: those of a program are not made again when a search is taken up."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import ase.io
from ase import Atoms

from hybridcsp.errors import GeneratorError
from hybridcsp.sampling import Chosen, Selection
from hybridcsp.similarity import describe
from hybridcsp.utils.files import atomic_write


def write(selection: Selection, file: Path) -> None:
    """Keep what is left of the answers to one batch.

    Raises
    ------
    GeneratorError
        If nothing is: then there is no use in keeping it.
    """
    frames = []
    for chosen in selection.chosen:
        atoms = chosen.atoms.copy()
        atoms.info = {"units": chosen.units, "spacegroup": chosen.spacegroup}
        if chosen.log_likelihood is not None:
            atoms.info["log_likelihood"] = chosen.log_likelihood
        frames.append(atoms)
    if not frames:
        came = ", ".join(f"{count} {reason}" for reason, count in selection.rejects.most_common())
        raise GeneratorError(f"nothing that came back can be used: {came}")
    frames[0].info["rejects"] = dict(selection.rejects)
    with atomic_write(file) as stream:
        ase.io.write(stream, frames, format="extxyz")


def read(file: Path) -> Selection:
    """Return what was kept."""
    frames = ase.io.read(file, ":")
    assert isinstance(frames, list)
    chosen = []
    for found in frames:
        atoms = Atoms(found.numbers, positions=found.positions, cell=found.cell, pbc=True)
        chosen.append(
            Chosen(
                atoms=atoms,
                units=int(found.info["units"]),
                spacegroup=int(found.info["spacegroup"]),
                described=describe(atoms),
                log_likelihood=found.info.get("log_likelihood"),
            )
        )
    return Selection(chosen=tuple(chosen), rejects=Counter(frames[0].info.get("rejects", {})))
