"""Geometry, symmetry, Wyckoff positions and validity of structures."""
