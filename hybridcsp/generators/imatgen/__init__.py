"""Variational autoencoder over the latent codes of voxel images of crystals of one chemical system."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hybridcsp.generators.imatgen.generator import IMatGen

__all__ = ["IMatGen"]


def __getattr__(name: str) -> Any:
    # The networks can be trained in environments with torch alone; the generator has more dependencies.
    if name == "IMatGen":
        from hybridcsp.generators.imatgen.generator import IMatGen

        return IMatGen
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
