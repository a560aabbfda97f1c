"""Folders as other codes leave them, written by hand from their grammar; and a stand-in that runs like USPEX."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas
from ase import Atoms
from crystals import random_crystal, rutile

from hybridcsp.io.poscar import Block, read_poscars
from hybridcsp.structure.conversion import to_pymatgen


def structures(n: int, seed: int = 0) -> list[Atoms]:
    rng = np.random.default_rng(seed)
    return [rutile(4.6 + 0.3 * rng.random(), 2.9 + 0.2 * rng.random()) for _ in range(n)]


def various(n: int, symbols: str = "Ti2O4", seed: int = 0) -> list[Atoms]:
    rng = np.random.default_rng(seed)
    return [random_crystal(symbols, 12.0, rng) for _ in range(n)]


def uspex_poscar(number: int, atoms: Atoms, title: str = "") -> str:
    """A block of gatheredPOSCARS, with the widths that USPEX prints."""
    title = title or f"EA{number:<4d} " + " ".join(f"{x:.3f}" for x in atoms.cell.cellpar()) + " Sym.group:    1"
    symbols = sorted(set(atoms.symbols), key=["Ti", "O", "Cu", "Au"].index)
    order = [i for symbol in symbols for i in range(len(atoms)) if atoms.symbols[i] == symbol]
    lines = [title, "1.0"]
    lines += ["".join(f"{x:12.6f}" for x in vector) for vector in atoms.cell.array]
    lines += ["".join(f"{symbol:>4}" for symbol in symbols)]
    lines += ["".join(f"{list(atoms.symbols).count(symbol):4d}" for symbol in symbols), "Direct"]
    lines += ["".join(f"{x:12.6f}" for x in atoms.get_scaled_positions()[i]) for i in order]
    return "\n".join(lines) + "\n"


HEADER = """\
Gen   ID    Origin   Composition    Enthalpy   Volume  Density   Fitness   KPOINTS  SYMM  Q_entr A_order S_order
                                      (eV)      (A^3)  (g/cm^3)
"""


def individual(
    generation: int, number: int, origin: str, enthalpy: float, counts: str = "   2  4 ", volume: float = 62.6
) -> str:
    return (
        f"{generation:4d} {number:4d} {origin:>11} [{counts}] {enthalpy:9.3f} {volume:9.3f}  4.2 {enthalpy:9.3f} "
        f"[ 4  4  6]  1   0.140  1.209  2.632\n"
    )


INPUT = """\
PARAMETERS EVOLUTIONARY ALGORITHM
USPEX : calculationMethod
300   : calculationType
% atomType
Ti O
% EndAtomType
% numSpecies
2 4
% EndNumSpecies
{pressure} : ExternalPressure
% abinitioCode
3 1 1
% ENDabinit
"""


def uspex_run(folder: Path, atoms: Sequence[Atoms], enthalpies: Sequence[float], *, pressure: float = 0.0) -> Path:
    """A run folder of USPEX with one results folder; generations of four."""
    results = folder / "results1"
    results.mkdir(parents=True)
    (folder / "INPUT.txt").write_text(INPUT.format(pressure=pressure))
    append_results(folder, atoms, enthalpies, first=1, generation=1)
    return folder


def append_results(
    folder: Path,
    atoms: Sequence[Atoms],
    enthalpies: Sequence[float],
    *,
    first: int,
    generation: int,
    starts: Sequence[Atoms] = (),
    origins: Sequence[str] = (),
) -> None:
    results = folder / "results1"
    if not (results / "Individuals").exists():
        (results / "Individuals").write_text(HEADER)
        (results / "BESTIndividuals").write_text(HEADER)
    for k, (structure, enthalpy) in enumerate(zip(atoms, enthalpies, strict=True)):
        number = first + k
        origin = origins[k] if origins else ("Random", "Heredity", "softmutate", "Permutate")[k % 4]
        with (results / "Individuals").open("a") as stream:
            stream.write(individual(generation, number, origin, enthalpy, volume=structure.get_volume()))
        with (results / "gatheredPOSCARS").open("a") as stream:
            stream.write(uspex_poscar(number, structure))
        with (results / "gatheredPOSCARS_unrelaxed").open("a") as stream:
            stream.write(uspex_poscar(number, starts[k] if starts else structure))
    best = int(np.argmin(enthalpies))
    with (results / "BESTIndividuals").open("a") as stream:
        stream.write(individual(generation, first + best, "Random", enthalpies[best]))


class FakeUspex:
    """Runs generations as USPEX does: takes Seeds/POSCARS when one begins, renames it, writes results."""

    def __init__(self, folder: Path, seed: int = 0) -> None:
        self.folder = folder
        self.rng = np.random.default_rng(seed)
        self.generation = 0
        self.number = 1
        (folder / "results1").mkdir(parents=True)
        (folder / "INPUT.txt").write_text(INPUT.format(pressure=0.0))

    def run_generation(self, population: int = 6) -> int:
        """Return how many seeds it took."""
        self.generation += 1
        seeds: list[Atoms] = []
        waiting = self.folder / "Seeds" / "POSCARS"
        if waiting.exists():
            blocks = list(read_poscars(waiting))
            assert all(isinstance(block, Block) for block in blocks)
            seeds = [block.atoms for block in blocks if isinstance(block, Block)]
            waiting.rename(waiting.with_name(f"POSCARS_{self.generation}"))
        starts = seeds + various(population - len(seeds), "Ti2O4", int(self.rng.integers(1 << 30)))
        relaxed = []
        for start in starts:
            atoms = start.copy()
            atoms.set_cell(atoms.cell.array * 1.02, scale_atoms=True)
            relaxed.append(atoms)
        enthalpies = (-9.0 * 6 + self.rng.random(len(starts))).tolist()
        append_results(
            self.folder,
            relaxed,
            enthalpies,
            first=self.number,
            generation=self.generation,
            starts=starts,
            origins=["Seeds"] * len(seeds) + ["Random"] * (len(starts) - len(seeds)),
        )
        self.number += len(starts)
        return len(seeds)


def windows(text: str) -> str:
    return re.sub(r"(?<!\r)\n", "\r\n", text)


CRYSPY_INPUT = "[basic]\nalgo = EA\ncalc_code = VASP\n\n[structure]\natype = Ti O\nnat = 2 4\n"


def cryspy_poscars(structures):
    """As cryspy.util.struc_util.out_poscar writes them."""
    text = ""
    for number, atoms in structures.items():
        lines = to_pymatgen(atoms).to(fmt="poscar").split("\n")
        lines = lines[: lines.index("")]
        text += "\n".join([f"ID_{number}", *lines[1:]]) + "\n"
    return text


def cryspy_run(folder, starts, ends, energies, *, order=None):
    """A run folder; ``energies`` per atom, NaN where it failed, in the order in which the relaxations ended."""
    data = folder / "data"
    data.mkdir(parents=True)
    (folder / "cryspy.in").write_text(CRYSPY_INPUT)
    order = list(energies) if order is None else order
    (data / "init_POSCARS").write_text(cryspy_poscars(dict(enumerate(starts))))
    (data / "opt_POSCARS").write_text(cryspy_poscars({n: ends[n] for n in order if energies[n] == energies[n]}))
    table = pandas.DataFrame(
        {
            "Gen": [1 + n // 2 for n in order],
            "Spg_num": 1,
            "Spg_sym": "P1",
            "Spg_num_opt": 1,
            "Spg_sym_opt": [None if energies[n] != energies[n] else "P1" for n in order],
            "E_eV_atom": [energies[n] for n in order],
            "Magmom": float("nan"),
            "Opt": ["not_yet" if n == 3 else "done" for n in order],
        },
        index=order,
    )
    (data / "cryspy_rslt").write_text(table.to_string())
    origin = pandas.DataFrame(
        {
            "Gen": 1,
            "Struc_ID": range(len(starts)),
            "Operation": ["random", "crossover", "strain", "permutation", "random"][: len(starts)],
            "Parent": [None, (3, 7), (1,), (2,), None][: len(starts)],
        }
    )
    (data / "ea_origin").write_text(origin.to_string(index=False))
    return folder
