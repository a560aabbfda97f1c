"""Inverse design by active transfer learning: rounds of sampling, evaluation, selection and training."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from hybridcsp.errors import InputError
from hybridcsp.generators.base import Example, Generator, Request, Sample
from hybridcsp.generators.loading import one_thread, open_generator
from hybridcsp.predictors.base import Predictor
from hybridcsp.relaxation.calculators.registry import CalculatorLike
from hybridcsp.similarity import StructureIndex
from hybridcsp.structure.validity import is_finite_crystal, is_plausible
from hybridcsp.utils.files import atomic_folder, make_folder
from hybridcsp.utils.locks import FileLock, LockFileError, LockHeldError
from hybridcsp.workflows import design_rounds as files
from hybridcsp.workflows.design_contents import contents_of, contents_of_round
from hybridcsp.workflows.design_evaluation import Evaluation
from hybridcsp.workflows.design_lessons import bare, lessons, replayed_with
from hybridcsp.workflows.design_properties import predicted, predictors_by_name, properties_of_targets
from hybridcsp.workflows.design_rounds import RoundAccount, RoundFolder


@dataclass(frozen=True, kw_only=True)
class Design:
    """Represent the settings of an inverse design.

    Attributes
    ----------
    generator
        Name or folder of weights of the generator.
    targets
        Lowest and highest wanted value of each property.
    cells
        Contents of the cells that are sampled in turn; if empty, they are chosen by
        :func:`~hybridcsp.workflows.design_contents.contents_of_round`.
    rounds
        Number of rounds. The generator learns between them.
    samples
        Number of samples in each round.
    epochs, learning_rate, anchor
        Settings of each training (:class:`hybridcsp.training.settings.TrainingSettings`).
    max_steps
        Largest number of force calls of a relaxation.
    seed
        Random seed.

    Raises
    ------
    InputError
        If there is no target, or a number is out of its range.
    """

    generator: str
    targets: Mapping[str, tuple[float, float]]
    cells: Sequence[Mapping[str, int]] = ()
    rounds: int = 3
    samples: int = 100
    epochs: int = 20
    learning_rate: float = 2e-4
    anchor: float = 10.0
    max_steps: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.targets:
            raise InputError("--target", None, reason="a design needs at least one target, such as band_gap=1.5..2.5")
        for name in ("rounds", "samples", "epochs", "max_steps"):
            if getattr(self, name) < 1:
                raise InputError(name, getattr(self, name), "a whole number from 1")


class Designer:
    """Run the rounds of an inverse design in a run directory.

    The same call continues after every interruption: what is complete in the directory is not repeated, and the results
    are those of a run without interruption.

    Parameters
    ----------
    design
        Settings.
    directory
        Run directory, a new one or that of the same design.
    predictors
        Predictors of the properties that are not calculated.
    checks
        Further predictors of the properties, which only check what the others have selected; they should have been
        trained on other data.
    examples
        Training data with the properties as far as they are known, from which some are learned again in each round,
        and that count as known crystals.
    calculator
        Calculator with which samples are relaxed before their properties are predicted; ``None`` for no relaxation.
    workers
        Number of processes that relax.
    on_progress
        Function that is called with a short text when a step begins.

    Raises
    ------
    InputError
        If the settings do not fit together, or the directory cannot be used.
    """

    def __init__(
        self,
        design: Design,
        directory: Path,
        *,
        predictors: Sequence[Predictor] = (),
        checks: Sequence[Predictor] = (),
        examples: Sequence[Example] = (),
        calculator: CalculatorLike | None = None,
        workers: int | None = None,
        on_progress: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.design = design
        self.directory = directory
        self._evaluation = Evaluation(
            design.targets,
            properties_of_targets(design.targets, predictors, relaxed=calculator is not None),
            {name: predicted(one) for name, one in predictors_by_name(checks, design.targets, "--check").items()},
            [example.atoms for example in examples],
        )
        self.initial = open_generator(design.generator)
        if design.rounds > 1 and not self.initial.learns:
            reason = f"{self.initial.name} cannot be trained, which a design of several rounds needs; set --rounds 1"
            raise InputError("generator", design.generator, reason=reason)
        if not design.cells and not examples:
            reason = "a design needs a formula, or training data (--data) from which the contents of cells are taken"
            raise InputError("--formula", None, reason=reason)
        self.examples = list(examples)
        self.calculator = calculator
        self.workers = workers
        self._progress = on_progress
        self._record = {
            **asdict(design),
            "targets": {name: [_plain(end) for end in ends] for name, ends in sorted(design.targets.items())},
            "cells": [dict(cell) for cell in design.cells],
            "calculator": None if calculator is None else str(calculator),
            "weights": self.initial.card.get("weights_sha256"),
            "predictors": [str(one.card.get("weights_sha256")) for one in predictors],
            "checks": [str(one.card.get("weights_sha256")) for one in checks],
            "training_crystals": len(self.examples),
        }

    def run(self, on_round: Callable[[RoundAccount], None] = lambda _: None) -> list[RoundAccount]:
        """Run all rounds that are not complete, and return the accounts of all.

        Parameters
        ----------
        on_round
            Function that is called with the account of each round, of complete ones as well.

        Raises
        ------
        InputError
            If the directory is in use, or holds another design.
        GeneratorError
            If the generator raises.
        """
        make_folder(self.directory, key="--directory")
        with _locked(self.directory):
            files.check_same_settings(self.directory, self._record)
            accounts: list[RoundAccount] = []
            seen = StructureIndex(energy_window=None)
            evaluated: list[Atoms] = []
            for number in range(1, self.design.rounds + 1):
                folder = RoundFolder(self.directory, number)
                account = folder.account
                if account is None:
                    account = self._round(folder, evaluated, seen)
                    files.write_account(folder, account)
                for atoms in folder.crystals():
                    if not atoms.info["repeated"]:
                        seen.add(len(seen), atoms)
                        evaluated.append(atoms)
                accounts.append(account)
                self._write_results(accounts, evaluated)
                on_round(account)
            return accounts

    def _round(self, folder: RoundFolder, evaluated: Sequence[Atoms], seen: StructureIndex) -> RoundAccount:
        seconds: dict[str, float] = {}
        with _timed(seconds, "training"):
            generator, learned = self._generator(folder, evaluated)
        with _timed(seconds, "sampling"):
            sampled = self._sample(folder, generator, evaluated)
        crystals = files.read_frames(folder.path / files.SAMPLES)
        relaxed, force_calls = None, 0
        unique = _distinct(crystals)
        if self.calculator is not None:
            with _timed(seconds, "relaxation"):
                ends, force_calls = self._relax(folder, unique)
            relaxed = len(ends)
            unique = _distinct(ends)
        with _timed(seconds, "evaluation"):
            self._progress(f"evaluating {len(unique)} crystals")
            self._evaluation.evaluate(unique)
        for atoms in unique:
            atoms.info |= {"round": folder.number, "repeated": seen.find(atoms) is not None}
        files.write_frames(folder.path / files.CRYSTALS, unique)
        return RoundAccount(
            number=folder.number,
            drawn=sampled["drawn"],
            valid=sampled["valid"],
            relaxed=relaxed,
            **self._evaluation.summary(folder.crystals()),
            learned=learned,
            rejects=sampled["rejects"],
            seconds={name: round(value, 1) for name, value in seconds.items()},
            force_calls=force_calls,
        )

    def _generator(self, folder: RoundFolder, evaluated: Sequence[Atoms]) -> tuple[Generator, dict[str, int]]:
        """Return the generator of a round, trained on the crystals of earlier rounds, and numbers of its examples."""
        if folder.number == 1:
            return self.initial, {}
        weights = folder.path / files.GENERATOR
        conditioned = set(self.design.targets) <= self.initial.targets
        examples = lessons(evaluated, self.design.targets, conditioned=conditioned)
        rng = np.random.default_rng([self.design.seed, folder.number, 1])
        replayed = replayed_with(examples, self.examples, rng, conditioned=conditioned)
        learned = {"designed": len(examples), "replayed": len(replayed)}
        before = self.initial
        if folder.number > 2:
            before = type(self.initial).load(self.directory / f"round-{folder.number - 1}" / files.GENERATOR)
        if not weights.exists():
            self._progress(f"round {folder.number}: training on {len(examples)} new and {len(replayed)} known crystals")
            trained = before if folder.number > 2 else open_generator(self.design.generator)
            if examples:
                with one_thread():
                    trained.fit(
                        [*examples, *replayed],
                        seed=self.design.seed + folder.number,
                        checkpoint=folder.path / files.CHECKPOINT,
                        **{
                            **trained.fine_tuning,
                            "epochs": self.design.epochs,
                            "learning_rate": self.design.learning_rate,
                            "anchor": self.design.anchor,
                        },
                    )
            with atomic_folder(weights, key="--directory") as temporary:
                trained.save(temporary)
            for checkpoint in folder.path.glob(f"*{files.CHECKPOINT}"):
                checkpoint.unlink()
        return type(self.initial).load(weights), learned

    def _sample(self, folder: RoundFolder, generator: Generator, evaluated: Sequence[Atoms]) -> dict[str, Any]:
        """Sample crystals into the folder of a round, and return the counts."""
        done = files.read_record(folder.path / files.SAMPLED)
        if done is not None:
            return done
        self._progress(f"round {folder.number}: sampling {self.design.samples} crystals")
        rng = np.random.default_rng([self.design.seed, folder.number])
        targets = {name: ends for name, ends in self.design.targets.items() if name in generator.targets}
        if self.design.cells:
            cells = [dict(self.design.cells[i % len(self.design.cells)]) for i in range(self.design.samples)]
        else:
            known = [contents_of(example.atoms) for example in self.examples]
            cells = contents_of_round(self.design.samples, known, evaluated, self.design.targets, rng)
        requests = [Request(contents=cell, targets=targets) for cell in cells]
        with one_thread():
            answers = generator.sample(requests, rng)
        rejects: Counter[str] = Counter()
        valid = []
        for answer in answers:
            if not isinstance(answer, Sample):
                rejects[answer.reason] += 1
            elif not (is_finite_crystal(answer.atoms) and is_plausible(answer.atoms)):
                rejects["not a plausible crystal"] += 1
            else:
                valid.append(bare(answer.atoms))
        files.write_frames(folder.path / files.SAMPLES, valid)
        counts = {"drawn": len(requests), "valid": len(valid), "rejects": dict(rejects)}
        files.write_record(folder.path / files.SAMPLED, counts)
        return counts

    def _relax(self, folder: RoundFolder, crystals: Sequence[Atoms]) -> tuple[list[Atoms], int]:
        """Relax crystals, and return those that have converged and the number of force calls."""
        from hybridcsp.core.records import Limits
        from hybridcsp.datasets.relaxation import relax_crystals
        from hybridcsp.io.relaxation_folders import FAILED
        from hybridcsp.io.relaxation_folders import RELAXED as CONVERGED

        if not crystals:
            return [], 0
        assert self.calculator is not None
        self._progress(f"round {folder.number}: relaxing {len(crystals)} crystals")
        where = folder.path / files.RELAXED
        limits = Limits(force_calls=self.design.max_steps)
        relax_crystals(crystals, where, calculator=self.calculator, limits=limits, workers=self.workers)
        ends = sorted(files.read_frames(where / CONVERGED), key=lambda atoms: int(atoms.info["number"]))
        failed = files.read_frames(where / FAILED)
        return ends, sum(int(atoms.info.get("force_calls", 0)) for atoms in [*ends, *failed])

    def _write_results(self, accounts: Sequence[RoundAccount], crystals: Sequence[Atoms]) -> None:
        """Write the accounts, and the crystals within the targets."""
        found = [atoms for atoms in crystals if atoms.info["within"]]
        files.write_frames(self.directory / files.FOUND, found)
        record = {"settings": self._record, "rounds": [asdict(account) for account in accounts]}
        files.write_record(self.directory / files.ACCOUNTS, record)


def _distinct(crystals: Sequence[Atoms]) -> list[Atoms]:
    """Return the different ones among crystals."""
    seen = StructureIndex(energy_window=None)
    found = []
    for atoms in crystals:
        if seen.find(atoms) is None:
            seen.add(len(seen), atoms)
            found.append(atoms)
    return found


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None


@contextmanager
def _timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    begun = time.monotonic()
    yield
    seconds[name] = time.monotonic() - begun


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    try:
        lock = FileLock(directory / files.LOCK)
    except LockHeldError as error:
        raise InputError("--directory", directory, reason=f"it is in use by {error.holder}") from None
    except LockFileError as error:
        raise InputError("--directory", directory, reason=f"it cannot be used: {error}") from None
    try:
        yield
    finally:
        lock.release()
