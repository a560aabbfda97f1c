"""A symmetry-aware autoregressive transformer (after CrystalFormer, doi:10.48550/arXiv.2403.15734)."""

from hybridcsp.generators.wyckoff.generator import WyckoffGenerator

__all__ = ["WyckoffGenerator"]
