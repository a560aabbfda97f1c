"""Objectives: properties of relaxed crystals that a search improves, limits or reports beside the enthalpy."""

from __future__ import annotations

from hybridcsp.objectives.base import Objective
from hybridcsp.objectives.choice import ObjectiveChoice
from hybridcsp.objectives.registry import OBJECTIVES

__all__ = ["OBJECTIVES", "Objective", "ObjectiveChoice"]
