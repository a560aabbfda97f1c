"""Do generators gain from substituted crystals that are relaxed with a potential?

    OMP_NUM_THREADS=1 python benchmarks/substituted_training.py make FOLDER --data mp20_train.extxyz mpts52_train.extxyz
    OMP_NUM_THREADS=1 python benchmarks/substituted_training.py relax FOLDER
    OMP_NUM_THREADS=1 python benchmarks/substituted_training.py collect FOLDER --data ...
    OMP_NUM_THREADS=1 python benchmarks/substituted_training.py train FOLDER --data ... --generator wyckoff --arm with
    OMP_NUM_THREADS=1 python benchmarks/substituted_training.py report FOLDER --data ...

Small data are the usual reason for element substitution: the elements of known crystals are replaced by similar ones
and the results are relaxed. Here the templates are the crystals of the files and the AFLOW prototypes, without those of
held-out formulas. Made are crystals of new formulas that are not held out either.

*make* writes ``FOLDER/substituted.extxyz``. *relax* relaxes them with CHGNet, one crystal in about a third of a second;
it can be killed at any time, and the same command continues. *collect* writes the different converged crystals to
``FOLDER/relaxed.extxyz``, at any time, with their heights above the hull of CHGNet's energies: of these crystals and,
at the geometries of the files, of the held-in crystals of the files. *train* continues the training of the shipped
weights on the crystals of the files alone (``--arm without``) or with the relaxed ones up to ``--height`` above the
hull (``--arm with``), with the same number of steps, and continues where it was stopped; formulas of ``--exclude`` are
left out. Of ``wyckoff`` only the geometry network is trained: the positions of substituted crystals are those of their
templates, and teach the other network that templates are always right. *report* evaluates both, and the shipped
weights, on the same held-out crystals (``--crystals`` of them, ``--samples`` each) and writes the match rates at 1 and
at all samples, with an exact test of the crystals that only one of two matches, to
``results/substituted_training.json``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ase import Atoms
from ase.formula import Formula

from hybridcsp.core.hull import Hull
from hybridcsp.core.records import Limits
from hybridcsp.datasets import (
    RelaxationProgress,
    SubstitutionLimits,
    aflow_templates,
    fold,
    read_crystals,
    relax_crystals,
    substitute_similar,
    templates_of,
    write_dataset,
)
from hybridcsp.errors import InputError
from hybridcsp.generators.datasets import formula_of, is_held_out

if TYPE_CHECKING:
    from hybridcsp.generators.metrics import Scored
    from hybridcsp.similarity import StructureIndex

SUBSTITUTED, RELAXATION, COLLECTED = "substituted.extxyz", "relaxation", "relaxed.extxyz"
ENERGIES = "energies.json"

#: Hours that one relaxation and one training take on one core, for the plan that is printed first.
HOURS_PER_CRYSTAL, HOURS_PER_TRAINING = 0.4 / 3600, 0.7

#: Epochs over the crystals of the files and the relaxed ones together, learning rate and averaging of the continued
#: trainings. With the crystals of the files alone the epochs are more, so that the steps are as many.
EPOCHS, LEARNING_RATE, AVERAGING = {"wyckoff": 10, "flow": 20}, 5e-4, 0.998

#: Crystals of one formula and of one template, so that no family of similar elements dominates.
PER_FORMULA, PER_TEMPLATE = 3, 4

#: A relaxed crystal farther than this from its start has lost its prototype: ratio of the volumes.
VOLUME_RATIOS = 0.5, 2.0

RESULTS = Path(__file__).parent / "results" / "substituted_training.json"


def formulas_of(files: list[Path]) -> frozenset[str]:
    """Return the formulas of crystals that nothing may be trained on, such as those of other benchmarks."""
    return frozenset(formula_of(atoms) for atoms in read_crystals(files).atoms) if files else frozenset()


def make(folder: Path, data: list[Path], count: int, max_atoms: int, seed: int) -> None:
    """Substitute the elements of held-in crystals by similar ones."""
    found = read_crystals(data)
    print(f"{len(found)} crystals", flush=True)
    aflow = aflow_templates()
    templates = [one for one in (*templates_of(found), *aflow) if len(one.atoms) <= max_atoms]
    print(f"{len(templates)} templates", flush=True)
    limits = SubstitutionLimits(
        max_atoms=max_atoms, per_formula=PER_FORMULA, per_template=PER_TEMPLATE, held_in=True, new_formulas=True
    )
    begun = time.monotonic()
    made = substitute_similar(templates, count, np.random.default_rng(seed), limits=limits)
    rng = np.random.default_rng([seed, 1])
    crystals = [made.crystals[i] for i in rng.permutation(len(made.crystals))]  # any part of them is like the whole
    write_dataset(
        crystals,
        folder / SUBSTITUTED,
        "substitute",
        settings={"target": "any", "count": count, "seed": seed, **vars(limits)},
        inputs=[*found.inputs, {"name": "AFLOW prototypes in pymatgen", "crystals": len(aflow)}],
        left_out=found.left_out + made.left_out,
    )
    assert not any(is_held_out(formula_of(atoms)) for atoms in crystals)
    print(f"{len(crystals)} crystals in {time.monotonic() - begun:.0f} s; left out: {dict(made.left_out)}")
    print(f"relaxing them takes about {len(crystals) * HOURS_PER_CRYSTAL:.1f} core-hours")


def relax(folder: Path, workers: int, batch: int, seconds: float = 120.0) -> None:
    """Relax the crystals with CHGNet, each in at most so many seconds; an interrupted run is continued."""
    crystals = read_crystals([folder / SUBSTITUTED]).atoms
    printed = 0.0

    def show(progress: RelaxationProgress) -> None:
        nonlocal printed
        if time.monotonic() - printed > 300:
            printed = time.monotonic()
            left = "?" if progress.seconds_left is None else f"{progress.seconds_left / 3600:.1f}"
            print(f"{progress.done}/{progress.total}, {progress.failed} failed, {left} hours left", flush=True)

    done = relax_crystals(
        crystals,
        folder / RELAXATION,
        calculator="chgnet",
        limits=Limits(force_calls=300, seconds=seconds),
        workers=workers,
        batch=batch,
        on_progress=show,
    )
    print(f"{done.relaxed} relaxed, {done.failed} failed: {dict(done.reasons)}")


def energies_of_data(folder: Path, data: list[Path]) -> list[tuple[str, float, float]]:
    """Return formulas, energies (CHGNet) and formation energies (eV/atom) of the held-in crystals of the files."""
    place = folder / ENERGIES
    if not place.exists():
        from chgnet.model import CHGNet
        from pymatgen.io.ase import AseAtomsAdaptor

        crystals = [atoms for atoms in read_crystals(data).atoms if not is_held_out(formula_of(atoms))]
        print(f"energies of {len(crystals)} crystals: about {len(crystals) * 0.1 / 3600:.1f} core-hours", flush=True)
        model = CHGNet.load(use_device="cpu", verbose=False)
        structures = [AseAtomsAdaptor.get_structure(atoms) for atoms in crystals]
        found = model.predict_structure(structures, task="e", batch_size=16)
        rows = [
            (formula_of(atoms), float(one["e"]), float(atoms.info["formation_energy_per_atom"]))
            for atoms, one in zip(crystals, found, strict=True)
        ]
        place.write_text(json.dumps(rows))
    return [(formula, energy, formation) for formula, energy, formation in json.loads(place.read_text())]


def energies_of_elements(known: list[tuple[str, float, float]]) -> dict[str, float]:
    """Return energies of the elements, fitted such that energies and formation energies of crystals agree."""
    counts = [Formula(formula).count() for formula, _, _ in known]
    elements = sorted({element for count in counts for element in count})
    fractions = np.array([[count.get(element, 0) / sum(count.values()) for element in elements] for count in counts])
    differences = np.array([energy - formation for _, energy, formation in known])
    fitted, *_ = np.linalg.lstsq(fractions, differences, rcond=None)
    left = np.abs(fractions @ fitted - differences)
    print(f"energies of {len(elements)} elements fitted, error of formation energies {1000 * left.mean():.0f} meV/atom")
    return dict(zip(elements, fitted.tolist(), strict=True))


def heights_above_hull(
    formulas: list[str], energies: list[float], known: list[tuple[str, float, float]]
) -> list[float]:
    """Return heights (eV/atom) above the hull of all crystals and the elements."""
    lowest = energies_of_elements(known)
    for formula, energy in [*((f, e) for f, e, _ in known), *zip(formulas, energies, strict=True)]:
        lowest[formula] = min(energy, lowest.get(formula, np.inf))
    phases = {formula: frozenset(Formula(formula).count()) for formula in lowest}
    hulls: dict[frozenset[str], Hull] = {}
    heights = []
    for formula, energy in zip(formulas, energies, strict=True):
        elements = frozenset(Formula(formula).count())
        if elements not in hulls:
            hulls[elements] = Hull(sorted(elements))
            for one in (one for one, system in phases.items() if system <= elements):
                hulls[elements].put(one, lowest[one])
        height = hulls[elements].height(formula, energy)
        heights.append(np.nan if height is None else height)
    return heights


def collect(folder: Path, data: list[Path]) -> None:
    """Write the different converged crystals that have kept their volume roughly, with heights above the hull."""
    found = read_crystals([folder / RELAXATION])
    left_out: Counter[str] = Counter()
    low, high = VOLUME_RATIOS
    kept = []
    for atoms in sorted(found.atoms, key=lambda one: float(one.info["energy_per_atom"])):
        if low < atoms.info["volume_ratio"] < high:
            kept.append(atoms)
        else:
            left_out["volume changed by more than a factor of 2"] += 1
    kept = list(fold(kept, left_out))
    heights = heights_above_hull(
        [formula_of(atoms) for atoms in kept],
        [float(atoms.info["energy_per_atom"]) for atoms in kept],
        energies_of_data(folder, data),
    )
    with_height = []
    for atoms, height in zip(kept, heights, strict=True):
        if np.isfinite(height):
            atoms.info["e_above_hull"] = height
            with_height.append(atoms)
        else:
            left_out["an element of no crystal in the files"] += 1
    card = write_dataset(
        with_height,
        folder / COLLECTED,
        "convert",
        settings={"fold": True},
        inputs=found.inputs,
        left_out=lambda: found.left_out + left_out,
    )
    print(f"{card['crystals']} crystals of {card['formulas']} formulas; left out: {card['left_out']}")
    shares = [f"{np.mean(np.array(heights) <= limit):.0%} up to {limit} eV/atom" for limit in (0, 0.05, 0.1, 0.2)]
    print(f"heights above the hull: {', '.join(shares)}")


def train(folder: Path, generator: str, arm: str, options: argparse.Namespace) -> None:
    """Continue the training of the shipped weights, with or without the substituted crystals."""
    from hybridcsp.generators.datasets import read_dataset
    from hybridcsp.generators.loading import open_generator

    output = folder / f"{generator}-{arm}-{options.seed}"
    if (output / "card.json").exists():
        print(f"{output} is trained")
        return
    print(f"planned: about {HOURS_PER_TRAINING:.1f} core-hours", flush=True)
    output.mkdir(parents=True, exist_ok=True)
    max_atoms = 52 if generator == "wyckoff" else 20
    excluded = formulas_of(options.exclude)
    relaxed = [a for a in read_crystals([folder / COLLECTED]).atoms if formula_of(a) not in excluded]
    low = [a for a in relaxed if a.info["e_above_hull"] <= options.height]
    chosen = output / "substituted.extxyz"
    write_dataset(low, chosen, "convert", settings={"height": options.height}, inputs=[])
    examples = read_dataset([*options.data, *([chosen] if arm == "with" else [])], max_atoms=max_atoms).examples
    print(f"{len(examples)} crystals; {len(low)} substituted ones up to {options.height} eV/atom", flush=True)
    epochs = EPOCHS[generator] * (1.0 if arm == "with" else 1 + len(low) / len(examples))
    model = open_generator(generator)
    extra = {"longest": 20, "remember": False, "parts": ["geometry"]} if generator == "wyckoff" else {}
    model.fit(
        examples,
        seed=options.seed,
        checkpoint=output / "checkpoint.safetensors",
        on_epoch=lambda epoch: print(time.strftime("%T"), epoch, flush=True),
        epochs=round(epochs),
        learning_rate=LEARNING_RATE,
        averaging=AVERAGING,
        **extra,
    )
    model.save(output)


def evaluated(
    folder: Path, name: str, arm: str, targets: list[Atoms], known: StructureIndex, options: argparse.Namespace
) -> list[Scored]:
    """Return the scores of a generator, which are kept in a file: an evaluation is not repeated."""
    from hybridcsp.generators.loading import open_generator
    from hybridcsp.generators.metrics import Scored, evaluate

    place = folder / f"scores-{name}-{arm}-{options.seed}-{len(targets)}-{options.samples}.json"
    if not place.exists():
        generator = open_generator(name if arm == "shipped" else str(folder / f"{name}-{arm}-{options.seed}"))
        scores = evaluate(generator, targets, samples=options.samples, seed=options.seed, known=known)
        place.write_text(json.dumps([asdict(score) for score in scores]))
    return [Scored.of(score) for score in json.loads(place.read_text())]


def report(folder: Path, data: list[Path], generators: list[str], options: argparse.Namespace) -> None:
    """Evaluate the trained generators on the same held-out crystals."""
    from scipy.stats import binomtest

    from hybridcsp.generators.datasets import read_dataset, split
    from hybridcsp.generators.metrics import index_of, summarise

    examples = read_dataset(data, max_atoms=options.max_atoms).examples
    learned, held_out = split(examples)
    rng = np.random.default_rng(options.seed)
    targets = [held_out[i].atoms for i in rng.permutation(len(held_out))[: options.crystals]]
    known = index_of([example.atoms for example in learned])
    rows: dict[str, Any] = {"crystals": len(targets), "samples": options.samples, "seed": options.seed}
    for name in generators:
        hits = {}
        for arm in ("shipped", "without", "with"):
            place = folder / f"{name}-{arm}-{options.seed}"
            if arm != "shipped" and not (place / "card.json").exists():
                print(f"{place} is not trained yet")
                continue
            scores = evaluated(folder, name, arm, targets, known, options)
            rows[f"{name} {arm}"] = summarise(scores)
            print(name, arm, rows[f"{name} {arm}"], flush=True)
            hits[arm] = [score.displacements[0] is not None for score in scores]
        for other in ("shipped", "without"):
            if {"with", other} <= set(hits):
                first, second = np.array(hits["with"]), np.array(hits[other])
                only = [int((first & ~second).sum()), int((second & ~first).sum())]
                p = float(binomtest(only[0], sum(only)).pvalue) if sum(only) else 1.0
                rows[f"{name}, with and {other}"] = {"only with": only[0], f"only {other}": only[1], "p": p}
    print(json.dumps(rows, indent=1, default=str))
    RESULTS.write_text(json.dumps(rows, indent=1, default=str) + "\n")


def main() -> None:
    """Run one step."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=["make", "relax", "collect", "train", "report"])
    parser.add_argument("folder", type=Path, help="folder of all files, outside the repository")
    parser.add_argument("--data", type=Path, nargs="+", default=[], help="real crystals")
    parser.add_argument("--count", type=int, default=24_000, help="substituted crystals")
    parser.add_argument("--max-atoms", type=int, default=20)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--batch", type=int, default=8, help="crystals that a worker relaxes at the same time")
    parser.add_argument("--generator", nargs="+", default=["wyckoff", "flow"])
    parser.add_argument("--arm", choices=["with", "without"], default="with")
    parser.add_argument("--height", type=float, default=0.1, help="largest height above the hull, eV/atom")
    parser.add_argument("--exclude", type=Path, nargs="+", default=[], help="crystals of other benchmarks")
    parser.add_argument("--crystals", type=int, default=500)
    parser.add_argument("--samples", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if options.step in ("make", "collect", "train", "report") and not options.data:
        parser.error(f"{options.step} needs --data")
    options.folder.mkdir(parents=True, exist_ok=True)
    try:
        if options.step == "make":
            make(options.folder, options.data, options.count, options.max_atoms, options.seed)
        elif options.step == "relax":
            relax(options.folder, options.workers, options.batch)
        elif options.step == "collect":
            collect(options.folder, options.data)
        elif options.step == "train":
            for name in options.generator:
                train(options.folder, name, options.arm, options)
        else:
            report(options.folder, options.data, options.generator, options)
    except InputError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
