"""Flow matching of fractional coordinates on the torus and of the logarithm of the lattice's metric."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hybridcsp.generators.flow.generator import FlowGenerator
    from hybridcsp.generators.flow.matching import Integration
    from hybridcsp.generators.flow.network import Architecture

__all__ = ["Architecture", "FlowGenerator", "Integration"]

_HOMES = {"Architecture": "network", "FlowGenerator": "generator", "Integration": "matching"}


def __getattr__(name: str) -> Any:
    # The network is trained where nothing but torch is installed; the generator needs more.
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
