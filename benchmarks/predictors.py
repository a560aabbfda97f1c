"""Errors of the predictors on crystals of held-out formulas, against simple baselines.

``run DATA`` trains and tests one model after the other, each in a folder below ``--runs`` with its checkpoint, and
appends the scores to ``results.jsonl`` there. A run that is interrupted, or ends after ``--minutes``, continues with
the same command. ``plan`` prints what is left and the planned core-hours. ``report`` prints the table.

Tasks:

- ``formation_energy_per_atom``: trained on ``mp20_train.extxyz`` and ``mpts52_train.extxyz`` without the held-out
  formulas (:func:`hybridcsp.training.held_out.is_held_out`), tested on those of ``mp20_train.extxyz``.
- the five properties of ``aflow_properties.extxyz``, trained without the held-out formulas and tested on them; of the
  thermal conductivity the logarithm is learned, and scored.

- ``synthesizability``: which crystals have been made. Made ones are those of ``mpts52_train.extxyz``, in which all are
  (``theoretical=0``), the others those of ``mp20_train.extxyz``, in which it is not known; of both, those with up to 20
  atoms and 0.08 eV/atom above the hull, the limits of the latter. Trained without the held-out formulas and tested on
  them: the recall of made crystals where a share of the others is called positive, and the area under the curve. The
  baselines are ``hull``, the height above the hull alone, and the random forest on the composition. No model can reach
  an area of 1, because many of the others have been made, too.

A second tenth of the formulas stops the training and calibrates the uncertainties. The models are ``cgcnn`` and
``equivariant`` in their default configurations, ``mean`` (the mean of the training set for every crystal), and
``forest``, a random forest on the fractions of the elements and the means and deviations of elemental properties
(scikit-learn, which must be installed for it).
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from hybridcsp.predictors.labelled import Labelled, read_labelled
from hybridcsp.training.held_out import formula_of, is_held_out

FORMATION = "formation_energy_per_atom"
AFLOW = (
    "bulk_modulus_gpa",
    "shear_modulus_gpa",
    "debye_temperature_k",
    "thermal_conductivity_w_per_mk",
    "thermal_expansion_per_k",
)
LOGARITHMIC = ("thermal_conductivity_w_per_mk",)
MADE = "synthesizability"
MODELS = ("mean", "forest", "cgcnn", "equivariant")
MODELS_OF_MADE = ("hull", "forest", "synthesizability")
ALL_MODELS = tuple(dict.fromkeys(MODELS + MODELS_OF_MADE))
HEIGHT = "e_above_hull"
SEED = 0

#: Settings of the trainings by task and model.
SETTINGS: dict[tuple[str, str], dict[str, Any]] = {
    ("formation", "cgcnn"): {"epochs": 60},
    ("formation", "equivariant"): {"epochs": 30},
    ("aflow", "cgcnn"): {"epochs": 100},
    ("aflow", "equivariant"): {"epochs": 60},
    ("made", "synthesizability"): {"members": 3},
}

#: Planned core-hours of one training.
HOURS = {
    ("formation", "cgcnn"): 2.0,
    ("formation", "equivariant"): 2.0,
    ("aflow", "cgcnn"): 0.2,
    ("aflow", "equivariant"): 0.4,
    ("made", "synthesizability"): 0.15,
}


class OutOfTimeError(Exception):
    """The time of this call has ended."""


def tasks() -> list[tuple[str, str]]:
    """Return all pairs of a property and a model, the most important ones first."""
    known = [(name, model) for name in (FORMATION, *AFLOW) for model in MODELS]
    return known + [(MADE, model) for model in MODELS_OF_MADE]


def kind(name: str) -> str:
    return {FORMATION: "formation", MADE: "made"}.get(name, "aflow")


def data_of(folder: Path, name: str) -> tuple[Labelled, Labelled]:
    """Return the training and the test crystals of a property."""
    if name == MADE:
        return made_of(folder)
    files = ["mp20_train.extxyz", "mpts52_train.extxyz"] if name == FORMATION else ["aflow_properties.extxyz"]
    read = [read_labelled([folder / file], name, max_atoms=104) for file in files]
    held = [np.array([is_held_out(formula_of(crystal)) for crystal in part.crystals]) for part in read]
    learned = [part.part(np.flatnonzero(~out)) for part, out in zip(read, held, strict=True)]
    test = read[0].part(np.flatnonzero(held[0]))
    training = Labelled(
        crystals=tuple(crystal for part in learned for crystal in part.crystals),
        values=np.concatenate([part.values for part in learned]),
        name=name,
        unit=read[0].unit,
    )
    return training, test


def made_of(folder: Path) -> tuple[Labelled, Labelled]:
    """Return crystals to learn from and to test with, whose values are 0 if they have been made, and else 1."""
    read = [
        read_labelled([folder / file], HEIGHT, max_atoms=20) for file in ("mpts52_train.extxyz", "mp20_train.extxyz")
    ]
    low = [part.part(np.flatnonzero(part.values <= 0.08)) for part in read]
    crystals = [crystal for part in low for crystal in part.crystals]
    marks = np.repeat([0.0, 1.0], [len(part.values) for part in low])
    for crystal, height in zip(crystals, np.concatenate([part.values for part in low]), strict=True):
        crystal.info[HEIGHT] = height
    data = Labelled(crystals=tuple(crystals), values=marks, name="theoretical")
    held = np.array([is_held_out(formula_of(crystal)) for crystal in crystals])
    return data.part(np.flatnonzero(~held)), data.part(np.flatnonzero(held))


def run_made(model: str, training: Labelled, test: Labelled, folder: Path, end: float) -> dict[str, Any]:
    """Train and test one model of what has been made, and return its scores."""
    from hybridcsp.predictors.synthesizability.reliability import reliability
    from hybridcsp.predictors.synthesizability.reliability import scores as scores_of_marks

    started, more = time.process_time(), {}
    made = test.values == 0
    if model == "hull":
        heights = np.array([crystal.info[HEIGHT] for crystal in test.crystals])
        probability = 1 - heights / 0.1
    elif model == "forest":
        from sklearn.ensemble import RandomForestClassifier

        forest = RandomForestClassifier(300, class_weight="balanced", min_samples_leaf=3, random_state=SEED)
        forest.fit(composition_features(training), training.values == 0)
        probability = forest.predict_proba(composition_features(test))[:, 1]
    else:
        predictor = train_one(MADE, model, training, folder, end)
        prediction = predictor.predict(test.crystals)
        probability = prediction.mean
        outside = np.array([bool(reason) for reason in prediction.outside])
        more = {
            "outside": [float(outside[made].mean()), float(outside[~made].mean())],
            "reliability": reliability(probability, made),
            "second_tenth": predictor.card["held_out"],
        }
    found = scores_of_marks(probability, made)
    return {
        "property": MADE,
        "model": model,
        "training": [int((training.values == 0).sum()), int((training.values == 1).sum())],
        "test": [int(made.sum()), int((~made).sum())],
        **(found if model != "hull" else {key: found[key] for key in ("area", "recall")}),
        "cpu_seconds_of_this_call": round(time.process_time() - started, 1),
        **more,
    }


def train_one(name: str, model: str, training: Labelled, folder: Path, end: float, **settings: Any) -> Any:
    """Return a trained predictor; its training continues from its checkpoint, and is left when the time has ended."""
    from hybridcsp.predictors.registry import PREDICTORS

    predictor = PREDICTORS[model].load().configured("corrected")

    def on_epoch(epoch: Any) -> None:
        line = {"epoch": epoch.number, "part": epoch.part, "seconds": epoch.seconds, **epoch.losses}
        with (folder / "curve.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        if time.monotonic() > end:
            raise OutOfTimeError

    predictor.fit(
        training,
        seed=SEED,
        checkpoint=folder / "checkpoint.safetensors",
        on_epoch=on_epoch,
        checkpoint_minutes=3,
        **settings,
        **SETTINGS[kind(name), model],
    )
    predictor.save(folder / "weights")
    return predictor


def scores(values: np.ndarray, predicted: np.ndarray) -> dict[str, float]:
    errors = predicted - values
    return {
        "mae": float(np.abs(errors).mean()),
        "rmse": float(np.sqrt((errors**2).mean())),
        "r2": float(1 - (errors**2).sum() / ((values - values.mean()) ** 2).sum()),
    }


def composition_features(data: Labelled) -> np.ndarray:
    """Return fractions of the elements, and mean, deviation, minimum and maximum of elemental properties."""
    from hybridcsp.predictors.scales import fractions
    from hybridcsp.structure.elements import properties

    table = fractions(data.crystals)
    values = properties()
    mean = table @ values
    deviation = np.sqrt(np.maximum(table @ values**2 - mean**2, 0))
    extremes = [np.r_[values[np.flatnonzero(row)].min(0), values[np.flatnonzero(row)].max(0)] for row in table]
    return np.hstack([table, mean, deviation, np.array(extremes)])


def run_one(name: str, model: str, training: Labelled, test: Labelled, folder: Path, end: float) -> dict[str, Any]:
    """Train and test one model, and return its scores; the time before an interruption is included."""
    if name == MADE:
        return run_made(model, training, test, folder, end)
    logarithmic = name in LOGARITHMIC
    forward = np.log if logarithmic else np.asarray
    started, more = time.process_time(), {}
    if model == "mean":
        predicted = np.full(len(test.values), forward(training.values).mean())
    elif model == "forest":
        from sklearn.ensemble import RandomForestRegressor

        forest = RandomForestRegressor(n_estimators=300, min_samples_leaf=1, max_features=1 / 3, random_state=SEED)
        forest.fit(composition_features(training), forward(training.values))
        predicted = forest.predict(composition_features(test))
    else:
        predictor = train_one(name, model, training, folder, end, logarithmic=logarithmic)
        prediction = predictor.predict(test.crystals)
        predicted = forward(prediction.mean)
        inside = {
            level: float(np.mean((test.values >= ends[:, 0]) & (test.values <= ends[:, 1])))
            for level, ends in (("50", prediction.interval_50), ("90", prediction.interval_90))
        }
        history = predictor.card["history"]
        more = {"coverage": inside, "epochs": len(history), "second_tenth": predictor.card["held_out"]}
    return {
        "property": name,
        "model": model,
        "training": len(training.values),
        "test": len(test.values),
        "logarithmic": logarithmic,
        **scores(forward(test.values), predicted),
        "cpu_seconds_of_this_call": round(time.process_time() - started, 1),
        **more,
    }


def finished(runs: Path) -> dict[tuple[str, str], dict[str, Any]]:
    file = runs / "results.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    return {(row["property"], row["model"]): row for row in map(json.loads, lines)}


def plan(runs: Path, chosen: list[tuple[str, str]]) -> None:
    left = [task for task in chosen if task not in finished(runs)]
    hours = sum(HOURS.get((kind(name), model), 0.05) for name, model in left)
    print(f"{len(left)} of {len(chosen)} trainings are left, about {hours:.1f} core-hours")


def run(data: Path, runs: Path, chosen: list[tuple[str, str]], minutes: float) -> None:
    import torch

    torch.set_num_threads(1)
    end = time.monotonic() + 60 * minutes
    plan(runs, chosen)
    loaded: dict[str, tuple[Labelled, Labelled]] = {}
    for name, model in chosen:
        if (name, model) in finished(runs):
            continue
        if time.monotonic() > end:
            break
        if name not in loaded:
            loaded = {name: data_of(data, name)}
        folder = runs / f"{name}-{model}"
        folder.mkdir(parents=True, exist_ok=True)
        try:
            row = run_one(name, model, *loaded[name], folder, end)
        except OutOfTimeError:
            break
        except ImportError as error:
            print(f"{name}, {model}: left out, {error}")
            continue
        with (runs / "results.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
        shown = {key: value for key, value in row.items() if key not in ("second_tenth", "reliability")}
        print(json.dumps(shown), flush=True)
    plan(runs, chosen)


def report(runs: Path) -> None:
    rows = finished(runs)
    print(
        "| property | model | MAE | RMSE | R² | coverage of 50 and 90 % | trained on | tested on |\n" + "|---" * 8 + "|"
    )
    for name, model in tasks():
        if (name, model) not in rows or name == MADE:
            continue
        row = rows[name, model]
        covered = " / ".join(f"{value:.0%}" for value in row.get("coverage", {}).values()) or "-"
        shown = f"ln {name}" if row["logarithmic"] else name
        numbers = " | ".join(f"{row[key]:.3g}" for key in ("mae", "rmse", "r2"))
        print(f"| {shown} | {model} | {numbers} | {covered} | {row['training']} | {row['test']} |")
    print(
        "\n| model | area | recall at 5 / 10 / 20 / 50 % of the others | error of the probability |\n"
        + "|---" * 4
        + "|"
    )
    for model in MODELS_OF_MADE:
        if (MADE, model) in rows:
            row = rows[MADE, model]
            recalls = " / ".join(f"{value:.0%}" for value in row["recall"].values())
            error = f"{row['calibration_error']:.3f}" if "calibration_error" in row else "-"
            print(f"| {model} | {row['area']:.3f} | {recalls} | {error} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("plan", "run", "report"))
    parser.add_argument("data", nargs="?", type=Path, help="folder of the data sets, for run")
    parser.add_argument("--runs", type=Path, required=True, help="folder for checkpoints and results")
    parser.add_argument("--property", nargs="+", choices=(FORMATION, *AFLOW, MADE), default=(FORMATION, *AFLOW, MADE))
    parser.add_argument("--model", nargs="+", choices=ALL_MODELS, default=ALL_MODELS)
    parser.add_argument("--minutes", type=float, default=600.0, help="time after which no epoch begins")
    arguments = parser.parse_args()
    chosen = [(name, model) for name, model in tasks() if name in arguments.property and model in arguments.model]
    if arguments.command == "plan":
        plan(arguments.runs, chosen)
    elif arguments.command == "report":
        report(arguments.runs)
    elif arguments.data is None:
        parser.error("run needs the folder of the data sets")
    else:
        run(arguments.data, arguments.runs, chosen, arguments.minutes)


if __name__ == "__main__":
    main()
