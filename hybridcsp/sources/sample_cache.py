"""Read and write the file of the samples of one batch, so that a resumed search does not make them again."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path

import ase.io
from ase import Atoms

from hybridcsp.errors import ArchiveError, GeneratorError
from hybridcsp.generators.selection import SelectedSample, Selection
from hybridcsp.similarity import compute_descriptors
from hybridcsp.utils.files import atomic_write
from hybridcsp.utils.reading import read_text


def write(selection: Selection, file: Path) -> None:
    """Write the usable samples of a batch as extended XYZ.

    Raises
    ------
    GeneratorError
        If every sample was rejected.
    """
    frames = []
    for chosen in selection.chosen:
        atoms = chosen.atoms.copy()
        atoms.info = {"units": chosen.units, "spacegroup": chosen.spacegroup}
        if chosen.log_likelihood is not None:
            atoms.info["log_likelihood"] = chosen.log_likelihood
        frames.append(atoms)
    if not frames:
        reasons = ", ".join(f"{count} {reason}" for reason, count in selection.rejects.most_common())
        raise GeneratorError(f"every sample was rejected: {reasons}")
    frames[0].info["rejects"] = dict(selection.rejects)
    with atomic_write(file) as stream:
        ase.io.write(stream, frames, format="extxyz")


def read(file: Path) -> Selection:
    """Read the samples that :func:`write` wrote.

    Raises
    ------
    ArchiveError
        If the file is damaged.
    """
    try:
        frames = ase.io.read(io.StringIO(read_text(file)), ":", format="extxyz")
        return Selection(
            chosen=tuple(map(_to_sample, frames)), rejects=Counter(dict(frames[0].info.get("rejects", {})))
        )
    except Exception as error:  # ASE's reader raises anything for a damaged file
        raise ArchiveError(
            f"{file} is damaged ({type(error).__name__}: {error}); delete it, and its samples are made again"
        ) from error


def _to_sample(found: Atoms) -> SelectedSample:
    atoms = Atoms(found.numbers, positions=found.positions, cell=found.cell, pbc=True)
    return SelectedSample(
        atoms=atoms,
        units=int(found.info["units"]),
        spacegroup=int(found.info["spacegroup"]),
        described=compute_descriptors(atoms),
        log_likelihood=found.info.get("log_likelihood"),
    )
