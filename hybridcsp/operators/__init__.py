"""Operators that make children of parents for evolution: one file for each operator or closely related group."""

from hybridcsp.operators.base import Operator, WeightedOperator
from hybridcsp.operators.registry import CALCULATOR_SOFT_MUTATION, OPERATORS

__all__ = ["CALCULATOR_SOFT_MUTATION", "OPERATORS", "Operator", "WeightedOperator"]
