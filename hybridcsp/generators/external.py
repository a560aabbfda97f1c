"""Generators that are programs of other packages, run as a command whenever more samples are wanted."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from ase import Atoms
from ase.formula import Formula

from hybridcsp.errors import GeneratorError, InputError
from hybridcsp.generators.base import Epoch, Example, Generator, Reject, Request, Sample
from hybridcsp.io.frames import ReadFailure
from hybridcsp.io.structure_files import read_structures
from hybridcsp.structure.symmetry import primitive
from hybridcsp.utils import process_watch
from hybridcsp.utils.files import end_of_log, open_log
from hybridcsp.utils.processes import end_processes

#: What a template may hold, and what takes its place.
PLACEHOLDERS = ("formula", "n", "seed", "output")

#: How much of what a failed command wrote an error shows, in characters.
_TAIL = 600

#: Seconds between looks at a program that is running.
_POLL = 0.02


@dataclass(frozen=True)
class Command:
    """How another program is made to generate; no shell is involved.

    Parameters
    ----------
    command
        The program and its arguments. In each, ``{formula}`` becomes the contents of one primitive cell (``Ti2O4``),
        ``{n}`` the number of structures wanted, ``{seed}`` a whole number and ``{output}`` a path that does not exist
        yet: where the program writes a file, or a folder of files, of structures.
    timeout
        Seconds after which it is stopped, and all that it has started.
    samples
        Structures asked for at a time. Where ``{formula}`` occurs, the program runs once for each number of formula
        units, with its share of them.
    suffix
        Of ``{output}``, which tells the format of a file (``.extxyz``, ``.cif``, ``.zip``, ``.csv``); empty for a
        folder.

    Raises
    ------
    InputError
        If nothing would tell the program where to write, or a placeholder is not known.
    """

    command: tuple[str, ...]
    timeout: float = 600.0
    samples: int = 32
    suffix: str = ".extxyz"

    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        object.__setattr__(self, "command", tuple(self.command))
        if not self.command or not self.command[0]:
            raise InputError("command", list(self.command), "a program and its arguments")
        found = {name for part in self.command for name in re.findall(r"\{(\w+)\}", part)}
        if unknown := sorted(found - set(PLACEHOLDERS)):
            known = ", ".join(f"{{{name}}}" for name in PLACEHOLDERS)
            raise InputError("command", f"{{{unknown[0]}}}", f"no such placeholder; there are {known}")
        if "output" not in found:
            raise InputError("command", shlex.join(self.command), "{output} must tell the program where to write")
        if not self.timeout > 0:
            raise InputError("timeout", self.timeout, "a positive number of seconds")
        if self.samples < 1:
            raise InputError("samples", self.samples, "a whole number from 1")

    @property
    def wants_formula(self) -> bool:
        """Whether it is told what to make."""
        return any("{formula}" in part for part in self.command)

    def filled(self, **values: object) -> list[str]:
        """Return the arguments with values in the place of placeholders; braces of other kinds stay."""
        return [re.sub(r"\{(\w+)\}", lambda match: str(values[match.group(1)]), part) for part in self.command]


class CommandGenerator(Generator):
    """A program of another kind as a generator: each request for samples runs it.

    It honours no condition and does not learn.

    Parameters
    ----------
    name
        What to call it.
    command
        How it is run.
    """

    # Running the command again would take long, and may return other samples.
    caches_samples = True
    learns = False

    def __init__(self, name: str, command: Command) -> None:
        self.name = name
        self.command = command
        self.batch_size = command.samples
        self.card: Mapping[str, Any] = {"command": list(command.command)}

    def sample(
        self, requests: Sequence[Request], rng: np.random.Generator, stop: threading.Event | None = None
    ) -> list[Sample | Reject]:
        """Run the program, once for each cell contents if it is told what to make.

        Parameters
        ----------
        requests, rng
            As for every generator.
        stop
            Ends the program when it is set.

        Raises
        ------
        GeneratorError
            If it cannot be started, hangs, fails, is stopped, or leaves nothing that can be read.
        """
        waiting: defaultdict[str, deque[int]] = defaultdict(deque)
        told: dict[str, str] = {}
        for number, request in enumerate(requests):
            formula = "".join(f"{symbol}{count}" for symbol, count in request.contents.items())
            key = Formula(formula).format("hill")
            told[key] = formula
            waiting[key].append(number)
        answers: list[Sample | Reject] = [Reject(request=i, reason="not returned") for i in range(len(requests))]
        if self.command.wants_formula:
            runs = [(formula, len(waiting[key])) for key, formula in told.items()]
        else:
            runs = [("", len(requests))]
        for formula, n in runs:
            for atoms in self._run(formula, n, int(rng.integers(2**31)), stop or threading.Event()):
                found = atoms if waiting.get(_contents(atoms)) else primitive(atoms)
                if numbers := waiting.get(_contents(found)):
                    likelihood = atoms.info.get("log_likelihood")
                    sample = Sample(
                        atoms=found,
                        request=numbers.popleft(),
                        log_likelihood=float(likelihood) if isinstance(likelihood, int | float) else None,
                    )
                    answers[sample.request] = sample
        return answers

    def _run(self, formula: str, n: int, seed: int, stop: threading.Event) -> list[Atoms]:
        with tempfile.TemporaryDirectory() as folder:
            output, log = Path(folder) / f"output{self.command.suffix}", Path(folder) / "log"
            argv = self.command.filled(formula=formula, n=n, seed=seed, output=output)
            self._execute(argv, log, stop)
            if not output.exists():
                raise GeneratorError(f"{self.name} ended well but wrote no {output.name}{_tail(log)}")
            found = list(read_structures(output))
        crystals = [frame.atoms for frame in found if not isinstance(frame, ReadFailure)]
        useless = Counter(broken.reason for broken in found if isinstance(broken, ReadFailure))
        if not crystals:
            said = useless.most_common(1)
            raise GeneratorError(f"{self.name} wrote no crystal: {said[0][0] if said else 'an empty folder'}")
        return crystals

    def _execute(self, argv: list[str], log: Path, stop: threading.Event) -> None:
        if shutil.which(argv[0]) is None:
            raise GeneratorError(f"{self.name} cannot be started: no program {argv[0]!r}")
        if stop.is_set():
            raise GeneratorError(f"{self.name} was stopped before it began")
        with open_log(log) as written:
            try:
                process = subprocess.Popen(
                    [sys.executable, "-I", str(process_watch.__file__), str(os.getpid()), *argv],
                    stdin=subprocess.DEVNULL,
                    stdout=written,
                    stderr=written,
                    cwd=log.parent,
                    process_group=0,  # what it starts can be ended together with it
                )
            except OSError as error:
                raise GeneratorError(f"{self.name} cannot be started: {error}") from error
            start = time.monotonic()
            try:
                while (status := process.poll()) is None:
                    passed = time.monotonic() - start
                    if passed > self.command.timeout or stop.wait(_POLL):
                        raise GeneratorError(f"{self.name} was stopped after {passed:.0f} s")
            finally:
                end_processes([process])
        if status != 0:
            raise GeneratorError(f"{self.name} ended with exit status {status}{_tail(log)}")

    def fit(
        self,
        examples: Sequence[Example],
        *,
        seed: int = 0,
        checkpoint: Path | None = None,
        on_epoch: Callable[[Epoch], None] | None = None,
        **settings: Any,
    ) -> None:
        """Raise: an external program is trained by its own means."""
        raise GeneratorError(f"{self.name} is an external program and does not learn here")

    def save(self, folder: Path) -> None:
        """Raise: there is nothing to save."""
        raise GeneratorError(f"{self.name} is an external program and has no weights here")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Raise: there is nothing to load."""
        raise GeneratorError(f"{folder}: an external program has no weights here")


def _contents(atoms: Atoms) -> str:
    return str(atoms.symbols.get_chemical_formula("hill"))


def _tail(log: Path) -> str:
    text = end_of_log(log, _TAIL)
    return f"; the end of what it wrote:\n{text}" if text else ""
