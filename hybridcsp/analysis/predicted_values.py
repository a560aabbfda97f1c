"""Properties that trained predictors predict for minima, shown next to their energies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hybridcsp.analysis.text_tables import Column
from hybridcsp.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from ase import Atoms

    from hybridcsp.predictors.base import Predictor

#: Mark of a value for a crystal that is outside of what the predictor has learned from.
OUTSIDE_MARK = "†"

# Number of reasons for being outside that a note lists.
_REASONS = 3


@dataclass(frozen=True)
class PredictedValues:
    """Predictors whose values are shown.

    Parameters
    ----------
    predictors
        Trained predictors of different properties.
    """

    predictors: Sequence[Predictor] = ()

    @classmethod
    def opened(cls, folders: Sequence[Path], key: str = "--predictor") -> PredictedValues:
        """Load predictors from their folders.

        Raises
        ------
        InputError
            If a folder has no usable predictor, or two predict properties of the same name.
        """
        if not folders:
            return cls()
        from hybridcsp.predictors.loading import open_predictor

        found: dict[str, Predictor] = {}
        for folder in folders:
            predictor = open_predictor(folder)
            if predictor.quantity in found:
                reason = f"there is another predictor of {predictor.quantity}; give one for each property"
                raise InputError(key, folder, reason=reason)
            found[predictor.quantity] = predictor
        return cls(tuple(found.values()))

    def of(self, structures: Sequence[Atoms]) -> list[dict[str, Any]]:
        """Return the predicted properties of structures, as plain data.

        Returns
        -------
        list of dict
            For each structure and property, ``predicted_NAME``, ``predicted_NAME_deviation`` (standard deviation) and
            ``predicted_NAME_outside`` (why the crystal is outside of what was learned, else empty); numbers are
            ``None`` if a structure is not a crystal.
        """
        rows: list[dict[str, Any]] = [{} for _ in structures]
        for predictor in self.predictors:
            for row, atoms in zip(rows, structures, strict=True):
                row |= _value(predictor, atoms)
        return rows

    def annotations(self, atoms: Atoms) -> dict[str, Any]:
        """Return what structure files say about the predicted properties of a structure: what :meth:`of` has of it."""
        return {key: value for key, value in self.of([atoms])[0].items() if value not in (None, "")}

    def columns(self) -> list[Column]:
        """Return the columns of the values."""
        return [
            Column(
                heading=predictor.quantity,
                meaning=f"predicted by {predictor.name}{f', {predictor.unit}' if predictor.unit else ''}",
                words=True,
            )
            for predictor in self.predictors
        ]

    def cells(self, row: Mapping[str, Any]) -> list[str]:
        """Return the cells of a row that has the data of :meth:`of`."""
        cells = []
        for predictor in self.predictors:
            key = _key(predictor)
            value, mark = row[key], OUTSIDE_MARK if row[f"{key}_outside"] else ""
            cells.append("-" if value is None else f"{value:.3g}{mark}")
        return cells

    def notes(self, rows: Sequence[Mapping[str, Any]]) -> list[str]:
        """Return sentences on crystals that are outside of what the predictors have learned from."""
        reasons = {row[f"{_key(one)}_outside"]: None for one in self.predictors for row in rows}
        reasons.pop("", None)
        if not reasons:
            return []
        shown = "; ".join(list(reasons)[:_REASONS]) + ("; …" if len(reasons) > _REASONS else "")
        return [
            f"{OUTSIDE_MARK}: outside of what the predictor has learned from, so that it cannot be trusted: {shown}."
        ]


def _key(predictor: Predictor) -> str:
    return f"predicted_{predictor.quantity}"


def _value(predictor: Predictor, atoms: Atoms) -> dict[str, Any]:
    key = _key(predictor)
    try:
        found = predictor.predict([atoms])
    except InputError as error:
        return {key: None, f"{key}_deviation": None, f"{key}_outside": str(error)}
    return {
        key: float(found.mean[0]),
        f"{key}_deviation": float(found.standard_deviation[0]),
        f"{key}_outside": found.outside[0],
    }
