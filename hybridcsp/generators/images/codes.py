"""Latent codes of the images of crystals."""

from __future__ import annotations

from typing import NamedTuple

import torch


class Codes(NamedTuple):
    """Represent the latent codes of the images of crystals.

    Attributes
    ----------
    cell
        Codes of the images of the cells, shape ``(batch, c)``.
    sites
        Codes of the images of the elements, shape ``(batch, n_elements, s)``.
    """

    cell: torch.Tensor
    sites: torch.Tensor
