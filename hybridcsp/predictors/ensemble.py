"""Training, prediction and files of ensembles of networks, which all predictors of the package have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from dataclasses import fields as fields_of
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from ase import Atoms
from numpy.typing import NDArray

from hybridcsp.errors import InputError, UnknownNameError
from hybridcsp.predictors.base import Prediction, Predictor
from hybridcsp.predictors.calibration import LEVELS, Calibration, crossed_coverage, raw_coverage
from hybridcsp.predictors.labelled import Labelled, check_learnable, split
from hybridcsp.predictors.network import GraphData, PropertyNetwork, batch_of
from hybridcsp.predictors.scales import Scale
from hybridcsp.training import weights_io
from hybridcsp.training.epoch import Epoch
from hybridcsp.training.held_out import formula_of
from hybridcsp.training.settings import TrainingSettings
from hybridcsp.training.trainer import Trainer

Array = NDArray[np.float64]

#: Kind of the models in their cards.
KIND = "predictor"

#: Largest number of members of an ensemble.
MOST_MEMBERS = 64

# Number of atoms in a batch of crystals to predict.
_TOGETHER = 2000


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Values and predictions of held-out crystals, on the scale that is learned without its shift and spread.

    Attributes
    ----------
    values, means, spreads
        True values, means of the ensemble and their standard deviations over its members, shape ``(n,)``.
    """

    values: Array
    means: Array
    spreads: Array


class EnsemblePredictor(Predictor):
    """Base class of predictors that are ensembles of networks on graphs.

    Subclasses implement :meth:`network`, and set :attr:`sizes` and :attr:`defaults`.

    Parameters
    ----------
    configuration
        Name of the configuration.
    architecture
        Sizes of the networks, a dataclass.
    scale
        Function that returns the scale for values of a property and their crystals.
    """

    #: Dataclass of the sizes of the networks, which a card stores.
    sizes: type
    #: Settings of the training that differ from the usual ones.
    defaults: Mapping[str, Any]

    def __init__(self, configuration: str, architecture: Any, scale: Callable[..., Scale]) -> None:
        self.configuration = configuration
        self.architecture = architecture
        self.card: Mapping[str, Any] = {}
        self.held_out: HeldOut | None = None
        self._new_scale = scale
        self._scale: Scale | None = None
        self._calibration: Calibration | None = None
        self._networks: list[PropertyNetwork] = []

    @abstractmethod
    def network(self) -> PropertyNetwork:
        """Return a network with random weights."""

    def fit(
        self,
        data: Labelled,
        *,
        members: int = 1,
        logarithmic: bool = False,
        seed: int = 0,
        checkpoint: Path | None = None,
        on_epoch: Callable[[Epoch], None] | None = None,
        **settings: Any,
    ) -> None:
        """Train the ensemble; parameters and errors are those of :meth:`hybridcsp.predictors.base.Predictor.fit`.

        A tenth of the formulas is held out. The loss on their crystals decides when the training of a member stops, and
        their errors calibrate the uncertainties, so that these errors are somewhat smaller than those on crystals that
        play no part in the training.

        Raises
        ------
        InputError
            If the data cannot be learned, a setting is unknown or invalid, or a checkpoint belongs to another training.
        """
        if isinstance(members, bool) or not isinstance(members, int) or not 1 <= members <= MOST_MEMBERS:
            raise InputError("members", members, f"a whole number from 1 to {MOST_MEMBERS}")
        chosen = _settings({**self.defaults, **settings})
        check_learnable(data, logarithmic=logarithmic)
        learned, held, by = split(data.crystals)
        training, testing = data.part(learned), data.part(held)
        scale = self._new_scale(training.values, training.crystals, logarithmic=logarithmic)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            networks = [self.network() for _ in range(members)]
        neighbourhood = networks[0].neighbourhood
        sets = [GraphData.of(part.crystals, part.values, scale, neighbourhood) for part in (training, testing)]
        histories = []
        for number, network in enumerate(networks):
            trainer = Trainer(
                network,
                sets[0],
                sets[1],
                chosen,
                seed=seed + number,
                checkpoint=None if checkpoint is None else _numbered(checkpoint, number, members),
                on_epoch=None if on_epoch is None else _named(on_epoch, number, members),
            )
            histories.append(trainer.train())
        self._networks, self._scale = networks, scale
        outputs = self._outputs(sets[1].graphs, testing.crystals)
        self.held_out = HeldOut(
            values=scale.forward(testing.values), means=outputs.mean(0), spreads=_spread_of(outputs)
        )
        errors = self.held_out.values - self.held_out.means
        self._calibration = Calibration.fitted(errors, self.held_out.spreads)
        self.card = {
            "configuration": self.configuration,
            "property": data.name,
            "unit": data.unit,
            "members": members,
            "crystals": len(learned),
            "formulas": len({formula_of(crystal) for crystal in training.crystals}),
            "elements": sorted({symbol for crystal in training.crystals for symbol in crystal.symbols}),
            "range": [float(training.values.min()), float(training.values.max())],
            "held_out": {
                "of": by,
                "crystals": len(held),
                **_scores(testing.values, scale.back(self.held_out.means), float(training.values.mean())),
                **({"of_logarithm": _scores(self.held_out.values, self.held_out.means)} if logarithmic else {}),
                "coverage_before_calibration": raw_coverage(errors, self.held_out.spreads) if members > 1 else None,
                "coverage": crossed_coverage(errors, self.held_out.spreads, _folds(testing.crystals)),
            },
            "seed": seed,
            "settings": asdict(chosen),
            "history": histories if members > 1 else histories[0],
            "training_formulas": " ".join(sorted({formula_of(crystal) for crystal in training.crystals})),
        }

    def predict(self, crystals: Sequence[Atoms]) -> Prediction:
        """Predict the property of crystals.

        Raises
        ------
        InputError
            If the predictor is not trained, or a structure is not a crystal.
        """
        if self._scale is None or self._calibration is None:
            raise InputError(KIND, self.name, reason="the predictor is not trained; call fit() or load weights")
        scale, calibration = self._scale, self._calibration
        neighbourhood = self._networks[0].neighbourhood
        outputs = self._outputs([neighbourhood.graph(crystal) for crystal in crystals], crystals)
        means, spreads = outputs.mean(0), _spread_of(outputs)
        centre, deviation = scale.back(means), calibration.standard_deviation(spreads)
        intervals = []
        for level in LEVELS:
            half = calibration.half_width(level, spreads)
            intervals.append(np.stack([scale.back(means - half), scale.back(means + half)], axis=-1))
        known = set(self.card["elements"])
        return Prediction(
            mean=centre,
            standard_deviation=centre * deviation if scale.logarithmic else deviation,
            interval_50=intervals[0],
            interval_90=intervals[1],
            unseen=tuple(tuple(sorted(set(crystal.symbols) - known)) for crystal in crystals),
        )

    def save(self, folder: Path) -> None:
        """Write weights, in single precision, and card into a folder.

        Raises
        ------
        InputError
            If the predictor is not trained.
        """
        if self._scale is None or self._calibration is None:
            raise InputError(KIND, self.name, reason="the predictor is not trained; there are no weights to save")
        tensors = {
            f"{number}/{name}": value
            for number, network in enumerate(self._networks)
            for name, value in network.state_dict().items()
        }
        about = {
            "architecture": asdict(self.architecture),
            "scale": asdict(self._scale),
            "calibration": self._calibration.record(),
        }
        weights_io.save(folder, KIND, self.name, tensors, {**self.card, **about}, precision=torch.float32)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Load a predictor that :meth:`save` wrote.

        Raises
        ------
        InputError
            If the files are damaged or belong to another predictor.
        """
        tensors, card = weights_io.load(folder, KIND, cls.name)
        weights_io.check_sizes(card.get("architecture"), "layers", tensors, folder)
        try:
            predictor = cls.configured(str(card["configuration"]))
            if not isinstance(predictor, cls) or not 1 <= int(card["members"]) <= MOST_MEMBERS:
                raise ValueError("the number of members is not possible")
            predictor.architecture = cls.sizes(**card["architecture"])
            predictor._scale = Scale.from_card(card["scale"])
            predictor._calibration = Calibration(**card["calibration"])
            if not all(isinstance(symbol, str) for symbol in card["elements"]):
                raise ValueError("the elements must be chemical symbols")
            networks = [predictor.network() for _ in range(int(card["members"]))]
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise InputError(
                "weights", str(folder / weights_io.CARD), reason=f"the card must be one of this predictor: {error}"
            ) from error
        for number, network in enumerate(networks):
            own = {
                key.partition("/")[2]: value for key, value in tensors.items() if key.partition("/")[0] == str(number)
            }
            weights_io.fill(network, own, folder)
            network.eval()
        predictor._networks, predictor.card = networks, card
        return predictor

    @torch.no_grad()
    def _outputs(self, graphs: Sequence[Any], crystals: Sequence[Atoms]) -> Array:
        """Return the property, or its logarithm if that is learned, by all members, shape ``(members, n)``."""
        assert self._scale is not None
        found = np.zeros((len(self._networks), len(graphs)))
        order = sorted(range(len(graphs)), key=lambda i: len(graphs[i].numbers))
        for indices in _batches(order, [len(graph.numbers) for graph in graphs]):
            batch = batch_of([graphs[i] for i in indices])
            for number, network in enumerate(self._networks):
                found[number, indices] = network.eval().predict(batch).double().numpy()
        return self._scale.decode(found, crystals)


def _batches(order: Sequence[int], sizes: Sequence[int]) -> list[list[int]]:
    """Divide crystals into batches of a limited number of atoms."""
    batches: list[list[int]] = []
    atoms = 0
    for i in order:
        if not batches or atoms + sizes[i] > _TOGETHER:
            batches.append([])
            atoms = 0
        batches[-1].append(i)
        atoms += sizes[i]
    return batches


def _settings(given: Mapping[str, Any]) -> TrainingSettings:
    known = [field.name for field in fields_of(TrainingSettings)]
    for name in given:
        if name not in known:
            raise UnknownNameError("setting", name, known)
    return TrainingSettings(**given)


def _numbered(checkpoint: Path, number: int, members: int) -> Path:
    return checkpoint if members == 1 else checkpoint.with_name(f"member-{number + 1}-{checkpoint.name}")


def _named(on_epoch: Callable[[Epoch], None], number: int, members: int) -> Callable[[Epoch], None]:
    def report(epoch: Epoch) -> None:
        on_epoch(epoch if members == 1 else replace(epoch, part=f"member {number + 1}"))

    return report


def _spread_of(outputs: Array) -> Array:
    """Return the standard deviation over the members; 0 for a single one."""
    return outputs.std(0, ddof=1) if len(outputs) > 1 else np.zeros(outputs.shape[1])


def _folds(crystals: Sequence[Atoms]) -> NDArray[np.int_]:
    """Return the half of the held-out crystals that each belongs to; crystals of one formula are in one half."""
    formulas = [formula_of(crystal) for crystal in crystals]
    distinct = sorted(set(formulas))
    if len(distinct) == 1:
        return np.arange(len(formulas)) % 2
    return np.array([distinct.index(formula) % 2 for formula in formulas])


def _scores(values: Array, predicted: Array, mean: float | None = None) -> dict[str, float]:
    """Return errors of predictions, and if a mean is given, the mean absolute error of predicting it for all."""
    errors = predicted - values
    variance = float(np.mean((values - values.mean()) ** 2))
    scores = {
        "mae": float(np.abs(errors).mean()),
        "rmse": float(np.sqrt(np.mean(errors**2))),
    }
    if variance > 0:
        scores["r2"] = 1 - float(np.mean(errors**2)) / variance
    if mean is not None:
        scores["mae_of_mean"] = float(np.abs(values - mean).mean())
    return scores
