"""Provide the registry of sources, and the sources that a search uses by default."""

from __future__ import annotations

from hybridcsp.core.registry import Entry, Registry

#: Sources of a search of a formula, and of each composition of a chemical system, by default.
DEFAULT_SOURCES = ("random", "prototypes", "evolution", "swarm", "basin-hopping", "wyckoff", "flow")
SYSTEM_SOURCES = (*DEFAULT_SOURCES, "variable-composition")

#: Number of samples of a generator per job by default; the most promising is relaxed.
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
            summary="children of the best diverse minima; evolution:NAME,NAME uses only these operators",
        ),
        Entry(
            name="prototypes",
            target="hybridcsp.sources.prototypes:PrototypesSource",
            summary="known prototypes with your elements, most likely first; prototypes:PATH adds your own structures",
        ),
        Entry(
            name="seeds",
            target="hybridcsp.sources.seeds:SeedsSource",
            summary="your own structures: seeds:PATH, a structure file or a folder of them",
        ),
        Entry(
            name="wyckoff",
            target="hybridcsp.sources.generative:WyckoffSource",
            summary="crystals from a transformer, symmetric by construction; wyckoff:FOLDER uses your own weights",
        ),
        Entry(
            name="flow",
            target="hybridcsp.sources.generative:FlowSource",
            summary="crystals from flow matching; flow:FOLDER uses your own weights",
        ),
        Entry(
            name="generative",
            target="hybridcsp.sources.generative:GenerativeSource",
            summary="crystals from any generator: generative:NAME or generative:FOLDER of weights",
        ),
        Entry(
            name="external",
            target="hybridcsp.sources.external:ExternalSource",
            summary="output of other programs: external:PATH (folder, extxyz, CIF zip, CSV) or external:NAME (command)",
        ),
        Entry(
            name="swarm",
            target="hybridcsp.sources.swarm:SwarmSource",
            summary="particle swarm on positions and cell: swarm:local (default) or swarm:global",
        ),
        Entry(
            name="basin-hopping",
            target="hybridcsp.sources.basin_hopping:BasinHoppingSource",
            summary="moves from the best minima: basin-hopping:hops (default) or basin-hopping:dynamics",
        ),
        Entry(
            name="variable-composition",
            target="hybridcsp.sources.variable_composition:VariableCompositionSource",
            summary="children of minima of other compositions; only in searches of chemical systems",
        ),
        Entry(
            name="tree-search",
            target="hybridcsp.sources.tree_search:TreeSearchSource",
            summary="Monte-Carlo tree search, orbit by orbit; tree-search:wyckoff completes crystals by a transformer",
        ),
        Entry(
            name="shake",
            target="hybridcsp.sources.shake:ShakeSource",
            summary="displaced copies of low, symmetric minima of other sources, which may be saddle points",
        ),
    ),
    base="hybridcsp.sources.base:BaseSource",
)
