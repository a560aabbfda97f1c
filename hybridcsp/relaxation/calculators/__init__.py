"""Calculators: names, construction, and the labels by which energies are compared."""
