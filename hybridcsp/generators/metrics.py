"""Metrics of generators: match rate, RMSE, validity, uniqueness and novelty.

They are those of crystal structure prediction with generative models since CDVAE (arXiv:2110.06197) and DiffCSP
(arXiv:2309.04475): for each crystal the generator gets the contents of its primitive cell and returns k samples; the
crystal is matched if pymatgen's ``StructureMatcher`` (stol 0.5, ltol 0.3, angle_tol 10) maps any of them on it. In
contrast to DiffCSP's script, no sample is left out: rejected and invalid samples count as samples without a match.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from ase import Atoms

from hybridcsp.generators.base import Reject, Request, Sample
from hybridcsp.generators.datasets import formula_of
from hybridcsp.similarity import MINIMA, StructureIndex
from hybridcsp.structure.conversion import to_pymatgen
from hybridcsp.structure.symmetry import SYMPREC_LOOSE, spacegroup
from hybridcsp.structure.validity import is_finite_crystal, is_plausible

if TYPE_CHECKING:
    from pymatgen.core import Structure

#: Tolerances of the match rate.
MATCH = {"stol": 0.5, "ltol": 0.3, "angle_tol": 10.0}

#: Largest number of lattice mappings that are tried for one pair of crystals. Most pairs have fewer than 100;
#: flat cells can have tens of thousands, which takes minutes.
MAPPINGS = 1000

#: Number of crystals whose samples are requested in one call.
TOGETHER = 16


class Sampler(Protocol):
    """Interface of the objects that can be evaluated: generators, and baselines that only sample."""

    def sample(self, requests: Sequence[Request], rng: np.random.Generator) -> list[Sample | Reject]:
        """Return exactly one answer to each request, in the order of the requests."""


@dataclass(frozen=True, kw_only=True)
class Scored:
    """Represent the scores of the samples for one crystal; each tuple has one entry per sample, in their order.

    ``dataclasses.asdict`` returns JSON-serialisable data, which :meth:`of` reads.

    Attributes
    ----------
    crystal
        Position of the crystal in the evaluated sequence.
    formula, atoms
        Reduced formula and number of atoms.
    displacements
        Root mean square displacement of the match, in units of the cube root of the volume per atom; ``None`` without
        a match.
    rejected
        Reason of the rejection; ``None`` for a sample.
    valid
        Whether distances and volume are within the default bounds of :class:`~hybridcsp.core.problem.Problem`.
    spacegroups
        Numbers of the space groups at 0.1 Å; 0 for a rejected request.
    new
        Whether a valid sample differs from all known crystals; ``None`` for other samples.
    distinct
        Number of different valid samples.
    cut_short
        Number of comparisons that ended after :data:`MAPPINGS` mappings without a match.
    seconds, processor_seconds
        Duration of sampling without scoring; an equal share for all crystals that were sampled in one call.
    same
        Whether the sample equals the crystal with the tolerances that distinguish minima of a search, volume included
        (:data:`hybridcsp.similarity.MINIMA`); empty in older scores.
    """

    crystal: int
    formula: str
    atoms: int
    displacements: tuple[float | None, ...]
    rejected: tuple[str | None, ...]
    valid: tuple[bool, ...]
    spacegroups: tuple[int, ...]
    new: tuple[bool | None, ...]
    distinct: int
    cut_short: int
    seconds: float
    processor_seconds: float
    same: tuple[bool, ...] = ()

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Scored:
        """Return the scores for a row of JSON data."""
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in row.items()}
        return cls(**fields)


def evaluate(
    generator: Sampler,
    crystals: Sequence[Atoms],
    *,
    samples: int = 20,
    seed: int = 0,
    known: StructureIndex | None = None,
    first: int = 0,
    progress: Callable[[Sequence[Scored]], None] | None = None,
) -> list[Scored]:
    """Sample structures for the contents of each crystal, and score them.

    Crystals are processed in groups of :data:`TOGETHER`, each with a random number generator of its own, so that an
    evaluation can be continued at any group.

    Parameters
    ----------
    generator
        Evaluated generator. If it raises an exception, the whole group is rejected for that reason.
    crystals
        Primitive cells.
    samples
        Number of samples for each crystal.
    seed
        Random seed.
    known
        Crystals that do not count as new, the training set for example (:func:`index_of`).
    first
        Position of the first crystal; rounded down to the beginning of a group.
    progress
        Function that is called with the scores of each group.
    """
    scored: list[Scored] = []
    for begin in range(first - first % TOGETHER, len(crystals), TOGETHER):
        group = crystals[begin : begin + TOGETHER]
        requests = [Request(contents=dict(Counter(atoms.get_chemical_symbols()))) for atoms in group]
        repeated = [request for request in requests for _ in range(samples)]
        clock, processor = time.perf_counter(), time.process_time()
        answers = _answers(generator, repeated, np.random.default_rng([seed, begin]))
        seconds = (time.perf_counter() - clock) / len(group)
        processor_seconds = (time.process_time() - processor) / len(group)
        for i, atoms in enumerate(group):
            own = answers[i * samples : (i + 1) * samples]
            scored.append(_score(begin + i, atoms, own, known, seconds, processor_seconds))
        if progress is not None:
            progress(scored[-len(group) :])
    return scored


def summarise(scored: Sequence[Scored], ks: Iterable[int] = (1, 20)) -> dict[str, Any]:
    """Return match rate, RMSE, validity, uniqueness and novelty: fractions from 0 to 1, or ``None`` without any data.

    Match rate and RMSE at k consider the first k samples of each crystal; the RMSE is the mean of the smallest
    displacements over the matched crystals. The strict match rate uses the tolerances that distinguish minima of a
    search. ``unique`` is the fraction of different ones among the valid samples of one crystal; ``new`` and
    ``symmetric`` (space group above 1 at 0.1 Å) are fractions of the valid samples.
    """
    total = sum(len(one.valid) for one in scored)
    valid = sum(sum(one.valid) for one in scored)
    new = [new for one in scored for new in one.new if new is not None]
    groups = [g for one in scored for g, good in zip(one.spacegroups, one.valid, strict=True) if good]
    summary: dict[str, Any] = {"crystals": len(scored), "samples": total}
    for k in ks:
        best = [
            min((d for d in one.displacements[:k] if d is not None), default=None)
            for one in scored
            if len(one.displacements) >= k
        ]
        matched = [d for d in best if d is not None]
        summary[f"match rate at {k}"] = _share(len(matched), len(best))
        summary[f"RMSE at {k}"] = float(np.mean(matched)) if matched else None
        same = [any(one.same[:k]) for one in scored if len(one.same) >= k]
        summary[f"strict match rate at {k}"] = _share(sum(same), len(same))
    reasons = Counter(reason for one in scored for reason in one.rejected if reason is not None)
    seconds = sum(one.seconds for one in scored)
    processor_seconds = sum(one.processor_seconds for one in scored)
    return summary | {
        "valid": _share(valid, total),
        "unique": _share(sum(one.distinct for one in scored), valid),
        "new": _share(sum(new), len(new)),
        "symmetric": _share(sum(group > 1 for group in groups), len(groups)),
        "rejected": dict(reasons.most_common()),
        "comparisons cut short": sum(one.cut_short for one in scored),
        "samples per second": total / seconds if seconds > 0 else None,
        "valid samples per processor second": valid / processor_seconds if processor_seconds > 0 else None,
    }


def tolerances() -> dict[str, dict[str, float | None]]:
    """Return the tolerances of the two match rates under the names of ``StructureMatcher``.

    ``volume`` is the largest difference of the logarithms of the volumes; without it both crystals are scaled to the
    same volume before they are compared.
    """
    own = {"stol": MINIMA.displacement, "ltol": MINIMA.lattice, "angle_tol": MINIMA.angle, "volume": MINIMA.volume}
    return {"match": {**MATCH, "volume": None}, "strict match": own}


def index_of(crystals: Iterable[Atoms]) -> StructureIndex:
    """Return an index of crystals with the tolerances :data:`hybridcsp.similarity.MINIMA`, volume included."""
    index = StructureIndex(energy_window=None, tolerances=MINIMA)
    for number, atoms in enumerate(crystals):
        index.add(number, atoms)
    return index


def displacement(sample: Atoms, crystal: Atoms) -> tuple[float | None, bool]:
    """Compare a sample with a crystal.

    Returns
    -------
    tuple
        Root mean square displacement in units of the cube root of the volume per atom, or ``None`` without a match; and
        whether the comparison was cut short after :data:`MAPPINGS` mappings.
    """
    return _displacement(_reduced(sample), _reduced(crystal))


def _displacement(sample: Structure, crystal: Structure) -> tuple[float | None, bool]:
    matcher = _matcher()
    matcher.cut_short = False
    found = matcher.get_rms_dist(sample, crystal)
    return (None if found is None else float(found[0])), bool(matcher.cut_short)


def _reduced(atoms: Atoms) -> Structure:
    """Return the reduced cell, which ``StructureMatcher`` would otherwise compute anew in each comparison."""
    structure = to_pymatgen(atoms).get_reduced_structure(reduction_algo="niggli")
    counts = np.unique(atoms.numbers, return_counts=True)[1]
    return structure if math.gcd(*counts.tolist()) == 1 else structure.get_primitive_structure()


@cache
def _matcher() -> Any:
    from pymatgen.analysis.structure_matcher import StructureMatcher

    class BoundedMatcher(StructureMatcher):
        """Matcher of reduced cells that tries a limited number of lattice mappings."""

        cut_short = False

        def _get_lattices(self, *arguments: Any, **more: Any) -> Any:
            mappings = super()._get_lattices(*arguments, **more)
            yield from islice(mappings, MAPPINGS)
            self.cut_short |= next(mappings, None) is not None

        def _preprocess(self, struct1: Any, struct2: Any, *_: Any, **__: Any) -> Any:
            return super()._preprocess(struct1, struct2, skip_structure_reduction=True)

    return BoundedMatcher(**MATCH)


def _answers(generator: Sampler, requests: Sequence[Request], rng: np.random.Generator) -> list[Sample | Reject]:
    """Return the answers of a generator, with invalid ones replaced by rejects."""
    try:
        answers = list(generator.sample(requests, rng))
    except Exception as error:  # noqa: BLE001  # a model of another package may raise anything
        return [Reject(request=i, reason=f"raised {type(error).__name__}") for i in range(len(requests))]
    if len(answers) != len(requests):
        reason = f"{len(answers)} answers to {len(requests)} requests"
        return [Reject(request=i, reason=reason) for i in range(len(requests))]
    return [_checked(i, request, answer) for i, (request, answer) in enumerate(zip(requests, answers, strict=True))]


def _checked(number: int, request: Request, answer: Sample | Reject) -> Sample | Reject:
    if isinstance(answer, Reject):
        return answer
    if not is_finite_crystal(answer.atoms):
        return Reject(request=number, reason="not a crystal")
    if Counter(answer.atoms.get_chemical_symbols()) != Counter(request.contents):
        return Reject(request=number, reason="other contents than requested")
    return answer


def _score(
    number: int,
    crystal: Atoms,
    answers: Sequence[Sample | Reject],
    known: StructureIndex | None,
    seconds: float,
    processor_seconds: float,
) -> Scored:
    different = StructureIndex(energy_window=None, tolerances=MINIMA)
    displacements: list[float | None] = []
    valid: list[bool] = []
    spacegroups: list[int] = []
    new: list[bool | None] = []
    cut_short = 0
    sought = _reduced(crystal)
    itself = index_of([crystal])
    same: list[bool] = []
    for i, answer in enumerate(answers):
        atoms = answer.atoms if isinstance(answer, Sample) else None
        good = atoms is not None and is_plausible(atoms)
        found, was_cut = (None, False) if atoms is None else _displacement(_reduced(atoms), sought)
        displacements.append(found)
        same.append(atoms is not None and itself.find(atoms) is not None)
        cut_short += was_cut and found is None
        valid.append(good)
        spacegroups.append(0 if atoms is None else spacegroup(atoms, SYMPREC_LOOSE))
        new.append(known.find(atoms) is None if good and known is not None and atoms is not None else None)
        if good and atoms is not None and different.find(atoms) is None:
            different.add(i, atoms)
    return Scored(
        crystal=number,
        formula=formula_of(crystal),
        atoms=len(crystal),
        displacements=tuple(displacements),
        rejected=tuple(answer.reason if isinstance(answer, Reject) else None for answer in answers),
        valid=tuple(valid),
        spacegroups=tuple(spacegroups),
        new=tuple(new),
        distinct=len(different),
        cut_short=cut_short,
        seconds=seconds,
        processor_seconds=processor_seconds,
        same=tuple(same),
    )


def _share(part: float, whole: int) -> float | None:
    return part / whole if whole else None
