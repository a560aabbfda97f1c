"""Composition-conditioned crystal GAN: point clouds of a chemical system (doi:10.1021/acscentsci.0c00426)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hybridcsp.generators.cccgan.generator import CompositionConditionedGAN

__all__ = ["CompositionConditionedGAN"]


def __getattr__(name: str) -> Any:
    if name == "CompositionConditionedGAN":
        return getattr(importlib.import_module(f"{__name__}.generator"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
