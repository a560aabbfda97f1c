"""Measures of the samples of a generator while it is trained: validity, coverage of the crystals, and diversity."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms
from numpy.typing import NDArray
from scipy.spatial.distance import cdist, pdist

from hybridcsp.errors import InputError
from hybridcsp.similarity import fingerprint
from hybridcsp.structure.validity import is_plausible

#: Largest number of crystals to which samples are compared.
REFERENCE = 128
#: A crystal is covered if a sample is closer to it than its neighbour of this rank among the crystals.
NEIGHBOUR = 5


class SampleMeasures:
    """Measures of samples, one for each of a number of crystals and of the same contents.

    Coverage is the share of the crystals to which a valid sample is closer than the fifth nearest other crystal, as
    proposed by Naeem et al. (arXiv:2002.09797), by fingerprints of all pairs of elements
    (:func:`hybridcsp.similarity.fingerprint`).

    Parameters
    ----------
    crystals
        Crystals; of more than :data:`REFERENCE`, evenly spaced ones are used. Those of too thin a cell are left out.

    Attributes
    ----------
    crystals
        Crystals whose contents must be sampled.

    Raises
    ------
    InputError
        If no crystal is left.
    """

    def __init__(self, crystals: Sequence[Atoms]) -> None:
        step = max(1, -(-len(crystals) // REFERENCE))
        described = [(atoms, found) for atoms in crystals[::step] if (found := _fingerprint(atoms)) is not None]
        if not described:
            reason = "none of the crystals can be compared with samples, because their cells are too thin"
            raise InputError("examples", len(crystals), reason=reason)
        self.crystals = [atoms for atoms, _ in described]
        self._places, self._scale = _standardised([found for _, found in described])
        distances = np.sort(cdist(self._places, self._places), axis=1)
        one = len(distances) == 1
        self._reach = np.full(1, np.inf) if one else distances[:, min(NEIGHBOUR, len(distances) - 1)]
        self._spread = float(pdist(self._places).mean()) if len(self._places) > 1 else 0.0

    def of(self, samples: Sequence[Atoms | None]) -> dict[str, float]:
        """Return the measures of samples.

        Parameters
        ----------
        samples
            One for each of the crystals; ``None`` for one that was not decoded or has other contents.

        Returns
        -------
        dict
            ``contents``, the share of samples with the wanted contents; ``validity``, the share of samples that also
            have plausible distances and volumes; ``coverage``; and ``diversity``, the mean distance of fingerprints of
            samples, relative to that of the crystals and at most 1.
        """
        decoded = [atoms for atoms in samples if atoms is not None]
        valid = [atoms for atoms in decoded if is_plausible(atoms)]
        n = max(1, len(samples))
        found = {"contents": len(decoded) / n, "validity": len(valid) / n, "coverage": 0.0}
        places = self._located(valid)
        if len(places):
            nearest = cdist(self._places, places).min(axis=1)
            # Fingerprints of equal crystals differ by rounding.
            found["coverage"] = float((nearest <= self._reach + 1e-6).mean())
        # Samples that are not valid are diverse or not as well; without two of them there is no diversity to measure.
        everywhere = self._located(decoded)
        if len(everywhere) > 1 and self._spread > 0:
            found["diversity"] = min(1.0, float(pdist(everywhere).mean()) / self._spread)
        return found

    def _located(self, crystals: Sequence[Atoms]) -> NDArray[np.float64]:
        mean, spread = self._scale
        places = [(found - mean) / spread for atoms in crystals if (found := _fingerprint(atoms)) is not None]
        return np.array(places).reshape(len(places), self._places.shape[1])


def _fingerprint(atoms: Atoms) -> NDArray[np.floating] | None:
    """Return the fingerprint of a crystal; ``None`` for a cell that is too thin to have one."""
    try:
        return fingerprint(atoms)
    except InputError:
        return None


def _standardised(
    fingerprints: Sequence[NDArray[np.floating]],
) -> tuple[NDArray[np.float64], tuple[NDArray[np.float64], NDArray[np.float64]]]:
    rows = np.array(fingerprints, dtype=float)
    mean, spread = rows.mean(axis=0), np.maximum(rows.std(axis=0), 0.02)
    return (rows - mean) / spread, (mean, spread)


def measures_without_reference(samples: Sequence[Atoms | None], contents: Sequence[str]) -> dict[str, float]:
    """Return measures of samples of a system of which no crystals are known.

    Parameters
    ----------
    samples
        Samples; ``None`` for one that was not decoded.
    contents
        Wanted contents of each sample, in any form.

    Returns
    -------
    dict
        ``contents`` and ``validity`` as those of :meth:`SampleMeasures.of`; and ``coverage``, the share of the
        different contents with a valid sample.
    """
    valid = [atoms is not None and is_plausible(atoms) for atoms in samples]
    n = max(1, len(samples))
    covered = {wanted for wanted, good in zip(contents, valid, strict=True) if good}
    return {
        "contents": sum(atoms is not None for atoms in samples) / n,
        "validity": sum(valid) / n,
        "coverage": len(covered) / max(1, len(set(contents))),
    }
