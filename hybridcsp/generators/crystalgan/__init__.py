"""CrystalGAN: ternary crystals from those of two binary systems that share an element (arXiv:1810.11203)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hybridcsp.generators.crystalgan.generator import CrystalGAN

__all__ = ["CrystalGAN"]


def __getattr__(name: str) -> Any:
    if name == "CrystalGAN":
        return getattr(importlib.import_module(f"{__name__}.generator"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
