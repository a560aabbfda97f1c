"""Part of a network that reads the properties on which a generator is conditioned."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PropertyTerms(nn.Module):
    """Linear terms of the features of properties, which have no effect before they are trained.

    The weights begin at zero and are not drawn, so that a network gives the same output with and without untrained
    terms, and its other weights are initialised alike.

    Parameters
    ----------
    width
        Number of terms.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(0, width))

    def widen(self, n_features: int) -> None:
        """Add terms of more features, with zero weights, up to a number of features."""
        more = n_features - len(self.weight)
        if more > 0:
            added = torch.zeros(more, self.weight.shape[1], device=self.weight.device)
            self.weight = nn.Parameter(torch.cat([self.weight.data, added]))

    def forward(self, features: Tensor) -> Tensor:
        """Return the terms of features, shape ``(batch, width)``."""
        return features @ self.weight


def with_terms(terms: PropertyTerms | None, hidden: Tensor, features: Tensor | None) -> Tensor:
    """Add the terms of properties to values, shape ``(batch, width)``; without either, return the values alone."""
    return hidden if terms is None or features is None else hidden + terms(features)


def widened(terms: PropertyTerms | None, width: int, n_features: int) -> PropertyTerms | None:
    """Return terms for a number of features, made if there are none; ``None`` for no features."""
    if terms is None and n_features:
        terms = PropertyTerms(width)
    if terms is not None:
        terms.widen(n_features)
    return terms
