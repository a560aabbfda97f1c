"""Flow matching of fractional coordinates on the torus and of the logarithm of the lattice's metric."""

from hybridcsp.generators.flow.generator import FlowGenerator
from hybridcsp.generators.flow.matching import Integration
from hybridcsp.generators.flow.network import Architecture

__all__ = ["Architecture", "FlowGenerator", "Integration"]
