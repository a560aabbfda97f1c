"""Positive-unlabelled learning of which crystals have been made."""

from __future__ import annotations

from hybridcsp.predictors.synthesizability.predictor import Synthesizability

__all__ = ["Synthesizability"]
