"""Hybrid crystal structure prediction (work in progress)."""
__version__ = "0.1.0"
