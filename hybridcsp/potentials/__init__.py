"""Potentials that learn from evaluations: data sets, training, and the calculator of a committee."""
