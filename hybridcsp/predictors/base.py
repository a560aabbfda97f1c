"""Interface of predictors: what every learned model of a property of crystals implements, and what it returns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from hybridcsp.predictors.domain import reason_of_elements
from hybridcsp.training.configurations import Configured
from hybridcsp.training.epoch import Epoch

if TYPE_CHECKING:
    from ase import Atoms

    from hybridcsp.predictors.labelled import Labelled


@dataclass(frozen=True, kw_only=True, eq=False)
class Prediction:
    """Represent the predicted property of several crystals.

    Attributes
    ----------
    mean
        Expected values in the unit of the property, shape ``(n,)``; medians if the model has learned logarithms.
    standard_deviation
        Their uncertainties in the same unit, shape ``(n,)``, calibrated on crystals that were held out of the training.
    interval_50, interval_90
        Lower and upper ends of the intervals that hold the value with a probability of 50 and 90 %, shape ``(n, 2)``.
    unseen
        Symbols of the elements of each crystal that do not occur in the training set.
    outside
        Why each crystal is outside of what the predictor has learned from, so that its prediction cannot be trusted;
        an empty text for a crystal inside. By default, only crystals with unseen elements are outside.
    """

    mean: NDArray[np.float64]
    standard_deviation: NDArray[np.float64]
    interval_50: NDArray[np.float64]
    interval_90: NDArray[np.float64]
    unseen: tuple[tuple[str, ...], ...]
    outside: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.outside:
            object.__setattr__(self, "outside", tuple(reason_of_elements(symbols) for symbols in self.unseen))


class Predictor(Configured, ABC):
    """Abstract base class of models that learn one property of crystals and predict it.

    Subclasses set ``name`` and implement :meth:`fit`, :meth:`predict`, :meth:`save` and :meth:`load`.

    Attributes
    ----------
    name
        Registered name.
    configurations
        Names of the configurations in which the model can be made, and the functions that make it.
    card
        Description of the training, JSON-serialisable; written next to the weights. ``property`` and ``unit`` are read
        by all commands if they are there; no other key is needed.
    usual_members
        Number of networks that :meth:`fit` trains if it is not told.
    usual_property
        Name of the property that is learned if none is chosen; empty if there must be a choice.
    missing
        Value of the property of crystals without it; ``None`` if nothing can be learned from such crystals.
    """

    name: str
    usual_members: int = 1
    usual_property: ClassVar[str] = ""
    missing: ClassVar[float | None] = None
    card: Mapping[str, Any] = MappingProxyType({})

    @property
    def quantity(self) -> str:
        """Name of the property; empty before the training."""
        return str(self.card.get("property", ""))

    @property
    def unit(self) -> str:
        """Unit of the property; empty if it has none or it is not known."""
        return str(self.card.get("unit", ""))

    def assessment(self) -> str:
        """Return sentences for people on the quality of the predictions of held-out crystals; none by default."""
        return ""

    @abstractmethod
    def fit(
        self,
        data: Labelled,
        *,
        members: int | None = None,
        logarithmic: bool = False,
        seed: int = 0,
        checkpoint: Path | None = None,
        on_epoch: Callable[[Epoch], None] | None = None,
        **settings: Any,
    ) -> None:
        """Train on crystals whose property is known, from random weights.

        Parameters
        ----------
        data
            Crystals with their values.
        members
            Number of networks that are trained with different seeds, by default :attr:`usual_members`; their mean is
            the prediction, and their spread tells how uncertain it is.
        logarithmic
            Whether the logarithm of the property is learned, which must then be positive.
        seed
            Random seed.
        checkpoint
            File in which the state of the training is kept, one for each member with its number before the name; the
            training continues from them if they exist.
        on_epoch
            Function that is called after each epoch.
        **settings
            Settings of the training.
        """

    @abstractmethod
    def predict(self, crystals: Sequence[Atoms]) -> Prediction:
        """Predict the property of crystals."""

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Write the weights and the card into a folder, which is made if it does not exist."""

    @classmethod
    @abstractmethod
    def load(cls, folder: Path) -> Self:
        """Read a predictor from a folder that :meth:`save` has written."""
