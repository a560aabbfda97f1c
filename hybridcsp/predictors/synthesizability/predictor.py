"""The ``synthesizability`` predictor and its configurations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import torch
from ase import Atoms
from numpy.typing import NDArray
from scipy.special import expit
from scipy.stats import norm

from hybridcsp.errors import InputError
from hybridcsp.predictors.base import Prediction
from hybridcsp.predictors.calibration import LEVELS
from hybridcsp.predictors.cgcnn.network import Architecture, ConvolutionNetwork
from hybridcsp.predictors.domain import GeometryRanges, KnownRegion, reason_of_elements, unseen_elements
from hybridcsp.predictors.ensemble import Ensemble, HeldOut, elements_of, halves, spread_of
from hybridcsp.predictors.graphs import CrystalGraph, NearestNeighbours, Neighbourhood, SmoothNeighbours
from hybridcsp.predictors.labelled import Labelled, check_learnable, split
from hybridcsp.predictors.network import GraphData
from hybridcsp.predictors.synthesizability.bags import (
    MadeOrNot,
    are_made,
    draw_bags,
    equal_weights,
    settings_of_bags,
)
from hybridcsp.predictors.synthesizability.reliability import (
    LogisticScale,
    crossed,
    logit,
    reliability,
    scores,
    unscaled,
)
from hybridcsp.training.configurations import CORRECTED, PUBLISHED
from hybridcsp.training.epoch import Epoch
from hybridcsp.training.held_out import formula_of
from hybridcsp.training.settings import chosen_settings

Array = NDArray[np.float64]

#: Name of what is predicted.
QUANTITY = "synthesizability"


class Synthesizability(Ensemble):
    """Probability that a crystal has been made, by positive-unlabelled learning.

    What has been made is known, what cannot be made is not: a crystal of which only a computation is known may be made
    tomorrow. Each network is a classifier that learns from a bag: crystals that have been made, and as many of the
    others, drawn at random, which are taken for not made; the mean over the bags is the result (Mordelet and Vert,
    doi:10.1016/j.patrec.2013.06.010), with CGCNN as the classifier as in Jang et al., doi:10.1021/jacs.0c07384.

    The property is a mark, ``theoretical`` in the files of the Materials Project: 0 for a crystal that has been made,
    1 for one of which only a computation is known. Crystals without the mark are taken for such ones, too.

    The configuration *published* has the network of CGCNN as its authors made it, bags with all crystals that have been
    made, 100 of them, and the mean over the bags as the result.

    The configuration *corrected*, the default, has the smooth neighbourhood and the normalisation of CGCNN's
    configuration *corrected*, smaller bags, 5 of them, and a result that is calibrated on held-out crystals, so that it
    is a probability.

    Parameters
    ----------
    configuration
        Name of the configuration.
    architecture
        Sizes of the network.
    neighbourhood
        Rule for the neighbours of an atom.
    norm
        Function that returns the normalisation of a number of features.
    calibrate
        Function that returns the calibration for probabilities of held-out crystals and which of them have been made.
    bags, bag
        Usual number of bags, and largest number of made crystals in one; ``None`` for all.
    """

    name = "synthesizability"
    usual_property: ClassVar[str] = "theoretical"
    missing: ClassVar[float | None] = 1.0
    sizes = Architecture
    defaults = MappingProxyType(
        {"learning_rate": 2e-3, "epochs": 10, "patience": 4, "batch_size": 32, "averaging": 0.99}
    )

    def __init__(
        self,
        configuration: str,
        *,
        architecture: Architecture | None = None,
        neighbourhood: Neighbourhood,
        norm: Callable[[int], torch.nn.Module],
        calibrate: Callable[[Array, NDArray[np.bool_]], LogisticScale],
        bags: int,
        bag: int | None,
    ) -> None:
        super().__init__(configuration, architecture or Architecture())
        self._neighbourhood = neighbourhood
        self._norm = norm
        self._calibrate = calibrate
        self.usual_members = bags
        self._bag = bag
        self._scale = LogisticScale()
        self._region: KnownRegion | None = None
        self._ranges: GeometryRanges | None = None

    def network(self) -> ConvolutionNetwork:
        """Return a network with random weights."""
        return ConvolutionNetwork(self.architecture, self._neighbourhood, self._norm, MadeOrNot())

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
        """Train one network on each bag; parameters are those of :meth:`hybridcsp.predictors.base.Predictor.fit`.

        A tenth of the formulas is held out. The loss on their crystals decides when the training of a network stops,
        and they calibrate the result and set the limit beyond which a crystal is outside of what was learned.

        Parameters
        ----------
        data
            Crystals whose values are 0 if they have been made, and else 1.
        members
            Number of bags.
        logarithmic
            Must be false.
        seed, checkpoint, on_epoch
            As in the base class.
        **settings
            Settings of the training, and ``bag``, the largest number of made crystals in a bag.

        Raises
        ------
        InputError
            If the data cannot be learned, a setting is unknown or invalid, or a checkpoint belongs to another training.
        """
        size = settings_of_bags(settings, self._bag)
        chosen = chosen_settings({**self.defaults, **{key: value for key, value in settings.items() if key != "bag"}})
        if logarithmic:
            raise InputError("logarithmic", logarithmic, reason="a mark of made crystals has no logarithm")
        made = are_made(data)
        check_learnable(data, logarithmic=False)
        networks = self._new_networks(members, seed, chosen)
        division = split(data.crystals)
        learned, held = division.learned, division.held_out
        if made[held].all() or not made[held].any():
            reason = "the held-out tenth of the formulas must have both crystals that have been made and others"
            raise InputError("data", len(data.crystals), reason=f"{reason}; give more crystals")
        training, testing = data.part(learned), data.part(held)
        neighbourhood, marks = networks[0].neighbourhood, made[held]
        graphs = [neighbourhood.graph(crystal) for crystal in training.crystals]
        held_out = GraphData(
            [neighbourhood.graph(crystal) for crystal in testing.crystals], marks.astype(float), equal_weights(marks)
        )
        targets = made[learned].astype(float)
        sets = [
            (GraphData([graphs[i] for i in bag], targets[bag]), held_out)
            for bag in draw_bags(made[learned], len(networks), size, seed)
        ]
        histories = self._train(networks, sets, chosen, seed, checkpoint, on_epoch)
        self._networks = networks
        self._region = KnownRegion.fitted(self.embeddings(graphs), self.embeddings(held_out.graphs), seed)
        self._ranges = GeometryRanges.fitted(training.crystals, graphs)
        outputs = expit(self.outputs(held_out.graphs))
        mean = outputs.mean(0)
        self._scale = self._calibrate(mean, marks)
        crossed_over = crossed(mean, marks, halves(testing.crystals), self._calibrate)
        self.held_out = HeldOut(values=marks.astype(float), means=crossed_over, spreads=spread_of(outputs))
        self.card = {
            "configuration": self.configuration,
            "property": QUANTITY,
            "mark": data.name,
            "unit": "",
            "members": len(networks),
            "bag": min(int(made[learned].sum()), size) if size else int(made[learned].sum()),
            "crystals": len(learned),
            "made": int(made[learned].sum()),
            "formulas": len({formula_of(crystal) for crystal in training.crystals}),
            "elements": elements_of(training.crystals),
            "held_out": {
                **division.record,
                "crystals": len(held),
                "made": int(marks.sum()),
                **scores(crossed_over, marks),
                "reliability": reliability(crossed_over, marks),
                "before_calibration": {**scores(mean, marks), "reliability": reliability(mean, marks)},
            },
            "seed": seed,
            "settings": asdict(chosen),
            "history": histories if len(networks) > 1 else histories[0],
            "training_formulas": " ".join(sorted({formula_of(crystal) for crystal in training.crystals})),
        }

    def predict(self, crystals: Sequence[Atoms]) -> Prediction:
        """Predict the probability that crystals have been made.

        The standard deviation is that over the bags, and the intervals hold the result of a further bag with their
        probability; they are no intervals of the probability itself.

        Raises
        ------
        InputError
            If the predictor is not trained, or a structure is not a crystal.
        """
        graphs = self.graphs(crystals)
        outputs = expit(self.outputs(graphs))
        single = self._scale.apply(outputs)
        mean = outputs.mean(0)
        centre, spread = logit(mean), spread_of(logit(outputs))
        intervals = []
        for level in LEVELS:
            half = float(norm.ppf(0.5 + level / 2)) * spread
            ends = [self._scale.apply(expit(centre - half)), self._scale.apply(expit(centre + half))]
            intervals.append(np.stack(ends, axis=-1))
        unseen = unseen_elements(crystals, self.card["elements"])
        return Prediction(
            mean=self._scale.apply(mean),
            standard_deviation=spread_of(single),
            interval_50=intervals[0],
            interval_90=intervals[1],
            unseen=unseen,
            outside=self._outside(crystals, graphs, unseen),
        )

    def assessment(self) -> str:
        """Return how well held-out crystals that have been made are told from others, and the calibration."""
        found = self.card["held_out"]
        at = ", ".join(f"{share:.0%} at {float(limit):.0%}" for limit, share in found["recall"].items())
        return (
            f"{found['crystals']} held-out crystals, of which {found['made']} have been made: area under the curve "
            f"{found['area']:.3f}; recall of those made, at the share of the others that is called positive: {at}. "
            f"Mean error of the calibrated probability {found['calibration_error']:.3f} "
            f"(before the calibration {found['before_calibration']['calibration_error']:.3f})."
        )

    def _outside(
        self, crystals: Sequence[Atoms], graphs: Sequence[CrystalGraph], unseen: Sequence[Sequence[str]]
    ) -> tuple[str, ...]:
        """Return why crystals are outside of what was learned."""
        if not graphs:
            return ()
        assert self._region is not None
        assert self._ranges is not None
        elements = [reason_of_elements(symbols) for symbols in unseen]
        reasons = (elements, self._ranges.reasons(crystals, graphs), self._region.reasons(self.embeddings(graphs)))
        return tuple("; ".join(filter(None, own)) for own in zip(*reasons, strict=True))

    def _record(self) -> Mapping[str, Any]:
        assert self._region is not None
        assert self._ranges is not None
        return {
            "calibration": self._scale.record(),
            "largest_distance": self._region.limit,
            "geometry": self._ranges.record(),
        }

    def _arrays(self) -> Mapping[str, torch.Tensor]:
        assert self._region is not None
        return {"known/features": torch.as_tensor(self._region.known)}

    def _restore(self, card: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> None:
        self._scale = LogisticScale(**card["calibration"])
        known = tensors["known/features"].double().numpy()
        if known.ndim != 2 or known.shape[1] != self.architecture.width:
            raise ValueError("the features of known crystals must be those of the network")
        self._region = KnownRegion(known=known, limit=card["largest_distance"])
        self._ranges = GeometryRanges(ranges=card["geometry"])


def published() -> Synthesizability:
    """Return an untrained predictor of the configuration *published*."""
    return Synthesizability(
        PUBLISHED,
        neighbourhood=NearestNeighbours(),
        norm=torch.nn.BatchNorm1d,
        calibrate=unscaled,
        bags=100,
        bag=None,
    )


def corrected() -> Synthesizability:
    """Return an untrained predictor of the configuration *corrected*."""
    return Synthesizability(
        CORRECTED,
        neighbourhood=SmoothNeighbours(),
        norm=torch.nn.LayerNorm,
        calibrate=LogisticScale.fitted,
        bags=5,
        bag=4000,
    )


Synthesizability.configurations = MappingProxyType({CORRECTED: corrected, PUBLISHED: published})
