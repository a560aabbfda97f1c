"""Data sets of the relaxed crystals of searches."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from ase import Atoms

from hybridcsp.archive.archive import Archive
from hybridcsp.core.outcomes import Failed, FollowUpOutcome, Rejected, Relaxed
from hybridcsp.datasets.reading import Crystals
from hybridcsp.errors import InputError
from hybridcsp.io.export import structure_of


def crystals_of_searches(
    directories: Iterable[Path],
    *,
    all_relaxations: bool = False,
    key: str = "directory",
    progress: Callable[[int], None] = lambda _: None,
) -> Crystals:
    """Return the relaxed crystals of searches, with energies by the searches' own calculator.

    Parameters
    ----------
    directories
        Run directories; searches may still be running.
    all_relaxations
        Whether every converged relaxation is a crystal, instead of one crystal for each minimum.
    key
        Name of the argument for error messages.
    progress
        Called with the number of crystals so far.

    Returns
    -------
    Crystals
        In ``info``: ``calculator``, ``enthalpy_per_atom``, ``pressure_gpa``, ``source``, ``operator``, ``candidate``,
        and for minima ``height`` (eV/atom above the best of the search), ``multiplicity``, ``spacegroup`` and, in
        chemical systems, ``e_above_hull``.

    Raises
    ------
    InputError
        If there is no relaxed crystal, or the energies are of several calculators.
    ArchiveError
        If a directory cannot be read.
    """
    found = Crystals()
    calculators: dict[str, str] = {}
    paths = []
    for path in directories:
        paths.append(str(path))
        before = len(found)
        with Archive(path) as archive:
            pressure = (archive.system or archive.problem).pressure_gpa
            add = _add_relaxations if all_relaxations else _add_minima
            add(archive, found, progress)
            record = {
                "name": path.name,
                "search": archive.formula,
                "pressure_gpa": pressure,
                "crystals": len(found) - before,
                "relaxations": archive.state.relaxations,
                "settings": dict(archive.state.settings[-1]) if archive.state.settings else {},
            }
        found.inputs.append(record)
        for atoms in found.atoms[before:]:
            atoms.info["pressure_gpa"] = pressure
            calculators.setdefault(atoms.info["calculator"], str(path))
    if not found.atoms:
        raise InputError(key, ", ".join(paths) or "no path", reason="there is no converged relaxation")
    if len(calculators) > 1:
        listed = "; ".join(f"{label} in {path}" for label, path in calculators.items())
        raise InputError(key, ", ".join(paths), reason=f"energies of different calculators are not mixed: {listed}")
    return found


def _add_minima(archive: Archive, found: Crystals, progress: Callable[[int], None]) -> None:
    best = archive.best_enthalpy_per_atom
    for minimum in archive.stream_minima():
        if minimum.suspect:
            found.left_out["probably a hole of the potential"] += 1
            continue
        atoms = structure_of(minimum)
        if archive.system is None and best is not None:
            atoms.info["height"] = minimum.enthalpy_per_atom - best
        if minimum.above_hull is not None:
            atoms.info["e_above_hull"] = minimum.above_hull
        _add(archive, found, atoms, f"minimum {minimum.id}")
        progress(len(found))
        found.left_out["relaxed to the same minimum as another"] += minimum.multiplicity - 1


def _add_relaxations(archive: Archive, found: Crystals, progress: Callable[[int], None]) -> None:
    relaxed: dict[int, Atoms] = {}  # by candidate, the last of its relaxations
    for outcome in archive.history():
        match outcome:
            case Relaxed() if outcome.captured_by is not None:
                found.left_out["ended early in the basin of a known minimum"] += 1
            case Relaxed() if not outcome.converged:
                found.left_out["unconverged"] += 1
            case Relaxed() if outcome.suspect:
                found.left_out["probably a hole of the potential"] += 1
            case Relaxed():
                atoms = outcome.atoms.copy()
                atoms.calc = outcome.atoms.calc
                atoms.info = {
                    "candidate": outcome.candidate.id,
                    "source": outcome.candidate.source,
                    "operator": outcome.candidate.operator,
                    "calculator": outcome.evaluation.calculator,
                    "enthalpy_per_atom": outcome.enthalpy_per_atom,
                }
                found.left_out["refined further"] += outcome.candidate.id in relaxed
                relaxed[outcome.candidate.id] = atoms
            case Failed():
                found.left_out[str(outcome.reason)] += 1
            case Rejected():
                found.left_out[f"rejected: {outcome.reason}"] += 1
            case FollowUpOutcome():
                found.left_out["relaxed with a follow-up calculator"] += 1
            case _:
                pass
    for candidate, atoms in relaxed.items():
        _add(archive, found, atoms, f"candidate {candidate}")
        progress(len(found))


def _add(archive: Archive, found: Crystals, atoms: Atoms, where: str) -> None:
    info: dict[str, Any] = atoms.info
    info["search"] = archive.formula
    found.atoms.append(atoms)
    found.origins.append(f"{archive.directory.name}, {where}")
