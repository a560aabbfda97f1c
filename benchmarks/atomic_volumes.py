"""Fit the atomic volumes behind the default volume estimate, and measure the estimate on crystals held out.

    python benchmarks/atomic_volumes.py TRAIN.extxyz [MORE.extxyz ...] [--write hybridcsp/data/atomic_volumes.json]

The volume of a crystal is modelled as the sum of one volume per element, fitted to the *relative* error with weights
1/|residual| (least absolute deviations), so that a few open frameworks do not inflate every oxide. A tenth of the
reduced formulas is held out and reported on; the shipped table is fitted to all of them.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import ase.io
import numpy as np
from ase.data import chemical_symbols
from ase.formula import Formula
from scipy.optimize import lsq_linear

QUANTILES = (0.001, 0.005, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.995, 0.999)


def fit(fractions: np.ndarray, volumes: np.ndarray) -> np.ndarray:
    """Return one volume per column of ``fractions`` (n_crystals, n_elements), in Å³ per atom."""
    weights = np.ones(len(volumes))
    for _ in range(30):
        scaled = fractions / volumes[:, None]
        solution = lsq_linear(scaled * weights[:, None], weights, bounds=(1.0, np.inf)).x
        weights = 1 / np.sqrt(np.maximum(np.abs(scaled @ solution - 1), 0.02))
    return solution


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", type=Path)
    arguments = parser.parse_args()

    crystals = [atoms for path in arguments.files for atoms in ase.io.iread(path)]
    counts = np.array([np.bincount(atoms.numbers, minlength=119) for atoms in crystals])
    used = np.flatnonzero(counts.sum(axis=0))
    fractions = counts[:, used] / counts.sum(axis=1)[:, None]
    volumes = np.array([atoms.get_volume() / len(atoms) for atoms in crystals])
    formulas = [Formula(str(atoms.symbols)).reduce()[0].format("hill") for atoms in crystals]

    distinct = sorted(set(formulas))
    rng = np.random.default_rng(arguments.seed)
    held = set(rng.choice(distinct, len(distinct) // 10, replace=False).tolist())
    test = np.array([formula in held for formula in formulas])
    ratio = volumes[test] / (fractions[test] @ fit(fractions[~test], volumes[~test]))
    print(f"{len(crystals)} crystals, {len(distinct)} formulas; held out {test.sum()} crystals of {len(held)} formulas")
    print(f"seed {arguments.seed}, load {os.getloadavg()[0]:.1f}; true / estimated volume on the held-out crystals:")
    for quantile, value in zip(QUANTILES, np.quantile(ratio, QUANTILES), strict=True):
        print(f"  {quantile:7.1%}  {value:.3f}")
    print(f"  mean absolute error {np.abs(1 / ratio - 1).mean():.1%}")

    if arguments.write:
        table = {
            "card": {
                "what": "volume per atom (Å³) by element; the sum over the atoms estimates a crystal's volume at 0 GPa",
                "data": f"{len(crystals)} Materials Project crystals ({', '.join(p.name for p in arguments.files)})",
                "method": "least absolute relative deviations, benchmarks/atomic_volumes.py",
                "held_out_ratio_quantiles": {
                    str(q): round(float(v), 3) for q, v in zip(QUANTILES, np.quantile(ratio, QUANTILES), strict=True)
                },
            },
            "volumes": {
                chemical_symbols[z]: round(float(v), 2) for z, v in zip(used, fit(fractions, volumes), strict=True)
            },
        }
        temporary = arguments.write.with_suffix(".tmp")
        temporary.write_text(json.dumps(table, indent=1, ensure_ascii=False) + "\n")
        temporary.replace(arguments.write)


if __name__ == "__main__":
    main()
