"""Versions of retrained generators: their folders, and the training in this process or in one of its own."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ase.io
from ase import Atoms

from hybridcsp.errors import ArchiveError, GeneratorError, message_of
from hybridcsp.generators.base import Epoch, Example, Generator
from hybridcsp.generators.loading import one_thread
from hybridcsp.utils.activity import announce
from hybridcsp.utils.files import folder_within, open_log
from hybridcsp.utils.interrupts import exits_contained
from hybridcsp.utils.processes import python_command, python_path
from hybridcsp.utils.reading import read_json

#: Folder of all versions, in the run directory.
MODELS = "models"

#: Files of a version besides the weights and the card of its generator.
EXAMPLES, PLAN, REPORT, LOG = "examples.extxyz", "plan.json", "report.json", "training.log"

# Start of the names under which the file of examples keeps their properties.
_PROPERTY = "property_"

#: File with the current epoch in words, while a training runs.
EPOCH = "epoch.txt"

#: Suffix of the folder of an incomplete version, followed by the number of the process: one that outlives
#: its search cannot disturb a later one.
UNFINISHED = ".unfinished-"


def version_folder(run: Path, source: str, version: int) -> Path:
    """Return the folder of one version of a source's generator; 0 is the version that the search began with."""
    return run / MODELS / source / f"version-{version}"


def prepare(folder: Path, examples: Sequence[Example], plan: Mapping[str, Any]) -> Path:
    """Write the training set and the plan of a version; return the folder that :func:`train` takes.

    Parameters
    ----------
    folder
        Folder of the version.
    examples
        Training set.
    plan
        ``seed``, and ``settings`` of the generator's ``fit``.
    """
    unfinished = begin(folder)
    ase.io.write(unfinished / EXAMPLES, [_to_frame(example) for example in examples], format="extxyz")
    (unfinished / PLAN).write_text(json.dumps(dict(plan), indent=1) + "\n", encoding="utf-8")
    return unfinished


def begin(folder: Path) -> Path:
    """Make the folder of an incomplete version, and remove those of earlier attempts."""
    folder_within(folder.parents[2], MODELS, folder.parent.name)
    for abandoned in folder.parent.glob(f"{folder.name}{UNFINISHED}*"):
        shutil.rmtree(abandoned, ignore_errors=True)
    unfinished = folder.with_name(f"{folder.name}{UNFINISHED}{os.getpid()}")
    unfinished.mkdir()
    return unfinished


def train(unfinished: Path, generator: Generator) -> None:
    """Train a generator according to a prepared folder, and save it there with a report.

    Parameters
    ----------
    unfinished
        Folder that :func:`prepare` has returned.
    generator
        Generator with the initial weights, which are changed.

    Raises
    ------
    GeneratorError
        If the training or the saving fails.
    """
    plan = read_json(unfinished / PLAN)
    frames = ase.io.read(unfinished / EXAMPLES, ":", format="extxyz")
    assert isinstance(frames, list)
    epochs: list[Epoch] = []
    planned = plan["settings"].get("epochs")

    def show_epoch(epoch: Epoch) -> None:
        epochs.append(epoch)
        text = f"epoch {epoch.number}" + (f" of {planned}" if planned else "")
        announce(f"training {unfinished.parent.name}: {text}")
        (unfinished / EPOCH).write_text(text, encoding="utf-8")

    start = time.perf_counter()
    with one_thread():
        try:
            with exits_contained(passing=(KeyboardInterrupt,)):
                generator.fit(
                    [_to_example(atoms) for atoms in frames],
                    seed=int(plan["seed"]),
                    on_epoch=show_epoch,
                    **plan["settings"],
                )
                generator.save(unfinished)
        except Exception as error:  # generators of users may fail in any way
            raise GeneratorError(f"training failed: {message_of(error)}") from error
    last = epochs[-1] if epochs else Epoch(number=0)
    losses = {name: float(value) for name, value in last.losses.items()}
    report = {"seconds": time.perf_counter() - start, "epochs": last.number, "losses": losses}
    (unfinished / EPOCH).unlink(missing_ok=True)
    (unfinished / REPORT).write_text(json.dumps(report) + "\n", encoding="utf-8")


def read_epoch(unfinished: Path) -> str:
    """Return the current epoch of a running training in words; empty before its first epoch."""
    try:
        return (unfinished / EPOCH).read_text(encoding="utf-8")
    except OSError:
        return ""


def finish(unfinished: Path) -> tuple[Path, dict[str, Any]]:
    """Rename the folder of a trained version to its final name; return it with the report of the training."""
    report: dict[str, Any] = read_json(unfinished / REPORT)
    folder = unfinished.with_name(unfinished.name.partition(UNFINISHED)[0])
    shutil.rmtree(folder, ignore_errors=True)  # left by a search that was killed before it recorded the version
    unfinished.rename(folder)
    return folder, report


def train_in_subprocess(unfinished: Path, kind: type[Generator], prior: Path | None) -> subprocess.Popen[bytes]:
    """Start a training in a process of its own, with one thread and a log.

    Parameters
    ----------
    unfinished
        Folder that :func:`prepare` has returned.
    kind
        Class of the generator.
    prior
        Folder of the initial weights, or ``None`` to start untrained.
    """
    target = f"{kind.__module__}:{kind.__qualname__}"
    arguments = [str(os.getpid()), str(unfinished), target, "" if prior is None else str(prior)]
    with open_log(unfinished / LOG) as log:
        return subprocess.Popen(
            python_command("hybridcsp.retraining.subprocess_main", *arguments),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONPATH": python_path()},
            process_group=0,  # Ctrl-C reaches the search alone, which ends this process
        )


def digest(folder: Path) -> str:
    """Return a hash of the generator's files in the folder of a version."""
    found = hashlib.sha256()
    for file in sorted(file for file in folder.iterdir() if file.name not in (PLAN, REPORT, LOG, EXAMPLES)):
        found.update(file.name.encode() + b"\0" + file.read_bytes())
    return found.hexdigest()


def check(folder: Path, expected: str) -> None:
    """Check that a version is the one that the search has trained.

    Parameters
    ----------
    folder
        Folder of the version.
    expected
        Hash of its files, see :func:`digest`.

    Raises
    ------
    ArchiveError
        If the folder is missing or its files have changed.
    """
    if not folder.is_dir():
        raise ArchiveError(
            f"{folder} is missing: it holds a generator that this search has retrained; restore it to resume the search"
        )
    if digest(folder) != expected:
        raise ArchiveError(
            f"{folder} does not hold the generator that this search has retrained, because its files were changed or "
            "are damaged; restore them to resume the search"
        )


def _to_frame(example: Example) -> Atoms:
    atoms = Atoms(example.atoms.numbers, positions=example.atoms.positions, cell=example.atoms.cell, pbc=True)
    atoms.info["weight"] = example.weight
    for name, value in (("energy_quantile", example.energy_quantile), ("pressure_gpa", example.pressure_gpa)):
        if value is not None:
            atoms.info[name] = value
    atoms.info.update({_PROPERTY + name: value for name, value in example.properties.items()})
    return atoms


def _to_example(atoms: Atoms) -> Example:
    info = {name: float(value) for name, value in atoms.info.items()}
    return Example(
        atoms=Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=True),
        weight=info["weight"],
        energy_quantile=info.get("energy_quantile"),
        pressure_gpa=info.get("pressure_gpa"),
        properties={name.removeprefix(_PROPERTY): x for name, x in info.items() if name.startswith(_PROPERTY)},
    )
