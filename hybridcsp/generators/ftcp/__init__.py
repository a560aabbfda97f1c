"""FTCP: a variational autoencoder of Fourier-transformed crystal properties (doi:10.1016/j.matt.2021.11.032)."""

from __future__ import annotations

from hybridcsp.generators.ftcp.generator import FtcpGenerator
from hybridcsp.generators.ftcp.network import FtcpArchitecture

__all__ = ["FtcpArchitecture", "FtcpGenerator"]
