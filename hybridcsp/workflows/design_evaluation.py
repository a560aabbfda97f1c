"""Evaluation of the crystals of an inverse design: their properties, whether these are wanted, and what is known."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np
from ase import Atoms
from numpy.typing import NDArray

from hybridcsp.generators.loading import one_thread
from hybridcsp.similarity import same_structure
from hybridcsp.training.held_out import formula_of
from hybridcsp.workflows.design_lessons import bare, value_of
from hybridcsp.workflows.design_properties import Property


class Evaluation:
    """Evaluate crystals by the targets of a design.

    Parameters
    ----------
    targets
        Lowest and highest wanted value of each property.
    properties
        Functions that return each property.
    checks
        Functions that return some of the properties in another way.
    known
        Known crystals.
    """

    def __init__(
        self,
        targets: Mapping[str, tuple[float, float]],
        properties: Mapping[str, Property],
        checks: Mapping[str, Property],
        known: Sequence[Atoms],
    ) -> None:
        self._targets = targets
        self._properties = properties
        self._checks = checks
        self._known = known

    def evaluate(self, crystals: Sequence[Atoms]) -> None:
        """Write the properties of crystals, and whether these are within the targets, into their ``info``.

        The keys are the names of the properties, ``check_NAME`` for those computed in another way, ``within``,
        ``check_within`` if there are checks, and ``known`` for crystals within the targets.
        """
        within = np.ones(len(crystals), dtype=bool)
        checked = np.ones(len(crystals), dtype=bool)
        with one_thread():
            for name, values_of in self._properties.items():
                within &= self._note(crystals, name, name, values_of)
            for name, values_of in self._checks.items():
                checked &= self._note(crystals, name, f"check_{name}", values_of)
        for atoms, good, agreed in zip(crystals, within.tolist(), checked.tolist(), strict=True):
            atoms.info["within"] = good
            if self._checks:
                atoms.info["check_within"] = agreed
            if good:
                atoms.info["known"] = self._is_known(atoms)

    def summary(self, crystals: Sequence[Atoms]) -> dict[str, Any]:
        """Return what the account of a round (:class:`~hybridcsp.workflows.design_rounds.RoundAccount`) says of them.

        Parameters
        ----------
        crystals
            Evaluated crystals, with ``repeated`` in their ``info``.
        """
        known = [atoms for atoms in crystals if all(math.isfinite(value_of(atoms, name)) for name in self._targets)]
        within = [atoms for atoms in known if atoms.info["within"]]
        values = {name: [value_of(atoms, name) for atoms in known] for name in self._targets} if known else {}
        return {
            "unique": len(crystals),
            "evaluated": len(known),
            "within": len(within),
            "new": sum(not (atoms.info["known"] or atoms.info["repeated"]) for atoms in within),
            "share": len(within) / len(crystals) if crystals else 0.0,
            "mean": {name: float(np.mean(those)) for name, those in values.items()},
            "best": {name: _best(those, self._targets[name]) for name, those in values.items()},
            "checked": {name: self._agreement(name, within, known) for name in self._checks},
        }

    def _agreement(self, name: str, within: Sequence[Atoms], known: Sequence[Atoms]) -> dict[str, float]:
        """Return the share of crystals whose value by a check is within the target, unless there are none."""
        low, high = self._targets[name]
        return {
            part: float(np.mean([low <= value_of(atoms, f"check_{name}") <= high for atoms in those]))
            for part, those in {"within": within, "all": known}.items()
            if those
        }

    def _note(self, crystals: Sequence[Atoms], name: str, key: str, values_of: Property) -> NDArray[np.bool_]:
        values = values_of(crystals)
        for atoms, value in zip(crystals, values.tolist(), strict=True):
            if math.isfinite(value):
                atoms.info[key] = value
        low, high = self._targets[name]
        return np.asarray(np.isfinite(values) & (values >= low) & (values <= high))

    @cached_property
    def _known_by_formula(self) -> Mapping[str, Sequence[Atoms]]:
        groups: dict[str, list[Atoms]] = {}
        for atoms in self._known:
            groups.setdefault(formula_of(atoms), []).append(atoms)
        return groups

    def _is_known(self, atoms: Atoms) -> bool:
        plain, same_formula = bare(atoms), self._known_by_formula.get(formula_of(atoms), ())
        return any(same_structure(plain, known) for known in same_formula)


def _best(values: Sequence[float], target: tuple[float, float]) -> float:
    low, high = target
    if math.isfinite(low) and math.isfinite(high):
        return min(values, key=lambda value: abs(value - (low + high) / 2))
    return max(values) if math.isfinite(low) else min(values)
