"""Models that predict properties of crystals."""
