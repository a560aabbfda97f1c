"""Stands in for the package sevenn: the same interfaces around a tiny network with random weights.

Its checkpoints are JSON instead of pickles.
"""

__version__ = "0.0.1"

import torch

torch.serialization.add_safe_globals([slice])  # the version of e3nn that MACE needs stores one in a file
