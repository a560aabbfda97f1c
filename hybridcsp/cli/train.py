"""Provide the command ``hybridcsp train``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hybridcsp.cli.app import app
from hybridcsp.cli.console import console
from hybridcsp.cli.generators import DATA, MAX_ATOMS, SEED, check_exists
from hybridcsp.cli.output import as_argument
from hybridcsp.cli.progress import busy
from hybridcsp.cli.train_predictor import PropertyChoice, train_predictor
from hybridcsp.cli.training import Choices, checked_output, errors_of_options, finish, run_training
from hybridcsp.cli.values import read_number
from hybridcsp.errors import InputError, UnknownNameError

if TYPE_CHECKING:
    from hybridcsp.training.epoch import Epoch

MODEL = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="Name of a generator or predictor (see hybridcsp generators and hybridcsp predictors), or a folder with "
        "the weights of a generator.",
    ),
]


@app.command(
    epilog="Examples:\n\n"
    "  hybridcsp train wyckoff --data mp20.extxyz --data my_structures/ --output my_wyckoff\n\n"
    "  hybridcsp train my_wyckoff --data oxides.extxyz --output oxides --epochs 20 --learning-rate 2e-4\n\n"
    "  hybridcsp train diffusion --data mp20.extxyz --output my_diffusion --size gpu --set batch_size=512\n\n"
    "  hybridcsp train cgcnn --data mp20.extxyz --property band_gap --members 4 --output gap\n\n"
    "  hybridcsp train synthesizability --data made.extxyz --data substituted.extxyz --output made"
)
def train(
    model: MODEL,
    data: DATA,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder for weights, model card and learning curve.",
            show_default="NAME-trained",
        ),
    ] = None,
    epochs: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Largest number of epochs.", min=1, show_default="depends on the generator, mostly 100"
        ),
    ] = None,
    learning_rate: Annotated[
        str | None,
        typer.Option(
            metavar="RATE",
            help="Learning rate of the optimiser.",
            show_default="depends on the generator, mostly 0.001",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any other training setting. Repeatable.", show_default="none"),
    ] = None,
    max_atoms: MAX_ATOMS = 20,
    plot: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Plot the learning curve to a .png, .pdf or .svg file.",
            show_default="curve.png in the output folder",
        ),
    ] = None,
    seed: SEED = 0,
    properties: Annotated[
        list[str] | None,
        typer.Option(
            "--property",
            metavar="NAME",
            help="Property to learn, a number in the info of the structures. Repeatable for generators.",
            show_default="none; theoretical for synthesizability",
        ),
    ] = None,
    unit: Annotated[
        str | None,
        typer.Option(
            metavar="UNIT", help="Unit of the property.", show_default="told by its name, such as bulk_modulus_gpa"
        ),
    ] = None,
    logarithmic: Annotated[
        bool, typer.Option("--log", help="Learn the logarithm of the property, which must be positive.")
    ] = False,
    members: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Number of networks of a predictor, whose spread is its uncertainty.",
            min=1,
            show_default="1, synthesizability 5",
        ),
    ] = None,
    configuration: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Configuration of the model: published (as its authors made it) or corrected.",
            show_default="corrected, if there is a choice",
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Size of the networks of a new generator: cpu or gpu (wyckoff, flow, diffusion), compact or published "
            "(imatgen, ftcp, ccdcgan).",
            show_default="cpu or that of the configuration",
        ),
    ] = None,
) -> None:
    """Train a generator or a predictor on crystal structures.

    The name of a model starts from random weights, a folder starts from its weights. One tenth of the formulas is
    held out for early stopping. After an interruption, run the same command again to continue. On a GPU, mixed
    precision is used. If the structures have energies above the hull (e_above_hull), the generator can be conditioned
    on low energies.

    A predictor learns one property (--property) and predicts it: see hybridcsp predictors. Its errors on the held-out
    tenth are shown, and calibrate its uncertainties. Its training starts from random weights. The predictor
    synthesizability learns which crystals have been made: those with theoretical=0; all others are taken for crystals
    of which only a computation is known.

    At the end, the held-out loss is shown (also as curve.csv and curve.png in the output folder), with an assessment:
    whether the training has converged, and whether the weights are better than the initial ones.
    """
    from hybridcsp.generators.registry import GENERATORS
    from hybridcsp.predictors.loading import predictor_of
    from hybridcsp.predictors.registry import PREDICTORS
    from hybridcsp.utils.paths import expanded

    chosen = _settings(settings or [], epochs, learning_rate)
    for path in data:
        check_exists("--data", path)
    choices = Choices(data=data, output=output, settings=chosen, max_atoms=max_atoms, plot=plot, seed=seed)
    names = list(dict.fromkeys(properties or []))
    if model in PREDICTORS:
        if size is not None:
            reason = f"it is for generators, and {model} is a predictor"
            raise InputError("--size", size, reason=reason)
        if len(names) > 1:
            reason = f"{model} learns one property; train a predictor for each"
            raise InputError("--property", ", ".join(names), reason=reason)
        choice = PropertyChoice(
            name=names[0] if names else None,
            unit=unit,
            logarithmic=logarithmic,
            members=members,
            configuration="corrected" if configuration is None else configuration,
        )
        train_predictor(model, choice, choices)
        return
    if predictor_of(expanded(model)) is not None:
        reason = "predictors are trained from random weights, and it is a folder; give the name of a predictor"
        raise InputError("MODEL", model, reason=reason)
    if model not in GENERATORS and not (expanded(model).exists() or "/" in model or model.startswith(".")):
        raise UnknownNameError("MODEL", model, [*GENERATORS.entries(), *PREDICTORS.entries()], "or a folder of weights")
    for option, value in (
        ("--unit", unit),
        ("--log", logarithmic or None),
        ("--members", members),
    ):
        if value is not None:
            reason = f"it is for predictors ({', '.join(PREDICTORS.entries())}), and {model} is a generator"
            raise InputError(option, value, reason=reason)
    _train_generator(model, choices, names, configuration, size)


def _train_generator(
    generator: str, choices: Choices, properties: list[str], configuration: str | None, size: str | None
) -> None:
    from hybridcsp.generators.datasets import read_dataset
    from hybridcsp.generators.loading import find_generator, new_generator, open_generator

    entry, folder = find_generator(generator)
    output, picture = checked_output(choices, entry.name)
    if folder is not None and configuration is not None:
        reason = "weights in a folder have a configuration already; name the generator to start anew"
        raise InputError("--configuration", configuration, reason=reason)
    if folder is not None and size is not None:
        reason = "weights in a folder have a size already; name the generator to start anew"
        raise InputError("--size", size, reason=reason)
    with busy(f"loading {generator}"):
        model = new_generator(entry.name, configuration, size) if folder is None else open_generator(generator)
    if properties and not model.learns_properties:
        reason = f"{entry.name} does not learn properties; leave out --property"
        raise InputError("--property", ", ".join(properties), reason=reason)
    before = dict(model.card)
    with busy("reading crystals"):
        dataset = read_dataset(choices.data, max_atoms=choices.max_atoms, properties=properties)
    skipped = ", ".join(f"{n} {reason}" for reason, n in dataset.skipped.items())
    console.print(f"{len(dataset.examples)} crystals" + (f" (skipped: {skipped})" if skipped else ""), highlight=False)
    for name in properties:
        n = sum(name in example.properties for example in dataset.examples)
        console.print(f"{n} of them have {name}", highlight=False, markup=False)

    def fit(checkpoint: Path, on_epoch: Callable[[Epoch], None]) -> None:
        model.fit(dataset.examples, seed=choices.seed, checkpoint=checkpoint, on_epoch=on_epoch, **choices.settings)

    with errors_of_options(choices):
        curve = run_training(fit, output)
    formulas = {f for card in (before, model.card) for f in str(card.get("training_formulas", "")).split()}
    model.card = {
        **model.card,
        "data": dataset.provenance,
        **({"training_formulas": " ".join(sorted(formulas))} if formulas else {}),
    }
    model.save(output)
    finish(curve, output, picture, f"{entry.name}, {len(dataset.examples)} crystals", pretrained=folder is not None)
    where = as_argument(output)
    console.print(
        f"Wrote weights to {output}. Evaluate them on other crystals: hybridcsp evaluate {where} --data PATH. "
        f"Use them in a search: hybridcsp search FORMULA --source generative:{where}",
        highlight=False,
        soft_wrap=True,
    )


def _settings(given: list[str], epochs: int | None, learning_rate: str | None) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise InputError("--set", text, "a key and a value, written KEY=VALUE, such as batch_size=256")
        if key in ("seed", "checkpoint", "on_epoch"):
            raise InputError(
                "--set",
                text,
                reason="it is not a setting; the random seed is set by --seed, and checkpoints are always written",
            )
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    if epochs is not None:
        found["epochs"] = epochs
    if learning_rate is not None:
        found["learning_rate"] = read_number("--learning-rate", learning_rate, "a positive number")
    return found
