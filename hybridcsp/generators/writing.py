"""Any number of samples of a generator, into a file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from ase import Atoms

from hybridcsp.errors import GeneratorError, HybridCSPError, message_of
from hybridcsp.generators import Generator, Reject, Request, Sample
from hybridcsp.interrupts import exits_contained
from hybridcsp.io.writing import format_of, structure_writer

#: Requests that are passed on in one call, as far as those of one group stay together.
TOGETHER = 256


def write_samples(
    output: Path | str,
    model: Generator,
    requests: Sequence[tuple[int, Request]],
    seed: int,
    on_progress: Callable[[int], None] = lambda _: None,
) -> tuple[int, Mapping[str, int]]:
    """Sample in parts and write them to a file, in the format that its ending says; none if nothing was made.

    Each frame carries ``request``, the number of its request's group, and ``log_likelihood`` where the model knows it.

    Parameters
    ----------
    output
        The file; it is there only when it is complete.
    model
        The generator.
    requests
        With the number of the group that each belongs to; those of one group stand together.
    seed
        Of all randomness.
    on_progress
        Called after every part with how many requests it had.

    Returns
    -------
    tuple of int and Mapping
        How many crystals there are, and how many requests came to nothing, by reason.

    Raises
    ------
    GeneratorError
        If the generator raises.
    InputError
        If the file cannot be written.
    """
    format_of(output)
    made, reasons = 0, Counter[str]()
    with ExitStack() as stack:
        write: Callable[[Atoms], Path] | None = None
        for number, part in enumerate(_parts(requests)):
            asked = [request for _, request in part]
            for answer in _answers(model, asked, np.random.default_rng([seed, number])):
                if isinstance(answer, Sample):
                    frame = answer.atoms.copy()
                    frame.info = {"request": part[answer.request][0]}
                    if answer.log_likelihood is not None:
                        frame.info["log_likelihood"] = answer.log_likelihood
                    if write is None:  # not before, so that nothing is written where nothing is made
                        write = stack.enter_context(structure_writer(output))
                    write(frame)
                    made += 1
                else:
                    reasons[answer.reason if isinstance(answer, Reject) else "no answer"] += 1
            on_progress(len(part))
    return made, reasons


def _answers(model: Generator, requests: list[Request], rng: np.random.Generator) -> list[Sample | Reject]:
    try:
        with exits_contained():
            return list(model.sample(requests, rng))
    except HybridCSPError:
        raise
    except Exception as error:  # a generator of another package may raise anything
        raise GeneratorError(f"{model.name} raised {message_of(error)}") from error


def _parts(requests: Sequence[tuple[int, Request]]) -> Iterator[list[tuple[int, Request]]]:
    """Split requests so that those of one group stay together as far as possible."""
    part: list[tuple[int, Request]] = []
    for i, item in enumerate(requests):
        part.append(item)
        ends = i + 1 == len(requests) or requests[i + 1][0] != item[0]
        if len(part) >= 4 * TOGETHER or (ends and len(part) >= TOGETHER):
            yield part
            part = []
    if part:
        yield part
