"""Base classes of events: records with a place in the log, and their JSON on disk."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Self

from hybridcsp.core.records import Cost

# Names on disk of the fields that are called otherwise here.
_NAMES_ON_DISK = {"is_new_minimum": "opened"}

# Functions that rebuild values from JSON, by the name of the field, which is the same on disk.
_DECODERS: Mapping[str, Callable[[Any], Any]] = {
    "candidates": tuple,
    "cost": lambda values: Cost(**values),
    "parents": tuple,
    "start_enthalpies": tuple,
    "suspects": lambda values: None if values is None else tuple(values),
    "start_estimates": tuple,
    "versions": tuple,
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Logged:
    """An event with its place in the log.

    Attributes
    ----------
    kind
        Name of the kind of event on disk.
    sequence
        Number of the event from 1; 0 until it is written.
    row
        Number of the database row that holds the structure of the event; ``None`` for an event without a structure.
    """

    kind: ClassVar[str]
    sequence: int = 0
    row: int | None = None

    @classmethod
    def from_json(cls, data: Mapping[str, Any], sequence: int = 0, row: int | None = None) -> Self:
        """Return an event from its fields on disk and its place in the log.

        Raises
        ------
        LookupError, TypeError, ValueError
            If a field is missing, or its value cannot be used.
        """
        fields = _fields(cls)
        values = {name: data[on_disk] for name, on_disk in fields.required}
        for name, on_disk in fields.optional:
            if on_disk in data:
                values[name] = data[on_disk]
        for name, make in fields.made:
            if name not in values:
                values[name] = make()
        for name, decode in fields.decoded:
            if name in data:
                values[name] = decode(data[name])
        # Filled as pickle fills objects: the generated __init__ of a frozen class takes several times as long, and
        # opening a long search means reading hundreds of thousands of events.
        event = cls.__new__(cls)
        event.__dict__.update(values, sequence=sequence, row=row)
        return event

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain JSON, as they are written to disk."""
        return {on_disk: _encoded(getattr(self, name)) for name, on_disk in _fields(type(self)).all}


@dataclass(frozen=True, kw_only=True, eq=False)
class OfCandidate(Logged):
    """An event in the life of one candidate.

    Attributes
    ----------
    candidate
        Id of the candidate.
    source
        Name of the source that proposed it.
    operator
        Name of the operator that made it.
    """

    candidate: int
    source: str
    operator: str


@dataclass(frozen=True, kw_only=True, eq=False)
class OfComposition(Logged):
    """An event that belongs to one composition in a search of a chemical system.

    Attributes
    ----------
    formula
        The composition; ``None`` in a search of one formula, whose events do not have the field on disk.
    """

    formula: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the fields as plain JSON, as they are written to disk."""
        data = super().to_json()
        if self.formula is None:
            del data["formula"]
        return data


class _Fields(NamedTuple):
    """The fields of a kind of event with their names on disk, and functions that make or rebuild their values."""

    all: Sequence[tuple[str, str]]
    required: Sequence[tuple[str, str]]
    optional: Sequence[tuple[str, str]]
    made: Sequence[tuple[str, Callable[[], Any]]]
    decoded: Sequence[tuple[str, Callable[[Any], Any]]]


_KNOWN_FIELDS: dict[type[Logged], _Fields] = {}  # a cache


def _fields(event: type[Logged]) -> _Fields:
    if event in _KNOWN_FIELDS:
        return _KNOWN_FIELDS[event]
    names = [
        (field.name, _NAMES_ON_DISK.get(field.name, field.name))
        for field in dataclasses.fields(event)
        if field.name not in ("sequence", "row")
    ]
    made = {
        field.name: field.default_factory
        for field in dataclasses.fields(event)
        if field.default_factory is not dataclasses.MISSING
    }
    fields = _KNOWN_FIELDS[event] = _Fields(
        all=names,
        required=[both for both in names if not hasattr(event, both[0]) and both[0] not in made],
        optional=[both for both in names if hasattr(event, both[0]) or both[0] in made],
        made=list(made.items()),
        decoded=[(name, _DECODERS[name]) for name, _ in names if name in _DECODERS],
    )
    return fields


def _encoded(value: Any) -> Any:
    match value:
        case Cost():
            return {"force_calls": value.force_calls, "seconds": value.seconds}
        case tuple():
            return list(value)
        case Mapping():
            return dict(value)
        case _:
            return value
