"""Reading of crystals with their properties, and of libraries of templates for element substitution."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from hybridcsp.datasets.cards import input_record, read_card
from hybridcsp.errors import InputError
from hybridcsp.io.frames import Frame, ReadFailure
from hybridcsp.prototypes.library import TEMPLATE, Template, aflow, as_template
from hybridcsp.training.files import training_files

#: Number of failures of one file that are kept in full.
_KEPT_FAILURES = 20

#: Keys of ``info`` that readers and calculators use for themselves.
_NOT_PROPERTIES = ("occupancy", "spacegroup_kinds", "unit_cell")


@dataclass(kw_only=True, eq=False)
class Crystals:
    """Crystals read from files, with the account of what was read.

    Attributes
    ----------
    atoms
        Crystals in the order of the files, with their properties in ``info``.
    origins
        File and frame of each crystal.
    inputs
        Name, hash, number of crystals and card of each file.
    left_out
        Numbers of frames that are not among the crystals, by reason.
    failures
        The first frames that could not be read.
    """

    atoms: list[Atoms] = field(default_factory=list)
    origins: list[str] = field(default_factory=list)
    inputs: list[dict[str, Any]] = field(default_factory=list)
    left_out: Counter[str] = field(default_factory=Counter)
    failures: list[ReadFailure] = field(default_factory=list)

    def __len__(self) -> int:
        """Return the number of crystals."""
        return len(self.atoms)


def read_crystals(
    paths: Iterable[Path], *, key: str = "data", progress: Callable[[int], None] = lambda _: None
) -> Crystals:
    """Read the crystals of files with all their properties; frames that cannot be read are counted.

    Parameters
    ----------
    paths
        Structure files, folders of them, or folders of :func:`~hybridcsp.datasets.relaxation.relax_crystals`, whose
        converged crystals are read. Tables (``.csv``) with a column of CIFs and JSON files carry properties, too.
        Pickles are never read.
    key
        Name of the option for error messages.
    progress
        Called with the number of frames read so far.

    Raises
    ------
    InputError
        If a path does not exist, a whole file cannot be read, or there is no crystal.
    """
    found = Crystals()
    names = []
    for file, frames, record in training_files(paths, key=key, progress=progress):
        names.append(str(file))
        before = len(found)
        for frame in frames:
            _add(found, frame)
        found.inputs.append(input_record(record, len(found) - before, read_card(file)))
    if not found.atoms:
        reasons = "; ".join(f"{n} times: {reason}" for reason, n in found.left_out.items())
        raise InputError(key, ", ".join(names) or "no path", reason=f"there is no crystal ({reasons or 'no files'})")
    return found


def aflow_templates() -> list[Template]:
    """Return the AFLOW prototypes in pymatgen's data as templates."""
    known = aflow()
    return [template for stoichiometry in known.stoichiometries for template in known.matching(stoichiometry)]


def templates_of(crystals: Crystals) -> list[Template]:
    """Return crystals as templates; those in which spglib finds no symmetry are counted as left out."""
    templates = []
    for origin, atoms in zip(crystals.origins, crystals.atoms, strict=True):
        template = as_template(origin, TEMPLATE, atoms)
        if template is None:
            crystals.left_out["no symmetry found"] += 1
        else:
            templates.append(template)
    return templates


def _add(found: Crystals, frame: Frame | ReadFailure) -> None:
    if isinstance(frame, ReadFailure):
        found.left_out[f"not readable: {frame.reason.partition(':')[0]}"] += 1
        if len(found.failures) < _KEPT_FAILURES:
            found.failures.append(frame)
        return
    frame.atoms.info = {
        key: value.item() if isinstance(value, np.generic) else value
        for key, value in frame.atoms.info.items()
        if key not in _NOT_PROPERTIES
    }
    found.atoms.append(frame.atoms)
    found.origins.append(f"{frame.file.name}, frame {frame.number}")
