"""Flow matching of fractional coordinates on the torus and of the logarithm of the lattice's metric."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hybridcsp.generators.flow.generator import FlowGenerator
    from hybridcsp.generators.flow.matching import Integration
    from hybridcsp.generators.joint.network import Architecture

__all__ = ["Architecture", "FlowGenerator", "Integration"]

_MODULES = {"Architecture": "joint.network", "FlowGenerator": "flow.generator", "Integration": "flow.matching"}


def __getattr__(name: str) -> Any:
    # The network can be trained in environments with torch alone; the generator has more dependencies.
    if name in _MODULES:
        return getattr(importlib.import_module(f"hybridcsp.generators.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
