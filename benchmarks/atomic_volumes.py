"""Measure the volume estimate, under pressure too, and fit the atomic volumes behind it.

    python benchmarks/atomic_volumes.py [TRAIN.extxyz ...] [--fit] [--write hybridcsp/data/atomic_volumes.json]

Without files the estimate is compared with measured crystals (``literature_volumes.py``). With files it is compared
with their crystals too, and with their bulk moduli where they carry ``bulk_modulus_gpa`` (GPa); ``--fit`` fits the
atomic volumes to them anew.

The volume of a crystal is modelled as the sum of atomic volumes ``a + b * (mean electronegativity - own)``: two numbers
per element, because a metal is smaller among anions (magnesium takes 23 Å³ as a metal, a third of that in MgO). They
are fitted to the *relative* error with weights 1/|residual| (least absolute deviations), so that a few open frameworks
do not inflate every oxide. A tenth of the reduced formulas is held out and reported on; the shipped table is fitted to
all. The row above it is the same with one number per element.
"""

from __future__ import annotations

import argparse
import json
import os
from collections import Counter
from pathlib import Path

import ase.io
import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from ase.formula import Formula
from literature_volumes import AMBIENT, PRESSED
from pymatgen.core import Element

from hybridcsp.core.problem import VOLUME_RANGE
from hybridcsp.core.volumes import bulk_modulus, expected_volume

QUANTILES = (0.001, 0.005, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 0.995, 0.999)


def electronegativity(number: int) -> float:
    """Pauling's, and 2 where there is none."""
    value = Element.from_Z(number).X
    return float(value) if np.isfinite(value) else 2.0


def features(fractions: np.ndarray, chi: np.ndarray, slopes: bool) -> np.ndarray:
    if not slopes:
        return fractions
    mean = fractions @ chi
    return np.hstack([fractions, fractions * (mean[:, None] - chi[None, :])])


def fit(x: np.ndarray, volumes: np.ndarray, n_elements: int) -> np.ndarray:
    """Return coefficients for the columns of ``x``; slopes are drawn towards 0 a little, for rare elements."""
    ridge = np.full(x.shape[1], 1e-6)
    ridge[n_elements:] = 0.01
    scaled = x / volumes[:, None]
    weights = np.ones(len(volumes))
    for _ in range(30):
        weighted = scaled * weights[:, None]
        solution = np.linalg.solve(weighted.T @ scaled + np.diag(ridge), weighted.sum(axis=0))
        weights = 1 / np.maximum(np.abs(scaled @ solution - 1), 0.02)
    return solution


def old_estimate(contents: dict[str, int], pressure_gpa: float) -> float:
    """Return what was estimated before there were equations of state: a bulk modulus of 100 GPa for everything."""
    return expected_volume(contents) * (1 + 4 * pressure_gpa / 100) ** -0.25


def compare_with_literature() -> None:
    low, high = VOLUME_RANGE
    for title, crystals in (("at no pressure", AMBIENT), ("under pressure", PRESSED)):
        print(f"{title}: formula, GPa, measured and estimated volume per atom (Å³), measured / estimated, source")
        ratios = []
        for formula, pressure, volume, source in crystals:
            contents = Formula(formula).count()
            estimate = expected_volume(contents, pressure)
            ratios.append((volume / estimate, volume / old_estimate(contents, pressure)))
            print(f"  {formula:14} {pressure:4} {volume:7.2f} {estimate:7.2f} {volume / estimate:6.2f}  {source}")
        for name, ratio in zip(("with equations of state", "with 100 GPa"), np.array(ratios).T, strict=True):
            inside = ((low < ratio) & (ratio < high)).mean()
            error = np.abs(1 / ratio - 1).mean()
            print(f"  {name}: mean error {error:.1%}, {inside:.1%} of {len(ratio)} inside {low:g} to {high:g}")


def compare_with_crystals(crystals: list[Atoms]) -> None:
    contents = [Counter(atoms.get_chemical_symbols()) for atoms in crystals]
    ratio = np.array([a.get_volume() / len(a) / expected_volume(c) for a, c in zip(crystals, contents, strict=True)])
    error = np.abs(1 / ratio - 1).mean()
    print(f"{len(ratio)} crystals of the files: mean error {error:.1%}; outside of")
    for low, high in (VOLUME_RANGE, (0.6, 2.0)):
        print(f"  {low:g} to {high:g} times the estimate: {((ratio < low) | (ratio > high)).mean():.2%}")
    measured = np.array([atoms.info.get("bulk_modulus_gpa", np.nan) for atoms in crystals], dtype=float)
    known = np.flatnonzero(measured > 0)
    if len(known):
        ratio = measured[known] / [bulk_modulus(contents[i]) for i in known]
        spread = np.log(ratio).std()
        print(
            f"  {len(known)} bulk moduli: median ratio to the estimate {np.median(ratio):.2f}, log spread {spread:.2f}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fit", action="store_true")
    parser.add_argument("--write", type=Path)
    arguments = parser.parse_args()
    compare_with_literature()
    crystals = [atoms for path in arguments.files for atoms in ase.io.iread(path)]
    if crystals:
        compare_with_crystals(crystals)
    if arguments.fit or arguments.write:
        fit_and_report(crystals, arguments)


def fit_and_report(crystals: list[Atoms], arguments: argparse.Namespace) -> None:
    counts = np.array([np.bincount(atoms.numbers, minlength=119) for atoms in crystals])
    used = np.flatnonzero(counts.sum(axis=0))
    fractions = counts[:, used] / counts.sum(axis=1)[:, None]
    volumes = np.array([atoms.get_volume() / len(atoms) for atoms in crystals])
    formulas = [Formula(str(atoms.symbols)).reduce()[0].format("hill") for atoms in crystals]

    distinct = sorted(set(formulas))
    rng = np.random.default_rng(arguments.seed)
    held = set(rng.choice(distinct, len(distinct) // 10, replace=False).tolist())
    test = np.array([formula in held for formula in formulas])
    chi = np.array([electronegativity(z) for z in used])
    print(f"{len(crystals)} crystals, {len(distinct)} formulas; held out {test.sum()} crystals of {len(held)} formulas")
    print(f"seed {arguments.seed}, load {os.getloadavg()[0]:.1f}; true / estimated volume on the held-out crystals:")
    print("  error  " + "".join(f"{q:7.1%}" for q in QUANTILES))
    for slopes in (False, True):
        x = features(fractions, chi, slopes)
        ratio = volumes[test] / (x[test] @ fit(x[~test], volumes[~test], len(used)))
        error = np.abs(1 / ratio - 1).mean()
        print(f"  {error:6.1%} " + "".join(f"{v:7.3f}" for v in np.quantile(ratio, QUANTILES)))

    if arguments.write:
        solution = fit(x, volumes, len(used)).reshape(2, -1)
        quantiles = {str(q): round(float(v), 3) for q, v in zip(QUANTILES, np.quantile(ratio, QUANTILES), strict=True)}
        table = {
            "card": {
                "what": "electronegativity x, a and b by element: at 0 GPa an atom takes a + b * (mean x - x) Å³",
                "data": f"{len(crystals)} Materials Project crystals ({', '.join(p.name for p in arguments.files)})",
                "method": "least absolute relative deviations, benchmarks/atomic_volumes.py",
                "held_out_mean_absolute_error": round(float(error), 3),
                "held_out_ratio_quantiles": quantiles,
            },
            "volumes": {
                chemical_symbols[z]: [round(float(value), 2) for value in (x, a, b)]
                for z, x, a, b in zip(used, chi, *solution, strict=True)
            },
        }
        temporary = arguments.write.with_suffix(".tmp")
        text = json.dumps(table, indent=1, ensure_ascii=False).replace("\n   ", " ").replace("\n  ]", "]")
        temporary.write_text(text + "\n")
        temporary.replace(arguments.write)


if __name__ == "__main__":
    main()
