"""Diffusion of fractional coordinates on the torus and of the lattice, after DiffCSP (arXiv:2309.04475)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hybridcsp.generators.diffusion.generator import DiffusionGenerator
    from hybridcsp.generators.diffusion.sampling import Sampling

__all__ = ["DiffusionGenerator", "Sampling"]

_MODULES = {"DiffusionGenerator": "generator", "Sampling": "sampling"}


def __getattr__(name: str) -> Any:
    # The network can be trained in environments with torch alone; the generator has more dependencies.
    if name in _MODULES:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
