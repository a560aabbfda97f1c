"""Utilities that know nothing of crystals or searches."""
