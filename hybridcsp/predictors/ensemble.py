"""Ensembles of networks on graphs: their training, their outputs and their files, whatever they predict."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from ase import Atoms
from numpy.typing import NDArray

from hybridcsp.errors import InputError
from hybridcsp.predictors.base import Predictor
from hybridcsp.predictors.graphs import CrystalGraph
from hybridcsp.predictors.labelled import copies
from hybridcsp.predictors.network import GraphData, PropertyNetwork, batch_of
from hybridcsp.training import weights_io
from hybridcsp.training.epoch import Epoch
from hybridcsp.training.held_out import formula_of
from hybridcsp.training.loop import smallest_batch
from hybridcsp.training.settings import TrainingSettings
from hybridcsp.training.trainer import Trainer

Array = NDArray[np.float64]

#: Kind of the models in their cards.
KIND = "predictor"

#: Largest number of members of an ensemble.
MOST_MEMBERS = 128

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


class Ensemble(Predictor):
    """Base class of predictors that are ensembles of networks on graphs.

    Subclasses implement :meth:`network`, :meth:`fit`, :meth:`predict`, :meth:`_record` and :meth:`_restore`, and set
    :attr:`sizes` and :attr:`defaults`.

    Parameters
    ----------
    configuration
        Name of the configuration.
    architecture
        Sizes of the networks, a dataclass.
    """

    #: Dataclass of the sizes of the networks, which a card stores.
    sizes: type
    #: Settings of the training that differ from the usual ones.
    defaults: Mapping[str, Any]

    def __init__(self, configuration: str, architecture: Any) -> None:
        self.configuration = configuration
        self.architecture = architecture
        self.card: Mapping[str, Any] = {}
        self.held_out: HeldOut | None = None
        self._networks: list[PropertyNetwork] = []

    @abstractmethod
    def network(self) -> PropertyNetwork:
        """Return a network with random weights."""

    def parameters_of_network(self) -> int:
        """Return the number of parameters of a network, or a lower bound, without the memory for them."""
        return weights_io.parameters_of(self.network)

    @abstractmethod
    def _record(self) -> Mapping[str, Any]:
        """Return what the card stores, in addition to the description of the training, for :meth:`_restore`."""

    @abstractmethod
    def _restore(self, card: Mapping[str, Any], tensors: Mapping[str, torch.Tensor]) -> None:
        """Set the state, except the networks, from a card and the arrays of :meth:`_arrays`.

        Raises
        ------
        KeyError, TypeError, ValueError
            If they are damaged.
        """

    def _arrays(self) -> Mapping[str, torch.Tensor]:
        """Return arrays by name that are stored with the weights of the networks; there are none by default."""
        return {}

    def _new_networks(self, members: int | None, seed: int, settings: TrainingSettings) -> list[PropertyNetwork]:
        """Return untrained networks, ``members`` or the usual number of them.

        Raises
        ------
        InputError
            If the number is not possible, or the networks cannot learn from batches of the chosen size.
        """
        count = self.usual_members if members is None else members
        if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MOST_MEMBERS:
            raise InputError("members", count, f"a whole number from 1 to {MOST_MEMBERS}")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            networks = [self.network() for _ in range(count)]
        smallest_batch(networks[0], settings.batch_size)
        return networks

    def _train(
        self,
        networks: Sequence[PropertyNetwork],
        sets: Sequence[tuple[GraphData, GraphData]],
        settings: TrainingSettings,
        seed: int,
        checkpoint: Path | None,
        on_epoch: Callable[[Epoch], None] | None,
    ) -> list[list[dict[str, Any]]]:
        """Train each network on its training set with its held-out set, and return their learning curves."""
        members = len(networks)
        histories = []
        for number, (network, (training, held_out)) in enumerate(zip(networks, sets, strict=True)):
            trainer = Trainer(
                network,
                training,
                held_out,
                settings,
                seed=seed + number,
                checkpoint=None if checkpoint is None else _numbered(checkpoint, number, members),
                on_epoch=None if on_epoch is None else _named(on_epoch, number, members),
            )
            histories.append(trainer.train())
        return histories

    def graphs(self, crystals: Sequence[Atoms]) -> list[CrystalGraph]:
        """Return the graphs of crystals for the networks.

        Raises
        ------
        InputError
            If the predictor is not trained, or a structure is not a crystal.
        """
        if not self._networks:
            raise InputError(KIND, self.name, reason="the predictor is not trained; call fit() or load weights")
        return [self._networks[0].neighbourhood.graph(crystal) for crystal in crystals]

    @torch.no_grad()
    def outputs(self, graphs: Sequence[CrystalGraph]) -> Array:
        """Return the numbers of all members, shape ``(members, n)``."""
        found = np.zeros((len(self._networks), len(graphs)))
        for indices, batch in _batches(graphs):
            for number, network in enumerate(self._networks):
                found[number, indices] = network.eval().predict(batch).double().numpy()
        return found

    @torch.no_grad()
    def embeddings(self, graphs: Sequence[CrystalGraph]) -> Array:
        """Return the features of one or more crystals in the first network, shape ``(n, n_features)``."""
        network = self._networks[0].eval()
        found: dict[int, Array] = {}
        for indices, batch in _batches(graphs):
            found |= dict(zip(indices, network.embed(batch).double().numpy(), strict=True))
        return np.stack([found[i] for i in range(len(graphs))])

    def save(self, folder: Path) -> None:
        """Write weights, in single precision, and card into a folder.

        Raises
        ------
        InputError
            If the predictor is not trained.
        """
        if not self._networks:
            raise InputError(KIND, self.name, reason="the predictor is not trained; there are no weights to save")
        tensors = {
            f"{number}/{name}": value
            for number, network in enumerate(self._networks)
            for name, value in network.state_dict().items()
        }
        about = {"architecture": asdict(self.architecture), **self._record()}
        weights_io.save(
            folder, KIND, self.name, tensors | dict(self._arrays()), {**self.card, **about}, precision=torch.float32
        )

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
        with weights_io.reading_card(folder, KIND):
            predictor = cls.configured(str(card["configuration"]))
            if not isinstance(predictor, cls) or not 1 <= int(card["members"]) <= MOST_MEMBERS:
                raise ValueError("the number of members is not possible")
            predictor.architecture = cls.sizes(**card["architecture"])
            if not all(isinstance(symbol, str) for symbol in card["elements"]):
                raise ValueError("the elements must be chemical symbols")
            predictor._restore(card, tensors)
            weights_io.check_parameters(int(card["members"]) * predictor.parameters_of_network(), tensors, folder)
            networks = [predictor.network() for _ in range(int(card["members"]))]
        for number, network in enumerate(networks):
            own = {
                key.partition("/")[2]: value for key, value in tensors.items() if key.partition("/")[0] == str(number)
            }
            weights_io.fill(network, own, folder)
            network.eval()
        predictor._networks, predictor.card = networks, card
        return predictor


def elements_of(crystals: Sequence[Atoms]) -> list[str]:
    """Return the symbols of all elements of crystals in alphabetical order."""
    return sorted({symbol for crystal in crystals for symbol in crystal.symbols})


def spread_of(outputs: Array) -> Array:
    """Return the standard deviation over the members; 0 for a single one."""
    return outputs.std(0, ddof=1) if len(outputs) > 1 else np.zeros(outputs.shape[1])


def halves(crystals: Sequence[Atoms]) -> NDArray[np.int_]:
    """Return the half of the held-out crystals that each belongs to, 0 or 1.

    Crystals of one formula are in one half; if there is one formula only, descriptions of one crystal are.
    """
    formulas = [formula_of(crystal) for crystal in crystals]
    distinct = sorted(set(formulas))
    if len(distinct) > 1:
        return np.array([distinct.index(formula) % 2 for formula in formulas])
    groups, _ = copies(crystals)
    return (groups if groups.max() > 0 else np.arange(len(crystals))) % 2


def _batches(graphs: Sequence[CrystalGraph]) -> Iterator[tuple[list[int], Mapping[str, torch.Tensor]]]:
    """Divide crystals, the smallest first, into batches of a limited number of atoms, with their positions."""
    batches: list[list[int]] = []
    atoms = 0
    for i in sorted(range(len(graphs)), key=lambda i: len(graphs[i].numbers)):
        if not batches or atoms + len(graphs[i].numbers) > _TOGETHER:
            batches.append([])
            atoms = 0
        batches[-1].append(i)
        atoms += len(graphs[i].numbers)
    return ((indices, batch_of([graphs[i] for i in indices])) for indices in batches)


def _numbered(checkpoint: Path, number: int, members: int) -> Path:
    return checkpoint if members == 1 else checkpoint.with_name(f"member-{number + 1}-{checkpoint.name}")


def _named(on_epoch: Callable[[Epoch], None], number: int, members: int) -> Callable[[Epoch], None]:
    def report(epoch: Epoch) -> None:
        on_epoch(epoch if members == 1 else replace(epoch, part=f"member {number + 1}"))

    return report
