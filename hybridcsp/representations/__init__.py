"""Crystals as what networks read and write: one file for each representation."""
