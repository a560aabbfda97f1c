"""Networks whose features rotate with the crystal, on e3nn."""

from __future__ import annotations

from hybridcsp.predictors.equivariant.network import Architecture, EquivariantNetwork
from hybridcsp.predictors.equivariant.predictor import EquivariantPredictor

__all__ = ["Architecture", "EquivariantNetwork", "EquivariantPredictor"]
