"""Fidelity of reconstructions: how much of a crystal is lost when it is encoded and decoded again.

Crystals go through the representations that generators learn from, without a network, and through trained generators
that have an encoder (:meth:`hybridcsp.generators.base.Generator.reconstruct`). What comes back is compared with the
crystal by pymatgen's ``StructureMatcher``, with wide and with narrow limits.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from hybridcsp.errors import InputError, UnknownNameError
from hybridcsp.generators.metrics import MATCH
from hybridcsp.similarity.deviation import MatchLimits, deviation
from hybridcsp.structure.representations.base import BeyondLimitsError, DecodingError, Representation
from hybridcsp.structure.validity import is_finite_crystal
from hybridcsp.training.held_out import formula_of

if TYPE_CHECKING:
    from ase import Atoms

    from hybridcsp.generators.base import Generator

#: Limits of a match, and of a close one.
WIDE = MatchLimits(**MATCH)
CLOSE = MatchLimits(stol=0.1, ltol=0.1, angle_tol=3.0)


class Result(StrEnum):
    """Result of a reconstruction."""

    CLOSE = "close"
    MATCHED = "matched"
    OTHER = "another crystal"
    FAILED = "failed"
    OUTSIDE = "outside the limits"


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """Represent what became of one crystal.

    Attributes
    ----------
    name
        Name of the representation or model.
    crystal
        Position of the crystal in the sequence of crystals.
    formula, atoms
        Reduced formula and number of atoms.
    result
        Result of the comparison.
    reason
        Why the crystal is outside the limits, or why the reconstruction failed; else empty.
    rms, largest
        Root mean square and largest displacement of the atoms in Å; ``None`` without a match.
    strain
        Largest principal strain of the cell; ``None`` without a match.
    models
        Number of models that the result is of; if there are several, ``result`` is that of most of them, displacements
        and strain are means, and the following are set.
    matched_by
        Share of the models whose reconstruction matches.
    rms_spread
        Standard deviation of ``rms`` over the models; ``None`` for fewer than two matches.
    """

    name: str
    crystal: int
    formula: str
    atoms: int
    result: Result
    reason: str = ""
    rms: float | None = None
    largest: float | None = None
    strain: float | None = None
    models: int = 1
    matched_by: float | None = None
    rms_spread: float | None = None

    @property
    def is_matched(self) -> bool:
        """Whether the reconstruction is the same crystal."""
        return self.result in (Result.CLOSE, Result.MATCHED)


def _voxels(crystals: Sequence[Atoms]) -> Representation[Any]:
    from hybridcsp.structure.representations.voxels import Voxels

    return Voxels()


def _published_voxels(crystals: Sequence[Atoms]) -> Representation[Any]:
    from hybridcsp.structure.representations.voxels import Voxels

    return Voxels.published()


def _fourier(crystals: Sequence[Atoms]) -> Representation[Any]:
    from hybridcsp.structure.elemental_features import elemental_features
    from hybridcsp.structure.representations.fourier import ELEMENTS, FourierProperties

    return FourierProperties(elemental_features()[1 : ELEMENTS + 1].astype(float))


def _point_clouds(crystals: Sequence[Atoms]) -> Representation[Any]:
    from hybridcsp.structure.representations.point_cloud import PointClouds

    return PointClouds(crystals)


def _wyckoff(crystals: Sequence[Atoms]) -> Representation[Any]:
    from hybridcsp.generators.wyckoff.symmetric import WyckoffSites

    return WyckoffSites()


def _log_lattice(crystals: Sequence[Atoms]) -> Representation[Any]:
    from hybridcsp.structure.representations.log_lattice import LogLattice

    return LogLattice()


#: Functions that return a representation for the crystals that are to be encoded, by name.
REPRESENTATIONS: Mapping[str, Callable[[Sequence[Atoms]], Representation[Any]]] = {
    "voxels": _voxels,
    "voxels-published": _published_voxels,
    "ftcp": _fourier,
    "point-cloud": _point_clouds,
    "wyckoff": _wyckoff,
    "log-lattice": _log_lattice,
}


def through_representation(name: str, crystals: Sequence[Atoms]) -> Iterator[Reconstruction]:
    """Encode and decode crystals with a representation, and yield what became of each.

    Raises
    ------
    UnknownNameError
        If there is no representation of this name.
    """
    if name not in REPRESENTATIONS:
        raise UnknownNameError("representation", name, REPRESENTATIONS)
    representation = REPRESENTATIONS[name](crystals)
    for number, atoms in enumerate(crystals):
        if reason := representation.limit(atoms):
            yield _failed(name, number, atoms, Result.OUTSIDE, reason)
            continue
        try:
            back = representation.decode(representation.encode(atoms))
        except DecodingError as error:
            yield _failed(name, number, atoms, Result.FAILED, error.reason)
        except InputError as error:
            yield _failed(name, number, atoms, Result.FAILED, str(error))
        else:
            yield compare(name, number, atoms, back)


def through_model(
    name: str, model: Generator, crystals: Sequence[Atoms], together: int = 32
) -> Iterator[Reconstruction]:
    """Reconstruct crystals with a trained generator, and yield what became of each.

    Parameters
    ----------
    name
        Name for the results.
    model
        Generator with an encoder.
    crystals
        Crystals.
    together
        Number of crystals that are reconstructed in one call.

    Raises
    ------
    GeneratorError
        If the generator has no encoder.
    """
    for start in range(0, len(crystals), together):
        part = crystals[start : start + together]
        for number, (atoms, back) in enumerate(zip(part, model.reconstruct(part), strict=True), start=start):
            if isinstance(back, BeyondLimitsError):
                yield _failed(name, number, atoms, Result.OUTSIDE, back.reason)
            elif isinstance(back, DecodingError):
                yield _failed(name, number, atoms, Result.FAILED, back.reason)
            else:
                yield compare(name, number, atoms, back)


def compare(name: str, number: int, atoms: Atoms, back: Atoms) -> Reconstruction:
    """Return what became of a crystal whose reconstruction is known."""
    if not is_finite_crystal(back):
        return _failed(name, number, atoms, Result.FAILED, "what is decoded is not a crystal")
    if Counter(back.numbers.tolist()) != Counter(atoms.numbers.tolist()):
        return _failed(name, number, atoms, Result.OTHER, "other contents")
    for limits, result in ((CLOSE, Result.CLOSE), (WIDE, Result.MATCHED)):
        found = deviation(atoms, back, limits)
        if found is not None:
            return Reconstruction(
                name=name,
                crystal=number,
                formula=formula_of(atoms),
                atoms=len(atoms),
                result=result,
                rms=found.rms,
                largest=found.largest,
                strain=found.strain,
            )
    return _failed(name, number, atoms, Result.OTHER, "the same contents in another structure")


def combined(name: str, results: Sequence[Sequence[Reconstruction]]) -> list[Reconstruction]:
    """Return the results of several models of one kind as one for each crystal, with their spreads.

    Parameters
    ----------
    name
        Name for the results.
    results
        Results of each model for the same crystals.
    """
    found = []
    for own in zip(*results, strict=True):
        matched = [one for one in own if one.is_matched]
        result = Counter(one.result for one in own).most_common(1)[0][0]
        first = next(one for one in own if one.result == result)
        values = {key: _mean([getattr(one, key) for one in matched]) for key in ("rms", "largest", "strain")}
        spread = float(np.std([one.rms for one in matched], ddof=1)) if len(matched) > 1 else None
        share = len(matched) / len(own)
        found.append(replace(first, name=name, models=len(own), matched_by=share, rms_spread=spread, **values))
    return found


def summary(results: Sequence[Reconstruction]) -> dict[str, Any]:
    """Return how much is lost: counts, shares of the crystals within the limits, displacements and strains.

    Returns
    -------
    dict
        ``crystals``, ``outside`` and ``failed`` are counts, and so are the values of ``reasons``; ``matched`` and
        ``close`` are shares of the crystals within the limits, ``None`` if there are none; ``rms``, ``rms_99``
        and ``largest`` are displacements in Å: the mean and the 99 % quantile of the root mean squares, and the largest
        of any atom; ``strain`` and ``largest_strain`` are the mean and the largest over the matched crystals.
    """
    outside = [one for one in results if one.result is Result.OUTSIDE]
    inside = len(results) - len(outside)
    matched = [one for one in results if one.is_matched]
    rms = [one.rms for one in matched if one.rms is not None]
    strains = [one.strain for one in matched if one.strain is not None]
    reasons = Counter(_without_numbers(one.reason) for one in results if one.reason)
    return {
        "representation": results[0].name if results else "",
        "crystals": len(results),
        "outside": len(outside),
        "failed": sum(one.result is Result.FAILED for one in results),
        "matched": len(matched) / inside if inside else None,
        "close": sum(one.result is Result.CLOSE for one in results) / inside if inside else None,
        "rms": _mean(rms),
        "rms_99": float(np.quantile(rms, 0.99)) if rms else None,
        "largest": max((one.largest for one in matched if one.largest is not None), default=None),
        "strain": _mean(strains),
        "largest_strain": max(strains, default=None),
        "reasons": dict(reasons.most_common()),
    }


def spread_of_models(summaries: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    """Return the standard deviations of shares, displacement and strain over models of one kind."""
    found = {}
    for key in ("matched", "close", "rms", "strain"):
        values = [one[key] for one in summaries if one[key] is not None]
        found[f"{key}_spread"] = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return found


def worst(results: Sequence[Reconstruction], count: int) -> list[Reconstruction]:
    """Return the crystals of which most is lost: those that fail, become others, and with the largest displacements."""
    order = {Result.FAILED: 0, Result.OTHER: 1}
    lossy = [one for one in results if one.result is not Result.OUTSIDE]
    return sorted(lossy, key=lambda one: (order.get(one.result, 2), -(one.largest or 0.0), one.crystal))[:count]


def _failed(name: str, number: int, atoms: Atoms, result: Result, reason: str) -> Reconstruction:
    return Reconstruction(
        name=name, crystal=number, formula=formula_of(atoms), atoms=len(atoms), result=result, reason=reason
    )


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None and math.isfinite(value)]
    return float(np.mean(known)) if known else None


def _without_numbers(reason: str) -> str:
    """Return a reason without its numbers, so that equal reasons of different crystals are counted together."""
    return re.sub(r"\d+(\.\d+)?", "…", reason)
