"""Convert phases of a chemical system to entries of pymatgen, from which it computes phase diagrams."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hybridcsp.analysis.phases import Phase, Phases
from hybridcsp.core.minimum import Minimum
from hybridcsp.structure.conversion import to_pymatgen
from hybridcsp.utils.files import atomic_write, make_folder

if TYPE_CHECKING:
    from pymatgen.entries.computed_entries import ComputedStructureEntry


def entries_of(selected: Sequence[Phase], minima: Sequence[Minimum], phases: Phases) -> list[ComputedStructureEntry]:
    """Return phases as entries whose energies are enthalpies at the pressure of the search.

    Entries have no corrections. Those of another calculator or of a data base must not be mixed with them.

    Parameters
    ----------
    selected
        The phases.
    minima
        Their minima, in the same order.
    phases
        All phases of the search.
    """
    from pymatgen.entries.computed_entries import ComputedStructureEntry

    entries = []
    for phase, minimum in zip(selected, minima, strict=True):
        atoms = minimum.best.atoms
        data = {
            "formula": phase.formula,
            "spacegroup": minimum.spacegroup,
            "above_hull_ev_per_atom": phases.height(phase),
            "formation_enthalpy_ev_per_atom": phases.formation(phase),
            "known_phase": phase.known,
            "source": phase.source,
            "operator": phase.operator,
            "relaxation": phase.relaxation,
            "energy_ev": float(minimum.best.evaluation.energy),
            "pressure_gpa": phases.pressure_gpa,
        }
        entries.append(
            ComputedStructureEntry(
                to_pymatgen(atoms),
                phase.enthalpy_per_atom * len(atoms),
                parameters={"calculator": phases.calculator},
                data=data,
                entry_id=f"minimum-{phase.id}",
            )
        )
    return entries


def write_entries(
    selected: Sequence[Phase], minima: Sequence[Minimum], phases: Phases, output: Path, key: str = "entries"
) -> None:
    """Write phases as a JSON list of entries of pymatgen, which ``monty.serialization.loadfn`` reads.

    Raises
    ------
    InputError
        If the file cannot be written.
    """
    text = json.dumps([entry.as_dict() for entry in entries_of(selected, minima, phases)])
    make_folder(output.parent, key=key)
    with atomic_write(output, key=key, follow=True) as stream:
        stream.write(text + "\n")
