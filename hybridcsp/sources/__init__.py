"""Where candidates come from: one file for each source, and the interface they share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from hybridcsp.archive import Archive
from hybridcsp.problem import Problem
from hybridcsp.records import Candidate, Outcome, Proposal
from hybridcsp.registry import Entry, Registry


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a source may look at when it proposes.

    Attributes
    ----------
    problem
        What is searched.
    archive
        Everything found so far, to read.
    rng
        The only randomness to use: the k-th call of a source draws from the same stream in every run of a seed.
    """

    problem: Problem
    archive: Archive
    rng: np.random.Generator


class Source(Protocol):
    """Something that proposes structures; it never calls a calculator.

    A source is built by its class as ``SomeSource(problem, argument=None)``, where ``argument`` is what follows the
    colon in ``name:argument``. Its state may change in :meth:`proposed` and :meth:`observe` only: when a search is
    taken up again these two are called as they were before, in the same order, and :meth:`propose` is not.

    A source that works best on what others find may have a property ``ready``: while that is false, it is called only
    where no other source is ready. It says in ``starts`` from when on it is, as in "it starts after 6 minima". One that
    cannot work without has ``needs_others = True``: it is never called then, and refused alone. One that makes
    proposals beside the search has a property ``preparing``, true from the call that begins until the one that returns
    them: it is not called before it is ready, and a search that has nothing else to do waits for it. What that took is
    told by a growing attribute ``seconds_beside``. What it holds is let go in ``close()``, if it has that.
    """

    @property
    def exhausted(self) -> bool:
        """Whether it will never propose anything again."""

    def propose(self, n: int, context: Context) -> Sequence[Proposal]:
        """Return at most ``n`` proposals; none when it has nothing to offer now."""

    def proposed(self, candidates: Sequence[Candidate]) -> None:
        """Take note of what its proposals became: all that one call returned, in order, before any outcome."""

    def observe(self, outcomes: Sequence[Outcome]) -> None:
        """Learn from the outcomes of every source, in the order of their sequence."""


#: What a search uses if nobody says otherwise.
DEFAULT_SOURCES = ("random", "prototypes", "evolution", "swarm", "basin-hopping", "wyckoff", "flow", "shake")

#: So many structures of a generator are one job, of which energies choose one, if nobody says otherwise.
ONE_SHOT = 12

SOURCES = Registry(
    "source",
    (
        Entry(
            name="random",
            target="hybridcsp.sources.random:RandomSource",
            summary="random symmetric crystals (PyXtal), any allowed space group",
        ),
        Entry(
            name="evolution",
            target="hybridcsp.sources.evolution:EvolutionSource",
            summary="children of the best diverse minima; evolution:NAME,NAME uses these operators",
        ),
        Entry(
            name="prototypes",
            target="hybridcsp.sources.prototypes:PrototypesSource",
            summary="known prototypes with your elements, likeliest first; prototypes:PATH adds structures of yours",
        ),
        Entry(
            name="seeds",
            target="hybridcsp.sources.seeds:SeedsSource",
            summary="structures of yours: seeds:PATH, a structure file or a folder of them",
        ),
        Entry(
            name="wyckoff",
            target="hybridcsp.sources.generative:wyckoff",
            summary="crystals from a transformer, symmetric by construction; wyckoff:FOLDER with weights of yours",
        ),
        Entry(
            name="flow",
            target="hybridcsp.sources.generative:flow",
            summary="crystals from flow matching; flow:FOLDER with weights of yours",
        ),
        Entry(
            name="generative",
            target="hybridcsp.sources.generative:GenerativeSource",
            summary="crystals from any generator: generative:NAME or generative:FOLDER of weights",
        ),
        Entry(
            name="external",
            target="hybridcsp.sources.external:ExternalSource",
            summary="what other programs make: external:PATH (folder, extxyz, CIF zip, CSV) or external:NAME (command)",
        ),
        Entry(
            name="swarm",
            target="hybridcsp.sources.swarm:SwarmSource",
            summary="particle swarm on positions and cell: swarm:local (default) or swarm:global",
        ),
        Entry(
            name="basin-hopping",
            target="hybridcsp.sources.basin_hopping:BasinHoppingSource",
            summary="leaps from the best minima: basin-hopping:hops (default) or basin-hopping:dynamics",
        ),
        Entry(
            name="shake",
            target="hybridcsp.sources.shake:ShakeSource",
            summary="pushes low symmetric minima of the other sources off what may be saddle points",
        ),
    ),
    methods=("propose", "proposed", "observe"),
)
