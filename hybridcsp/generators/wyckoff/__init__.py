"""Autoregressive transformers over space group, Wyckoff positions, cell and coordinates."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hybridcsp.generators.wyckoff.generator import WyckoffGenerator

__all__ = ["WyckoffGenerator"]


def __getattr__(name: str) -> Any:
    # The networks can be trained in environments with torch alone; the generator has more dependencies.
    if name == "WyckoffGenerator":
        from hybridcsp.generators.wyckoff.generator import WyckoffGenerator

        return WyckoffGenerator
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
