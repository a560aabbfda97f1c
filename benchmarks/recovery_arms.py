"""The arms of the recovery benchmark, and the sets of crystals that they search for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms
from hard_cells import hard_cells

from hybridcsp.generators.datasets import formula_of, is_held_out
from hybridcsp.structure.symmetry import primitive

#: Files of the crystals in the folder of data.
RECOVERY, TRAINING = "recovery_public.extxyz", ("mp20_train.extxyz", "mpts52_train.extxyz")

#: Name of the package that this script belongs to, in results.
PRESENT = "present"

#: Most atoms of a small cell of the easy set.
SMALL = 10


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A way to search.

    Attributes
    ----------
    sources
        Names of the sources; those of the package by default if there are none.
    settings
        Further settings of the search; nested ones as tables.
    constants
        Constants of the package that are set, by their full names: a part of the package is left out so.
    """

    sources: Sequence[str] = ()
    settings: dict[str, Any] = field(default_factory=dict)
    constants: dict[str, Any] = field(default_factory=dict)


#: The arms of the package itself. ``NAME@PACKAGE`` is an arm of another checkout, as ``random@before``.
ARMS = {
    "random": Arm(sources=["random"]),
    "evolution": Arm(sources=["evolution"]),
    "swarm": Arm(sources=["swarm"]),
    "prototypes": Arm(sources=["prototypes", "random"]),
    "basin-hopping": Arm(sources=["basin-hopping"]),
    "wyckoff": Arm(sources=["wyckoff"]),
    "flow": Arm(sources=["flow"]),
    "optimisers": Arm(sources=["random", "prototypes", "evolution", "swarm", "basin-hopping"]),
    "default": Arm(),
    "retrained": Arm(settings={"retraining": {"new_minima": 20}}),
    # Every arm below is the default without one part of it.
    "frozen": Arm(settings={"retraining": {"new_minima": 0, "posterior": False}}),
    "one-sample": Arm(settings={"one_shot": 1}),
    "equal-shares": Arm(settings={"allocation": "equal"}),
    "steady-floors": Arm(constants={"hybridcsp.search.success_allocation.RISING_FLOORS": {}}),
    "no-escape": Arm(constants={"hybridcsp.relaxation.saddle.ROUNDS": 0}),
    "no-capture": Arm(constants={"hybridcsp.relaxation.capture.ENVIRONMENTS": -1.0}),
    "no-penalty": Arm(constants={"hybridcsp.sources.population.PENALTY": 0.0}),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Target:
    """A known crystal that is searched for.

    Attributes
    ----------
    set
        ``"easy"``, ``"hard"`` or ``"large"``.
    group
        Size within the set, for the tables.
    name
        Name of the cell.
    atoms
        Primitive cell.
    hidden
        Reduced formulas that no source may know: those sought in the set.
    nine_tenths
        Whether prototypes of every formula held out are left out.
    """

    set: str
    group: str
    name: str
    atoms: Atoms
    hidden: frozenset[str]
    nine_tenths: bool


def targets(data: Path, sets: Sequence[str], *, every: bool) -> list[Target]:
    """Return the crystals of the sets, of each set the smaller ones first; of the easy set a core, or every one."""
    found: list[Target] = []
    if "easy" in sets:
        found += _easy(data, every=every)
    if {"hard", "large"} & set(sets):
        cells = hard_cells([data / name for name in TRAINING])
        hidden = frozenset(formula_of(cell.atoms) for cell in cells)
        assert all(map(is_held_out, hidden))
        groups = {"small": ("hard", "5 to 10 atoms"), "large": ("hard", "12 to 20 atoms")}
        groups["larger"] = ("large", "21 to 40 atoms")
        for cell in cells:
            name, group = groups[cell.size]
            target = Target(set=name, group=group, name=cell.name, atoms=cell.atoms, hidden=hidden, nine_tenths=True)
            found += [target] if name in sets else []
    return sorted(found, key=lambda target: (sets.index(target.set), len(target.atoms)))


def _easy(data: Path, *, every: bool) -> list[Target]:
    crystals = [primitive(atoms) for atoms in ase.io.read(data / RECOVERY, ":")]
    hidden = frozenset(map(formula_of, crystals))
    numbers = range(len(crystals)) if every else core_set(crystals)
    return [
        Target(
            set="easy",
            group=f"at most {SMALL} atoms" if len(crystals[i]) <= SMALL else f"more than {SMALL} atoms",
            name=f"{i}-{crystals[i].get_chemical_formula()}",
            atoms=crystals[i],
            hidden=hidden,
            nine_tenths=False,
        )
        for i in numbers
    ]


def core_set(crystals: Sequence[Atoms]) -> list[int]:
    """Return twelve cells of at most ten atoms and six larger ones, drawn once, looking at nothing but their size."""
    rng = np.random.default_rng(0)
    small = [i for i, atoms in enumerate(crystals) if len(atoms) <= SMALL]
    large = [i for i, atoms in enumerate(crystals) if len(atoms) > SMALL]
    return sorted([*rng.choice(small, 12, replace=False).tolist(), *rng.choice(large, 6, replace=False).tolist()])
