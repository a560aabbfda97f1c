"""Constrained adversarial networks for the codes of voxel images (doi:10.1038/s41524-021-00526-4)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hybridcsp.generators.ccdcgan.generator import ConstrainedGAN

__all__ = ["ConstrainedGAN"]


def __getattr__(name: str) -> Any:
    if name == "ConstrainedGAN":
        return getattr(importlib.import_module(f"{__name__}.generator"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
