"""Sampling of any number of crystals into a file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from hybridcsp.errors import GeneratorError, HybridCSPError, message_of
from hybridcsp.generators.base import Generator, Reject, Request, Sample
from hybridcsp.io.structure_writer import format_of, structure_writer
from hybridcsp.utils.interrupts import exits_contained

#: Number of requests in one call of the generator; those of one group are kept together as far as possible.
TOGETHER = 256

#: Number of times that a rejected request is repeated.
AGAIN = 3


@dataclass(frozen=True)
class Written:
    """Represent the result of sampling.

    Attributes
    ----------
    made
        Number of crystals by group of requests.
    missing
        Number of missing crystals by group and reason.
    """

    made: Counter[int]
    missing: dict[int, Counter[str]]

    @property
    def reasons(self) -> Counter[str]:
        """Number of missing crystals of all groups by reason."""
        return sum(self.missing.values(), Counter[str]())


def write_samples(
    output: Path | str,
    model: Generator,
    requests: Sequence[tuple[int, Request]],
    seed: int,
    on_progress: Callable[[int], None] = lambda _: None,
    notes: Mapping[int, Mapping[str, Any]] | None = None,
) -> Written:
    """Sample crystals and write them to a file, in the format of its suffix; if there is none, no file is written.

    Rejected requests are repeated up to :data:`AGAIN` times. The ``info`` of each frame holds ``request``, the number
    of its group, ``log_likelihood`` if the model knows it, and ``predicted_NAME`` for predicted properties.

    Parameters
    ----------
    output
        File, which appears when it is complete.
    model
        Generator.
    requests
        Requests with the numbers of their groups; those of one group are adjacent.
    seed
        Random seed.
    on_progress
        Function that is called with the number of requests of each completed part.
    notes
        Further entries in the ``info`` of the frames, by group.

    Raises
    ------
    GeneratorError
        If the generator raises.
    InputError
        If the file cannot be written.
    """
    format_of(output)
    written = Written(Counter(), {})
    with ExitStack() as stack:
        write: Callable[[Atoms], Path] | None = None
        for number, part in enumerate(_parts(requests)):
            for group, answer in _sampled(model, part, [seed, number]):
                if not isinstance(answer, Sample):
                    written.missing.setdefault(group, Counter())[answer.reason] += 1
                    continue
                frame = answer.atoms.copy()
                frame.info = {"request": group, **(notes or {}).get(group, {})}
                if answer.log_likelihood is not None:
                    frame.info["log_likelihood"] = answer.log_likelihood
                frame.info |= {f"predicted_{name}": value for name, value in answer.properties.items()}
                if write is None:  # opened here, so that without samples no file is written
                    write = stack.enter_context(structure_writer(output))
                write(frame)
                written.made[group] += 1
            on_progress(len(part))
    return written


def _sampled(
    model: Generator, part: Sequence[tuple[int, Request]], seeds: list[int]
) -> list[tuple[int, Sample | Reject]]:
    """Repeat requests until each is answered with a sample, and return the last answers by group."""
    found: list[tuple[int, Sample | Reject]] = []
    left = list(part)
    for attempt in range(AGAIN + 1):
        rng = np.random.default_rng([*seeds, attempt] if attempt else seeds)
        answers = {answer.request: answer for answer in _answers(model, [request for _, request in left], rng)}
        answered = [(item, answers.get(i, Reject(request=i, reason="no answer"))) for i, item in enumerate(left)]
        last = attempt == AGAIN
        found += [(item[0], answer) for item, answer in answered if last or isinstance(answer, Sample)]
        left = [item for item, answer in answered if not isinstance(answer, Sample)]
        if not left:
            break
    return sorted(found, key=lambda item: item[0])


def _answers(model: Generator, requests: list[Request], rng: np.random.Generator) -> list[Sample | Reject]:
    try:
        with exits_contained(passing=(KeyboardInterrupt,)):
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
