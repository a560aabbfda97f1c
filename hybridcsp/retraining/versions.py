"""One new version of a generator: a folder that holds what it is trained on, how, and then its weights."""

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

#: In the run directory.
MODELS = "models"

EXAMPLES, PLAN, REPORT, LOG = "examples.extxyz", "plan.json", "report.json", "training.log"

#: How far a training is, in words, while it runs.
EPOCH = "epoch.txt"

#: Put behind the name of a folder while its version is not complete, and then the number of the process: one that
#: outlives its search does not come between a later one.
UNFINISHED = ".unfinished-"


def folder_of(run: Path, source: str, version: int) -> Path:
    """Where one version of a source's generator is kept; 0 is the generator as it was at the beginning."""
    return run / MODELS / source / f"version-{version}"


def prepare(folder: Path, examples: Sequence[Example], plan: Mapping[str, Any]) -> Path:
    """Write what a version is to be trained on, and how; return the folder to :func:`train` in.

    Parameters
    ----------
    folder
        Of the version.
    examples
        To learn from.
    plan
        ``seed``, and ``settings`` of the generator's ``fit``.
    """
    made = begin(folder)
    ase.io.write(made / EXAMPLES, [_as_frame(example) for example in examples], format="extxyz")
    (made / PLAN).write_text(json.dumps(dict(plan), indent=1) + "\n", encoding="utf-8")
    return made


def begin(folder: Path) -> Path:
    """Make the folder in which a version is kept until it is complete; what is left of earlier ones is removed."""
    folder_within(folder.parents[2], MODELS, folder.parent.name)
    for left in folder.parent.glob(f"{folder.name}{UNFINISHED}*"):
        shutil.rmtree(left, ignore_errors=True)
    made = folder.with_name(f"{folder.name}{UNFINISHED}{os.getpid()}")
    made.mkdir()
    return made


def train(unfinished: Path, generator: Generator) -> None:
    """Train a generator as a prepared folder says, and save it there.

    Parameters
    ----------
    unfinished
        See :func:`prepare`.
    generator
        The prior; it is changed.

    Raises
    ------
    GeneratorError
        If it does not learn.
    """
    plan = read_json(unfinished / PLAN)
    frames = ase.io.read(unfinished / EXAMPLES, ":", format="extxyz")
    assert isinstance(frames, list)
    epochs: list[Epoch] = []
    planned = plan["settings"].get("epochs")

    def note(epoch: Epoch) -> None:
        epochs.append(epoch)
        told = f"epoch {epoch.number}" + (f" of {planned}" if planned else "")
        announce(f"training {unfinished.parent.name}: {told}")
        (unfinished / EPOCH).write_text(told, encoding="utf-8")

    start = time.perf_counter()
    with one_thread():
        try:
            with exits_contained(passing=(KeyboardInterrupt,)):
                generator.fit(
                    [_as_example(atoms) for atoms in frames],
                    seed=int(plan["seed"]),
                    on_epoch=note,
                    **plan["settings"],
                )
                generator.save(unfinished)
        except Exception as error:  # a generator may be anybody's
            raise GeneratorError(f"training failed: {message_of(error)}") from error
    last = epochs[-1] if epochs else Epoch(number=0)
    losses = {name: float(value) for name, value in last.losses.items()}
    report = {"seconds": time.perf_counter() - start, "epochs": last.number, "losses": losses}
    (unfinished / EPOCH).unlink(missing_ok=True)
    (unfinished / REPORT).write_text(json.dumps(report) + "\n", encoding="utf-8")


def epoch_of(unfinished: Path) -> str:
    """Return how far a training beside the search is, in words; empty before its first epoch."""
    try:
        return (unfinished / EPOCH).read_text(encoding="utf-8")
    except OSError:
        return ""


def finish(unfinished: Path) -> tuple[Path, dict[str, Any]]:
    """Give a trained version its name; return its folder and the report of its training."""
    report: dict[str, Any] = read_json(unfinished / REPORT)
    folder = unfinished.with_name(unfinished.name.partition(UNFINISHED)[0])
    shutil.rmtree(folder, ignore_errors=True)  # of a search that was killed before it took note of it
    unfinished.rename(folder)
    return folder, report


def train_apart(unfinished: Path, kind: type, prior: Path | None) -> subprocess.Popen[bytes]:
    """Begin to train in a process of its own, with one thread; it leaves a log.

    Parameters
    ----------
    unfinished
        See :func:`prepare`.
    kind
        Class of the generator.
    prior
        Its weights at the beginning; ``None`` to begin untrained.
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
            process_group=0,  # Ctrl-C is for the search, which ends it
        )


def digest(folder: Path) -> str:
    """Return a hash of the files of a version."""
    found = hashlib.sha256()
    for file in sorted(file for file in folder.iterdir() if file.name not in (PLAN, REPORT, LOG, EXAMPLES)):
        found.update(file.name.encode() + b"\0" + file.read_bytes())
    return found.hexdigest()


def check(folder: Path, expected: str) -> None:
    """Make sure that a version which a search goes on with is the one it used.

    Raises
    ------
    ArchiveError
        If it is missing or has changed.
    """
    if not folder.is_dir():
        raise ArchiveError(f"{folder} is missing: a generator that this search has retrained")
    if digest(folder) != expected:
        raise ArchiveError(f"{folder} is not what this search has retrained: its files were changed or are damaged")


def _as_frame(example: Example) -> Atoms:
    atoms = Atoms(example.atoms.numbers, positions=example.atoms.positions, cell=example.atoms.cell, pbc=True)
    atoms.info["weight"] = example.weight
    for name in ("energy_quantile", "pressure_gpa"):
        if getattr(example, name) is not None:
            atoms.info[name] = getattr(example, name)
    return atoms


def _as_example(atoms: Atoms) -> Example:
    known = {name: float(atoms.info[name]) for name in ("energy_quantile", "pressure_gpa") if name in atoms.info}
    bare = Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=True)
    return Example(atoms=bare, weight=float(atoms.info["weight"]), **known)
