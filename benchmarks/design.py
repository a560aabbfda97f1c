"""Inverse design: share of samples within a target before and after active transfer learning.

``run DATA`` trains two predictors of the band gap on parts of ``mp20_train.extxyz`` that share no formula: one steers
the design (:mod:`hybridcsp.workflows.design`), the other only checks the crystals that it found. Then it runs the
design for each generator, and appends the account of each round to ``results.jsonl`` in ``--runs``. A run that is
interrupted continues with the same command. ``plan`` prints what is left and the planned core-hours, ``report`` the
table.

Generators:

- ``wyckoff``: the shipped weights, which do not know the band gap; they learn from the samples within the target.
- ``wyckoff-conditioned``: the same weights, trained further on the part of the steering predictor with the band gap as
  a condition; it learns from all samples with their predicted band gaps.

Contents of the samples are those of crystals of that part. Formulas that the generators hold out are left out.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from hybridcsp.generators.base import Example
from hybridcsp.training.held_out import formula_of, is_held_out, tenth_of

PROPERTY, TARGET = "band_gap", (1.5, 2.5)
GENERATORS = ("wyckoff", "wyckoff-conditioned")
STEERS, CHECKS = "steers", "checks"

#: Most atoms of a crystal, number of crystals of each part, and settings of the trainings and of the design.
MAX_ATOMS, CRYSTALS = 8, 1000
PREDICTOR: dict[str, Any] = {"epochs": 30}
CONDITION: dict[str, Any] = {"epochs": 15, "learning_rate": 3e-4, "remember": False}
ROUNDS, SAMPLES, EPOCHS, LEARNING_RATE, ANCHOR = 3, 100, 15, 5e-4, 2.0
SEED = 0

#: Planned core-hours of the parts.
HOURS = {STEERS: 0.05, CHECKS: 0.05, "condition": 0.08, "design": 0.08}


def halves(data: Path) -> dict[str, list[Example]]:
    """Return crystals with their band gaps for the predictor that steers and for the one that checks."""
    from hybridcsp.predictors.labelled import read_labelled
    from hybridcsp.structure.symmetry import primitive

    read = read_labelled([data / "mp20_train.extxyz"], PROPERTY, max_atoms=MAX_ATOMS)
    parts: dict[str, list[Example]] = {STEERS: [], CHECKS: []}
    for i in np.random.default_rng(SEED).permutation(len(read.crystals)):
        formula = formula_of(read.crystals[i])
        part = parts[STEERS if tenth_of(f"half {formula}") < 5 else CHECKS]
        if len(part) < CRYSTALS and not is_held_out(formula):
            part.append(Example(atoms=primitive(read.crystals[i]), properties={PROPERTY: float(read.values[i])}))
    return parts


def predictor_of(name: str, examples: Sequence[Example], runs: Path) -> Any:
    """Return a trained predictor, from its folder if it is there."""
    from hybridcsp.predictors.labelled import Labelled
    from hybridcsp.predictors.loading import new_predictor, open_predictor

    folder = runs / name
    if not (folder / "card.json").exists():
        labelled = Labelled(
            crystals=tuple(one.atoms for one in examples),
            values=np.array([one.properties[PROPERTY] for one in examples]),
            name=PROPERTY,
            unit="eV",
        )
        predictor = new_predictor("cgcnn", "corrected")
        folder.mkdir(parents=True, exist_ok=True)
        predictor.fit(labelled, seed=SEED, checkpoint=folder / "checkpoint.safetensors", **PREDICTOR)
        predictor.save(folder)
    return open_predictor(folder)


def generator_of(name: str, examples: Sequence[Example], runs: Path) -> str:
    """Return the name or the folder of a generator, which is trained on the condition if its folder is not there."""
    from hybridcsp.generators.loading import open_generator

    if name == "wyckoff":
        return name
    folder = runs / name
    if not (folder / "card.json").exists():
        generator = open_generator("wyckoff")
        folder.mkdir(parents=True, exist_ok=True)
        generator.fit(examples, seed=SEED, checkpoint=folder / "checkpoint.safetensors", **CONDITION)
        generator.save(folder)
    return str(folder)


def run(data: Path, runs: Path) -> None:
    """Train what is missing, and run the designs."""
    from hybridcsp.workflows.design import Design, Designer
    from hybridcsp.workflows.design_rounds import RoundAccount

    runs.mkdir(parents=True, exist_ok=True)
    parts = halves(data)
    predictors = {name: predictor_of(name, parts[name], runs) for name in (STEERS, CHECKS)}
    done = {(row["generator"], row["number"]) for row in results(runs)}
    for name in GENERATORS:
        begun = time.process_time()

        def note(account: RoundAccount, name: str = name, begun: float = begun) -> None:
            if (name, account.number) not in done:
                row = {"generator": name, **asdict(account), "core_seconds": round(time.process_time() - begun, 1)}
                with (runs / "results.jsonl").open("a") as file:
                    file.write(json.dumps(row) + "\n")
            print(f"{name}, round {account.number}: {account.within} of {account.unique} within", flush=True)

        design = Design(
            generator=generator_of(name, parts[STEERS], runs),
            targets={PROPERTY: TARGET},
            rounds=ROUNDS,
            samples=SAMPLES,
            epochs=EPOCHS,
            learning_rate=LEARNING_RATE,
            anchor=ANCHOR,
            seed=SEED,
        )
        designer = Designer(
            design,
            runs / f"design-{name}",
            predictors=[predictors[STEERS]],
            checks=[predictors[CHECKS]],
            examples=parts[STEERS],
        )
        designer.run(note)


def results(runs: Path) -> list[dict[str, Any]]:
    """Return the rows of the results so far."""
    file = runs / "results.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def plan(runs: Path) -> None:
    """Print what is left, and the planned core-hours."""
    done = {(row["generator"], row["number"]) for row in results(runs)}
    left = {name: HOURS[name] for name in (STEERS, CHECKS) if not (runs / name / "card.json").exists()}
    if not (runs / GENERATORS[1] / "card.json").exists():
        left["condition"] = HOURS["condition"]
    for name in GENERATORS:
        missing = sum((name, number) not in done for number in range(1, ROUNDS + 1))
        if missing:
            left[f"design of {name}"] = HOURS["design"] * missing / ROUNDS
    for name, hours in left.items():
        print(f"{name}: {hours:.2f} core-hours")
    print(f"{sum(left.values()):.2f} core-hours are left")


def report(runs: Path) -> None:
    """Print the share of different crystals within the target by round, as both predictors see it."""
    print("generator              round  valid  unique  within  share  share by check  of those within  new  mean")
    for row in results(runs):
        checked = row["checked"].get(PROPERTY, {})
        print(
            f"{row['generator']:<22} {row['number']:5d}  {row['valid']:5d}  {row['unique']:6d}  {row['within']:6d}  "
            f"{row['share']:5.1%}  {checked.get('all', float('nan')):14.1%}  "
            f"{checked.get('within', float('nan')):15.1%}  {row['new']:3d}  {row['mean'].get(PROPERTY, 0):.2f}"
        )


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("run", "plan", "report"))
    parser.add_argument("data", type=Path, nargs="?", help="folder with mp20_train.extxyz")
    parser.add_argument("--runs", type=Path, default=Path("design-runs"))
    arguments = parser.parse_args()
    if arguments.action == "run":
        if arguments.data is None:
            parser.error("run needs the folder of the data")
        run(arguments.data, arguments.runs)
    elif arguments.action == "plan":
        plan(arguments.runs)
    else:
        report(arguments.runs)


if __name__ == "__main__":
    main()
