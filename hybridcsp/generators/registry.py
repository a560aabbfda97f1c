"""Registry of the generators."""

from __future__ import annotations

from hybridcsp.core.registry import Entry, Registry

GENERATORS = Registry(
    "generator",
    (
        Entry(
            name="wyckoff",
            target="hybridcsp.generators.wyckoff:WyckoffGenerator",
            summary="autoregressive transformer over space group, Wyckoff positions, coordinates and lattice",
        ),
        Entry(
            name="flow",
            target="hybridcsp.generators.flow:FlowGenerator",
            summary="flow matching of fractional coordinates and lattice",
        ),
        Entry(
            name="diffusion",
            target="hybridcsp.generators.diffusion:DiffusionGenerator",
            summary="diffusion of fractional coordinates and lattice, with the network of flow",
        ),
        Entry(
            name="imatgen",
            target="hybridcsp.generators.imatgen:IMatGen",
            summary="variational autoencoder over voxel images of the crystals of one chemical system",
        ),
        Entry(
            name="ftcp",
            target="hybridcsp.generators.ftcp:FtcpGenerator",
            summary="variational autoencoder of Fourier-transformed crystal properties, with a branch for properties",
        ),
        Entry(
            name="ccdcgan",
            target="hybridcsp.generators.ccdcgan:ConstrainedGAN",
            summary="adversarial networks over voxel images of one chemical system, constrained by properties",
        ),
        Entry(
            name="cccgan",
            target="hybridcsp.generators.cccgan:CompositionConditionedGAN",
            summary="adversarial networks for the point clouds of one chemical system",
        ),
        Entry(
            name="crystalgan",
            target="hybridcsp.generators.crystalgan:CrystalGAN",
            summary="cross-domain adversarial networks, from two binary systems to the ternary one",
        ),
    ),
    base="hybridcsp.generators.base:Generator",
)
