"""Measure at which rank the right structure is found with and without a powder pattern.

    python benchmarks/powder.py run DATA.extxyz [DATA.extxyz ...] [--calls 0] [--crystals 10]
    python benchmarks/powder.py report

``run`` takes crystals whose formulas are held out (``hybridcsp.generators.datasets.is_held_out``), simulates a pattern
of each with a lattice that is 2 % larger, thermal motion, background and counting noise, and compares competing
structures of the same composition with it: known prototypes and random symmetric crystals. All, the right structure
included, are relaxed by CHGNet with up to ``--calls`` force calls; with 0 they are compared as they are, and have no
energy. Each structure is a line of results/powder_runs.jsonl with numbers only, and what is there is not repeated.

``report`` prints the rank of the right structure by energy, by similarity without and with adjustment of the cell, and
by similarity among those within 0.1 eV/atom of the lowest, and writes them to results/powder.json.
"""

from __future__ import annotations

import argparse
import json
import zlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from ase import Atoms
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from run_lines import append_line, read_lines

from hybridcsp import Problem
from hybridcsp.archive.archive import Archive
from hybridcsp.core.outcomes import Failed
from hybridcsp.core.records import Candidate, Job, Limits, Proposal
from hybridcsp.generators.datasets import formula_of, is_held_out
from hybridcsp.io.frames import Frame
from hybridcsp.io.structure_files import read_structures
from hybridcsp.powder import PatternSimilarity, PowderPattern, read_wavelength
from hybridcsp.powder.strains import symmetric_strains
from hybridcsp.relaxation.relax import Relaxer
from hybridcsp.relaxation.settings import RelaxationSettings
from hybridcsp.similarity import MINIMA, same_structure
from hybridcsp.sources.base import Context
from hybridcsp.sources.prototypes import PrototypesSource
from hybridcsp.sources.random import RandomSource
from hybridcsp.structure.conversion import to_pymatgen
from hybridcsp.structure.symmetry import primitive

RESULTS = Path(__file__).parent / "results"
RUNS, REPORT = RESULTS / "powder_runs.jsonl", RESULTS / "powder.json"

#: Error of the lattice in its size, and of its shape, as fractions.
SIZE, SHAPE = 0.02, 0.005

#: Atoms of the crystals, and decoys of each kind.
ATOMS, PROTOTYPES, RANDOM = (4, 14), 12, 8

#: The same structure at another volume is the right one, too.
ANY_VOLUME = replace(MINIMA, volume=None)

#: Crystals are drawn from this many times as many, the first of the files.
POOL = 4

#: Window above the lowest energy in eV/atom, within which the similarity decides in the last column.
WINDOW = 0.1


def crystals(files: list[Path], most: int) -> list[Atoms]:
    """Return crystals of different held-out formulas, drawn with a fixed seed."""
    found: dict[str, Atoms] = {}
    for file in files:
        for frame in read_structures(file):
            if isinstance(frame, Frame):
                formula = formula_of(frame.atoms)
                if formula not in found and is_held_out(formula) and len(set(frame.atoms.numbers)) > 1:
                    atoms = Atoms(frame.atoms.numbers, frame.atoms.positions, cell=frame.atoms.cell, pbc=True)
                    cell = primitive(atoms)
                    if ATOMS[0] <= len(cell) <= ATOMS[1]:
                        found[formula] = cell
            if len(found) == POOL * most:
                break
    order = np.random.default_rng(0).permutation(len(found))[:most]
    return [list(found.values())[i] for i in order]


def simulate(atoms: Atoms, rng: np.random.Generator) -> PowderPattern:
    """Return a pattern with the lattice strained, peaks that widen with the angle, background and counting noise."""
    from pymatgen.analysis.diffraction.xrd import XRDCalculator

    strains = symmetric_strains(atoms)
    strain = np.tensordot([SIZE, *rng.uniform(-SHAPE, SHAPE, len(strains) - 1)], strains, 1)
    strained = atoms.copy()
    strained.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
    thermal = dict.fromkeys(atoms.get_chemical_symbols(), 0.8)
    calculator = XRDCalculator("CuKa", debye_waller_factors=thermal)
    peaks = calculator.get_pattern(to_pymatgen(strained), scaled=False, two_theta_range=(0, 91))
    x = np.arange(10, 90, 0.02)
    widths = 0.12 * (1 + 0.5 * np.tan(np.radians(np.asarray(peaks.x) / 2)))
    distances = (x[:, None] - np.asarray(peaks.x)) / widths
    y = (np.asarray(peaks.y) / widths / (1 + 4 * distances**2)).sum(axis=1)
    counts = 3000 * (y / y.max() + 0.05 + 0.1 * np.exp(-x / 20) + 0.03 * np.exp(-(((x - 28) / 8) ** 2)))
    return PowderPattern(two_theta=x, intensity=rng.poisson(counts).astype(float), wavelength=read_wavelength("CuKa"))


def decoys(target: Atoms, seed: int) -> Iterator[tuple[str, Proposal]]:
    """Yield prototypes and random crystals of the composition of a crystal, without the crystal itself."""
    problem = Problem(formula_of(target), min_atoms=len(target), max_atoms=len(target))
    empty = cast(Archive, SimpleNamespace(preferred_minima=lambda n: []))
    context = Context(problem=problem, archive=empty, rng=np.random.default_rng(seed))
    for kind, source, most in (
        ("prototype", PrototypesSource(problem), PROTOTYPES),
        ("random", RandomSource(problem), RANDOM),
    ):
        proposals = source.propose(2 * most, context)
        others = (one for one in proposals if not same_structure(one.atoms, target))
        yield from ((kind, one) for one in islice(others, most))


def run(arguments: argparse.Namespace) -> None:
    chosen = crystals(arguments.data, arguments.crystals)
    done = {(row["formula"], row["calls"], row["number"]) for row in read()}
    calls = arguments.calls
    planned = len(chosen) * (1 + PROTOTYPES + RANDOM)
    print(
        f"{planned} structures, up to {planned * max(calls, 1) * 0.06 / 3600 + planned * 0.3 / 3600:.2f} core-hours",
        flush=True,
    )
    relax = relaxer() if calls else None
    for target in chosen:
        formula = formula_of(target)
        seed = zlib.crc32(formula.encode())
        similarity = PatternSimilarity(simulate(target, np.random.default_rng(seed)))
        structures = [("right", Proposal(atoms=target, operator="known")), *decoys(target, seed)]
        for number, (kind, proposal) in enumerate(structures):
            if (formula, calls, number) in done:
                continue
            atoms, energy = proposal.atoms, None
            if relax is not None:
                candidate = Candidate(id=0, source=kind, proposal=proposal)
                job = Job(candidate=candidate, atoms=atoms, level="relax", limits=Limits(force_calls=calls))
                outcome = relax(job)
                if isinstance(outcome, Failed):
                    continue
                atoms, energy = outcome.atoms, outcome.evaluation.energy / len(outcome.atoms)
            match = similarity.match(atoms)
            row = {
                "formula": formula,
                "atoms": len(atoms),
                "calls": calls,
                "number": number,
                "kind": kind,
                "right": kind == "right" or same_structure(atoms, target, ANY_VOLUME),
                "energy_ev_per_atom": energy,
                "similarity": match.similarity,
                "unadjusted": match.unadjusted,
            }
            append_line(RUNS, row)
        print(formula, flush=True)


def relaxer() -> Any:
    """Return the function that relaxes by CHGNet."""
    from hybridcsp.relaxation.calculators.registry import build_calculator

    return Relaxer(calculator=build_calculator("chgnet")[0], settings=RelaxationSettings())()


def read() -> list[dict[str, Any]]:
    return read_lines(RUNS)


def rank(rows: list[dict[str, Any]], key: str, sign: float) -> int:
    """Return the rank of the best right structure; decoys that are as good come before it."""
    right = min(sign * row[key] for row in rows if row["right"])
    return 1 + sum(sign * row[key] <= right for row in rows if not row["right"])


def report() -> None:
    groups: dict[tuple[int, str], list[dict[str, Any]]] = defaultdict(list)
    for row in read():
        groups[row["calls"], row["formula"]].append(row)
    headings = (
        "force calls",
        "crystal",
        "structures",
        "by energy",
        "as is",
        "adjusted",
        "within window",
        "S",
        "next S",
    )
    table = Table(*headings, box=SIMPLE_HEAD, title="rank of the right structure")
    results = []
    for (calls, formula), rows in sorted(groups.items()):
        if not any(row["right"] for row in rows):
            continue
        energies = [row["energy_ev_per_atom"] for row in rows if row["energy_ev_per_atom"] is not None]
        low = [row for row in rows if energies and row["energy_ev_per_atom"] <= min(energies) + WINDOW]
        result = {
            "calls": calls,
            "formula": formula,
            "structures": len(rows),
            "rank_by_energy": rank(rows, "energy_ev_per_atom", 1) if energies else None,
            "rank_by_similarity_as_is": rank(rows, "unadjusted", -1),
            "rank_by_similarity": rank(rows, "similarity", -1),
            "rank_within_window": rank(low, "similarity", -1) if any(row["right"] for row in low) else None,
            "similarity": max(row["similarity"] for row in rows if row["right"]),
            "next_similarity": max((row["similarity"] for row in rows if not row["right"]), default=0.0),
        }
        results.append(result)
        table.add_row(*(f"{value:.3f}" if isinstance(value, float) else str(value) for value in result.values()))
    Console(width=120).print(table)
    REPORT.write_text(json.dumps(results, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    runs = commands.add_parser("run")
    runs.add_argument("data", type=Path, nargs="+")
    runs.add_argument("--calls", type=int, default=0)
    runs.add_argument("--crystals", type=int, default=10)
    commands.add_parser("report")
    arguments = parser.parse_args()
    if arguments.command == "run":
        run(arguments)
    else:
        report()


if __name__ == "__main__":
    main()
