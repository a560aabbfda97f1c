"""Mean geometries for prototypes of one formula, from substituted crystals that are relaxed with a potential.

    OMP_NUM_THREADS=1 python benchmarks/mean_geometries.py make FOLDER --data mp20_train.extxyz mpts52_train.extxyz
    OMP_NUM_THREADS=1 python benchmarks/mean_geometries.py relax FOLDER
    OMP_NUM_THREADS=1 python benchmarks/mean_geometries.py add FOLDER
    hybridcsp evaluate FOLDER/wyckoff --data ... --min-atoms 21 --max-atoms 52

The ``wyckoff`` generator keeps the mean geometry of prototypes that occur in at least two formulas
(:mod:`hybridcsp.generators.wyckoff.geometry_statistics`); the geometry of a prototype with one formula would be that
crystal. Here the elements of such crystals are replaced by similar ones, twice each, and the results are relaxed with
CHGNet: the mean of two relaxed crystals of different formulas is that of no known crystal.

*make* writes ``FOLDER/substituted.extxyz``, the crystals of one template after each other and the templates in random
order, so that any part of them is like the whole. *relax* relaxes them; it can be killed at any time, and the same
command continues. *add* adds the mean geometries of those that have converged so far, in the prototypes that the
shipped weights know, and writes the weights to ``FOLDER/wyckoff``; both networks are unchanged.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from substituted_training import RELAXATION, SUBSTITUTED, relax

from hybridcsp.datasets import SubstitutionLimits, read_crystals, substitute_similar, templates_of, write_dataset
from hybridcsp.errors import InputError
from hybridcsp.generators.datasets import formula_of, is_held_out
from hybridcsp.prototypes.library import Template

WEIGHTS = "wyckoff"

#: Crystals of one template: the smallest number that has a mean.
PER_TEMPLATE = 2

#: Largest number of seconds of one relaxation.
SECONDS = 300.0

#: Hours of one relaxation on one core, for the plan that is printed first.
HOURS_PER_CRYSTAL = 4.0 / 3600


def of_one_formula(templates: list[Template]) -> list[Template]:
    """Return one template of each prototype that occurs in one formula only, and has free parameters."""
    by_label: dict[object, list[Template]] = defaultdict(list)
    for template in templates:
        by_label[template.label].append(template)
    alone = [own[0] for own in by_label.values() if len({formula_of(one.atoms) for one in own}) == 1]
    return [template for template in alone if template.label.freedom > 0]


def make(folder: Path, options: argparse.Namespace) -> None:
    """Substitute the elements of held-in crystals whose prototype has one formula."""
    found = read_crystals(options.data)
    learned = templates_of(found)
    learned = [template for template in learned if not is_held_out(formula_of(template.atoms))]
    low, high = options.min_atoms, options.max_atoms
    chosen = [template for template in of_one_formula(learned) if low <= len(template.atoms) <= high]
    rng = np.random.default_rng(options.seed)
    limits = SubstitutionLimits(
        min_atoms=low, max_atoms=high, per_template=PER_TEMPLATE, held_in=True, new_formulas=True
    )
    made = substitute_similar(chosen, PER_TEMPLATE * len(chosen), rng, limits=limits)
    own = defaultdict(list)
    for atoms in made.crystals:
        own[atoms.info["template"]].append(atoms)
    pairs = [pair for pair in own.values() if len(pair) == PER_TEMPLATE]
    crystals = [atoms for i in rng.permutation(len(pairs)).tolist() for atoms in pairs[i]]
    settings = {"target": "any", "seed": options.seed, **vars(limits)}
    write_dataset(crystals, folder / SUBSTITUTED, "substitute", settings=settings, inputs=found.inputs)
    hours = len(crystals) * HOURS_PER_CRYSTAL
    print(f"{len(learned)} crystals, {len(chosen)} prototypes of one formula with {low} to {high} atoms")
    print(f"{len(crystals)} crystals; relaxing them takes about {hours:.1f} core-hours")


def add(folder: Path) -> None:
    """Add the mean geometries of the relaxed crystals to the shipped weights."""
    from hybridcsp.generators.loading import open_generator
    from hybridcsp.generators.wyckoff import WyckoffGenerator

    generator = open_generator("wyckoff")
    assert isinstance(generator, WyckoffGenerator)
    before = generator.card["prototypes_with_mean_geometry"]
    after = generator.add_mean_geometries(read_crystals([folder / RELAXATION]).atoms)
    generator.card = {**generator.card, "prototypes_with_mean_geometry": after}
    generator.save(folder / WEIGHTS)
    print(f"prototypes with a mean geometry: {before} before, {after} with those of the relaxed crystals")


def main() -> None:
    """Run one step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=["make", "relax", "add"])
    parser.add_argument("folder", type=Path, help="folder of all files, outside the repository")
    parser.add_argument("--data", type=Path, nargs="+", default=[], help="real crystals, for make")
    parser.add_argument("--min-atoms", type=int, default=21)
    parser.add_argument("--max-atoms", type=int, default=52)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--batch", type=int, default=4, help="crystals that a worker relaxes at the same time")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.step == "make" and not options.data:
        parser.error("make needs --data")
    options.folder.mkdir(parents=True, exist_ok=True)
    try:
        if options.step == "make":
            make(options.folder, options)
        elif options.step == "relax":
            relax(options.folder, options.workers, options.batch, SECONDS)
        else:
            add(options.folder)
    except InputError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
