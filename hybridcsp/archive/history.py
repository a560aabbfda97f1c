"""The records that an archive keeps of a search besides the outcomes of its candidates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from hybridcsp.core.records import Candidate, Cost


@dataclass(frozen=True, kw_only=True, eq=False)
class SourceCall:
    """One call of a source.

    Attributes
    ----------
    source
        Name of the source.
    call
        Number of the call of this source, from 0.
    requested
        Number of proposals that were requested.
    owner
        :data:`~hybridcsp.core.records.WORKERS` or :data:`~hybridcsp.core.records.USER`.
    candidates
        Candidates that the proposals became.
    cost
        Cost of the call.
    error
        Error that the source raised; empty if it raised none.
    formula
        Composition for which it was called, in a search of a chemical system; ``None`` in other searches.
    sequence
        Number of the event; 0 until it is written.
    """

    source: str
    call: int
    requested: int
    owner: str
    candidates: tuple[Candidate, ...] = ()
    cost: Cost = field(default_factory=Cost)
    error: str = ""
    formula: str | None = None
    sequence: int = 0


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelUpdate:
    """A change of the model versions that a source samples from, or an attempt at one.

    Attributes
    ----------
    source
        Name of the source.
    versions
        Versions in use from here on; 0 is the one that the source began with.
    cost
        Cost of the training.
    detail
        Explanation of the change.
    training
        Plain JSON about the training that ended; empty if there was none.
    formula
        Composition of the source, in a search of a chemical system; ``None`` in other searches.
    sequence
        Number of the event; 0 until it is written.
    """

    source: str
    versions: tuple[int, ...]
    cost: Cost = field(default_factory=Cost)
    detail: str = ""
    training: Mapping[str, Any] = field(default_factory=dict)
    formula: str | None = None
    sequence: int = 0


class Improvement(NamedTuple):
    """A relaxation that lowered the lowest enthalpy of a search.

    Attributes
    ----------
    relaxation
        Number of the relaxation; that of the last one before it if it was a refinement.
    force_calls
        Force calls of the whole search up to and including it.
    enthalpy_per_atom
        Enthalpy in eV/atom. In a search of a chemical system: the sum over all compositions of the enthalpies of the
        convex hull, which falls whenever a minimum lowers the hull.
    source, operator
        Source and operator that proposed its candidate.
    """

    relaxation: int
    force_calls: int
    enthalpy_per_atom: float
    source: str
    operator: str


@dataclass(frozen=True, kw_only=True)
class RelaxationEnd:
    """The end of one relaxation, without its structure.

    Attributes
    ----------
    relaxation
        Number of the relaxation from 1, in the order of completion.
    source
        Name of the source that proposed the candidate.
    enthalpy_per_atom
        Enthalpy in eV/atom.
    converged
        Whether the relaxation met its convergence criterion.
    """

    relaxation: int
    source: str
    enthalpy_per_atom: float
    converged: bool
