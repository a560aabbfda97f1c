"""Generators that are external programs, run as a command for each batch of samples."""

from __future__ import annotations

import json
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
from pathlib import Path, PurePath
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

#: Placeholders that a command may contain, and those for which it is run once for each number of formula units.
PLACEHOLDERS = ("formula", "contents", "elements", "n", "seed", "output")
_OF_CONTENTS = ("formula", "contents")

#: Number of characters of a failed command's output that an error shows.
_TAIL = 600

#: Seconds between checks of a running program.
_POLL = 0.02


@dataclass(frozen=True)
class Command:
    """Represent the command line of an external program that samples structures; it is run without a shell.

    Parameters
    ----------
    command
        Program and arguments. In each, ``{formula}`` is replaced by the contents of one primitive cell (``Ti2O4``),
        ``{contents}`` by the same in JSON (``{"Ti":2,"O":4}``), ``{elements}`` by the elements (``O-Ti``), ``{n}`` by
        the number of structures, ``{seed}`` by a whole number and ``{output}`` by a path that does not exist yet, to
        which the program writes a file or a folder of structures.
    timeout
        Seconds after which the program and its children are stopped.
    samples
        Number of structures in a batch. If ``{formula}`` or ``{contents}`` occurs, the program is run once for each
        number of formula units, with its share of the batch.
    suffix
        Suffix of ``{output}``, which determines the format (``.extxyz``, ``.cif``, ``.zip``, ``.csv``); empty for a
        folder.
    structures
        Path of the file or folder of structures within the folder ``{output}``, in which placeholders are replaced as
        well; by default ``{output}`` itself.

    Raises
    ------
    InputError
        If ``{output}`` is missing, a placeholder is unknown, a number is out of range, or ``structures`` leads out of
        the folder.
    """

    command: tuple[str, ...]
    timeout: float = 600.0
    samples: int = 32
    suffix: str = ".extxyz"
    structures: str = ""

    __pydantic_config__: ClassVar[Mapping[str, Any]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        object.__setattr__(self, "command", tuple(self.command))
        if not self.command or not self.command[0]:
            raise InputError("command", list(self.command), "a program and its arguments")
        found = _placeholders(*self.command)
        self._check_structures()
        for key, names, known in (
            ("command", found, PLACEHOLDERS),
            ("structures", _placeholders(self.structures), PLACEHOLDERS[:-1]),
        ):
            if unknown := sorted(names - set(known)):
                listed = ", ".join(f"{{{name}}}" for name in known)
                raise InputError(
                    key, f"{{{unknown[0]}}}", reason=f"there is no such placeholder; the known ones are {listed}"
                )
        if "output" not in found:
            raise InputError(
                "command",
                shlex.join(self.command),
                reason="the command must contain {output}, the path to which the program writes",
            )
        if not self.timeout > 0:
            raise InputError("timeout", self.timeout, "a positive number of seconds")
        if self.samples < 1:
            raise InputError("samples", self.samples, "a whole number from 1")

    def _check_structures(self) -> None:
        inside = PurePath(self.structures)
        if inside.is_absolute() or ".." in inside.parts:
            raise InputError("structures", self.structures, "a path within the folder {output}, such as {formula}")
        if self.structures and self.suffix:
            reason = 'it is a path within a folder, so that suffix must be ""'
            raise InputError("structures", self.structures, reason=reason)

    @property
    def wants_formula(self) -> bool:
        """Whether the command contains ``{formula}`` or ``{contents}``."""
        return bool(_placeholders(*self.command).intersection(_OF_CONTENTS))

    def filled(self, **values: object) -> list[str]:
        """Return the arguments with placeholders replaced by values; other braces are kept."""
        return [_filled(part, values) for part in self.command]

    def path_of_structures(self, output: Path, **values: object) -> Path:
        """Return the path of the file or folder of structures, given that of the output and values of placeholders."""
        return output / _filled(self.structures, values)


class CommandGenerator(Generator):
    """Represent an external program as a generator, which is run for each batch of samples.

    It has no conditions and does not learn.

    Parameters
    ----------
    name
        Name of the generator.
    command
        Command line of the program.
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
        """Run the program, once for each cell contents if the command contains ``{formula}``.

        Parameters
        ----------
        requests, rng
            As for every generator.
        stop
            Event that stops the program when it is set.

        Raises
        ------
        GeneratorError
            If the program cannot be started, fails, is stopped, or writes no readable structure.
        """
        waiting: defaultdict[str, deque[int]] = defaultdict(deque)
        contents: dict[str, Mapping[str, int]] = {}
        for number, request in enumerate(requests):
            key = Formula(_formula(request.contents)).format("hill")
            contents[key] = request.contents
            waiting[key].append(number)
        elements = "-".join(sorted({symbol for one in contents.values() for symbol in one}))
        answers: list[Sample | Reject] = [Reject(request=i, reason="not returned") for i in range(len(requests))]
        if self.command.wants_formula:
            runs = [(own, len(waiting[key])) for key, own in contents.items()]
        else:
            runs = [({}, len(requests))]
        for own, n in runs:
            values = {
                "formula": _formula(own),
                "contents": json.dumps({symbol: int(count) for symbol, count in own.items()}, separators=(",", ":")),
                "elements": elements,
                "n": n,
                "seed": int(rng.integers(2**31)),
            }
            for atoms in self._run(values, stop or threading.Event()):
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

    def _run(self, values: Mapping[str, object], stop: threading.Event) -> list[Atoms]:
        with tempfile.TemporaryDirectory() as folder:
            output, log = Path(folder) / f"output{self.command.suffix}", Path(folder) / "log"
            self._execute(self.command.filled(output=output, **values), log, stop)
            written = self.command.path_of_structures(output, **values)
            if not written.exists():
                raise GeneratorError(f"{self.name} succeeded but wrote no {written.relative_to(folder)}{_tail(log)}")
            found = list(read_structures(written))
        crystals = [frame.atoms for frame in found if not isinstance(frame, ReadFailure)]
        useless = Counter(broken.reason for broken in found if isinstance(broken, ReadFailure))
        if not crystals:
            reasons = useless.most_common(1)
            raise GeneratorError(f"{self.name} wrote no crystal: {reasons[0][0] if reasons else 'an empty folder'}")
        return crystals

    def _execute(self, argv: list[str], log: Path, stop: threading.Event) -> None:
        if shutil.which(argv[0]) is None:
            raise GeneratorError(f"{self.name} cannot be started: no program {argv[0]!r}")
        if stop.is_set():
            raise GeneratorError(f"{self.name} was stopped before it started")
        with open_log(log) as written:
            try:
                process = subprocess.Popen(
                    [sys.executable, "-I", str(process_watch.__file__), str(os.getpid()), *argv],
                    stdin=subprocess.DEVNULL,
                    stdout=written,
                    stderr=written,
                    cwd=log.parent,
                    process_group=0,  # its children can be ended together with it
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
        """Raise :class:`GeneratorError`, because an external program cannot be trained here."""
        raise GeneratorError(f"{self.name} is an external program and does not learn here")

    def save(self, folder: Path) -> None:
        """Raise :class:`GeneratorError`, because an external program has no weights here."""
        raise GeneratorError(f"{self.name} is an external program and has no weights here")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Raise :class:`GeneratorError`, because an external program has no weights here."""
        raise GeneratorError(f"{folder}: an external program has no weights here")


def _placeholders(*texts: str) -> set[str]:
    return {name for text in texts for name in re.findall(r"\{(\w+)\}", text)}


def _filled(text: str, values: Mapping[str, object]) -> str:
    return re.sub(r"\{(\w+)\}", lambda match: str(values[match.group(1)]), text)


def _formula(contents: Mapping[str, int]) -> str:
    return "".join(f"{symbol}{count}" for symbol, count in contents.items())


def _contents(atoms: Atoms) -> str:
    return str(atoms.symbols.get_chemical_formula("hill"))


def _tail(log: Path) -> str:
    text = end_of_log(log, _TAIL)
    return f"; the end of its output:\n{text}" if text else ""
