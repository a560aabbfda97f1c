"""Objectives: properties of relaxed crystals that a search improves, limits or reports beside the enthalpy."""

from __future__ import annotations

from hybridcsp.objectives.base import Objective
from hybridcsp.objectives.choice import ObjectiveChoice
from hybridcsp.objectives.measured_pattern import MeasuredPattern
from hybridcsp.objectives.registry import OBJECTIVES

__all__ = ["OBJECTIVES", "MeasuredPattern", "Objective", "ObjectiveChoice"]
