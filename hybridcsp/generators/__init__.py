"""Models that learn from crystals and sample crystals."""
