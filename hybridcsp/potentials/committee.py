"""Committee of MACE networks that learns from evaluations, and whose spread says how uncertain it is.

Each member has random weights of its own and learns from a bootstrap sample of the crystals (committee potentials,
doi:10.1063/5.0016004). The crystals that a member does not learn from choose its best epoch.
Trajectories that no member learns from give the errors that are told.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from ase import Atoms
from numpy.typing import NDArray

from hybridcsp.errors import InputError
from hybridcsp.potentials.architecture import (
    MaceSizes,
    Normalisation,
    batch_of,
    build_network,
    check_mace,
    graph_of,
)
from hybridcsp.potentials.assessment import Assessment, Prediction
from hybridcsp.potentials.evaluations import Evaluations, diverse
from hybridcsp.potentials.training import GraphTensors, LossWeights, PotentialLoss
from hybridcsp.predictors.calibration import Calibration
from hybridcsp.relaxation.calculators.server.exceptions import IsolatedAtomsError
from hybridcsp.relaxation.calculators.server.models import check_elements
from hybridcsp.training import weights_io
from hybridcsp.training.epoch import Epoch
from hybridcsp.training.settings import TrainingSettings
from hybridcsp.training.trainer import Trainer
from hybridcsp.utils.checks import whole_number

#: Kind and name under which the card names a committee.
KIND, NAME = "potential", "mace-committee"

#: Largest number of members.
MOST_MEMBERS = 16

#: Settings of the training of a member, of which any may be changed.
TRAINING = TrainingSettings(
    epochs=60,
    batch_size=8,
    learning_rate=0.01,
    warm_up=50,
    weight_decay=0.0,
    clip=10.0,
    averaging=0.99,
    patience=15,
    device="cpu",
)

# One of this many trajectories is held out.
_HELD_OUT = 10
_LEAST_TRAJECTORIES = 4


@dataclass(frozen=True, kw_only=True)
class _Member:
    network: torch.nn.Module
    precise: torch.nn.Module  # the same in double precision, for evaluations


class Committee:
    """Committee of MACE networks.

    Parameters
    ----------
    sizes
        Sizes of each network.

    Attributes
    ----------
    card
        Description of the training.
    assessment
        Errors on held-out trajectories; ``None`` before a training and for weights that were loaded.
    """

    def __init__(self, sizes: MaceSizes | None = None) -> None:
        check_mace()
        self.sizes = sizes or MaceSizes()
        self.card: dict[str, Any] = {}
        self.assessment: Assessment | None = None
        self.normalisation: Normalisation | None = None
        self._members: list[_Member] = []

    def __len__(self) -> int:
        return len(self._members)

    @property
    def numbers(self) -> tuple[int, ...]:
        """Atomic numbers of the elements that the committee knows."""
        return () if self.normalisation is None else self.normalisation.numbers

    @property
    def calibration(self) -> Calibration | None:
        """Standard deviation of force components by the spread, from held-out trajectories; ``None`` if unknown."""
        recorded = (self.card.get("held_out") or {}).get("calibration")
        return None if recorded is None else Calibration(**recorded)

    def fit(
        self,
        data: Evaluations,
        *,
        members: int = 3,
        most: int = 2000,
        seed: int = 0,
        weights: LossWeights | None = None,
        training: TrainingSettings = TRAINING,
        checkpoint: Path | None = None,
        on_epoch: Callable[[Epoch], None] | None = None,
    ) -> list[list[dict[str, Any]]]:
        """Train all members, one after the other, on the CPU.

        Parameters
        ----------
        data
            Evaluations of one calculator.
        members
            Number of networks.
        most
            Largest number of crystals that are used; the most different ones are chosen.
        seed
            Random seed. The same seed and data give the same weights, bit for bit with the same packages and machine.
        weights
            Weights of energies, forces and stresses in the loss.
        training
            Settings of the training of each member.
        checkpoint
            File next to which the state of each member is kept. A training that was interrupted continues from it.
        on_epoch
            Function that is called after each epoch.

        Returns
        -------
        list of list of dict
            Number and losses of each epoch of each member.

        Raises
        ------
        InputError
            If a value is not valid, there are fewer than four trajectories, or the training diverges.
        """
        whole_number("members", members, f"a whole number from 1 to {MOST_MEMBERS}")
        whole_number("most", most, "a whole number from 10", 10)
        if members > MOST_MEMBERS:
            raise InputError("members", members, f"a whole number from 1 to {MOST_MEMBERS}")
        if training.torch_device().type != "cpu":
            training = replace(training, device="cpu")
        chosen = data.take(diverse(data.frames, most))
        learned, held_out = split(chosen)
        used = [chosen.frames[i] for i in learned]
        self.normalisation = Normalisation.of(used, self.sizes)
        graphs, isolated = self._graphs(used)
        if len(graphs) < _LEAST_TRAJECTORIES:
            raise InputError("data", len(graphs), reason="in most crystals an atom has no neighbour within the cutoff")
        histories = []
        with _one_thread():
            for number in range(members):
                network = build_network(self.sizes, self.normalisation, seed=seed * MOST_MEMBERS + number)
                trainer = Trainer(
                    PotentialLoss(network, weights or LossWeights()),
                    *_bootstrapped(graphs, np.random.default_rng([seed, number])),
                    training,
                    seed=seed * MOST_MEMBERS + number,
                    checkpoint=checkpoint and checkpoint.with_name(f"member-{number + 1}-{checkpoint.name}"),
                    on_epoch=on_epoch and _named(on_epoch, f"member {number + 1}"),
                )
                histories.append(trainer.train())
                self._add(network, first=number == 0)
            self.assessment = self._assess(chosen, learned, held_out)
        self.card = {
            "architecture": asdict(self.sizes),
            "normalisation": asdict(self.normalisation),
            "members": members,
            "seed": seed,
            "calculator": data.calculator,
            "crystals": len(graphs),
            "trajectories": len({chosen.trajectories[i] for i in learned}),
            "without_neighbours": isolated,
            "given": len(data),
            "left_out": dict(data.left_out),
            "data": list(data.inputs),
            "loss": asdict(weights or LossWeights()),
            "training": asdict(training),
            "epochs": [len(history) for history in histories],
            "held_out": None if self.assessment is None else self.assessment.record(),
        }
        return histories

    def _graphs(self, frames: Sequence[Atoms]) -> tuple[list[Any], int]:
        """Return the graphs of crystals, and the number of those left out because an atom has no neighbour."""
        graphs, isolated = [], 0
        for atoms in frames:
            try:
                graphs.append(graph_of(atoms, self.sizes, self.numbers))
            except IsolatedAtomsError:
                isolated += 1
        return graphs, isolated

    def _add(self, network: torch.nn.Module, *, first: bool) -> None:
        import copy

        if first:
            self._members = []
        precise = copy.deepcopy(network).double().eval().requires_grad_(False)
        self._members.append(_Member(network=network.eval(), precise=precise))

    def _assess(self, chosen: Evaluations, learned: Sequence[int], held_out: Sequence[int]) -> Assessment | None:
        assert self.normalisation is not None
        frames, trajectories = [], set()
        for i in held_out:
            try:
                graph_of(chosen.frames[i], self.sizes, self.numbers)
            except IsolatedAtomsError:
                continue
            frames.append(chosen.frames[i])
            trajectories.add(chosen.trajectories[i])
        if not frames:
            return None
        return Assessment.of(
            frames,
            [self.predict(atoms) for atoms in frames],
            len(trajectories),
            dict(zip(self.numbers, self.normalisation.atomic_energies, strict=True)),
            np.mean([chosen.frames[i].get_stress() for i in learned], axis=0),
        )

    def predict(self, atoms: Atoms) -> Prediction:
        """Return energies, forces and stresses of a crystal by all members, in double precision.

        Raises
        ------
        InputError
            If the committee is not trained.
        ValueError
            If it does not know an element.
        IsolatedAtomsError
            If an atom has no neighbour within the cutoff.
        """
        if not self._members:
            raise InputError(KIND, NAME, reason="the committee is not trained; call fit() or load weights")
        check_elements("the committee", atoms.numbers, self.numbers)
        bare = Atoms(atoms.numbers, positions=atoms.positions, cell=atoms.cell, pbc=True)
        batch = batch_of([graph_of(bare, self.sizes, self.numbers, torch.float64)], labels=False)
        found: list[dict[str, torch.Tensor]] = []
        with _default_dtype(torch.float64), torch.enable_grad():
            found += [member.precise(dict(batch), compute_stress=True) for member in self._members]
        stresses = np.array([one["stress"][0].detach().numpy() for one in found])
        return Prediction(
            energies=np.array([float(one["energy"][0].detach()) for one in found]),
            forces=np.array([one["forces"].detach().numpy() for one in found]),
            stresses=stresses.reshape(-1, 9)[:, [0, 4, 8, 5, 2, 1]],
        )

    def save(self, folder: Path) -> None:
        """Write weights, in single precision, and card into a folder.

        Raises
        ------
        InputError
            If the committee is not trained, or a weight is not finite.
        """
        if not self._members:
            raise InputError(KIND, NAME, reason="the committee is not trained; there are no weights to save")
        tensors = {
            f"{number}/{name}": value
            for number, member in enumerate(self._members)
            for name, value in member.network.state_dict().items()
        }
        weights_io.save(folder, KIND, NAME, tensors, self.card, precision=torch.float32)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Load a committee that :meth:`save` wrote.

        Raises
        ------
        InputError
            If the files are damaged or belong to something else.
        CalculatorError
            If MACE is not installed.
        """
        check_mace()
        tensors, card = weights_io.load(folder, KIND, NAME)
        try:
            committee = cls(MaceSizes(**card["architecture"]))
            known: dict[str, Any] = {
                key: tuple(v) if isinstance(v, list) else v for key, v in card["normalisation"].items()
            }
            committee.normalisation = Normalisation(**known)
            members = int(card["members"])
            if not 1 <= members <= MOST_MEMBERS:
                raise ValueError("the number of members is not possible")
            committee.card = card
            _ = committee.calibration
        except (KeyError, TypeError, ValueError, AttributeError, InputError) as error:
            reason = f"the card must be one of a committee: {error}"
            raise InputError("weights", str(folder / weights_io.CARD), reason=reason) from error
        for number in range(members):
            network = build_network(committee.sizes, committee.normalisation, seed=0)
            own = {key.partition("/")[2]: v for key, v in tensors.items() if key.partition("/")[0] == str(number)}
            weights_io.fill(network, own, folder)
            committee._add(network, first=number == 0)
        return committee


def split(data: Evaluations) -> tuple[list[int], list[int]]:
    """Return the indices of the crystals to learn from and of the held-out ones.

    A tenth of the trajectories is held out, at least one, by a hash of their names. Crystals with an element that no
    other crystal has are not held out.

    Raises
    ------
    InputError
        If there are fewer than four trajectories.
    """
    names = sorted(set(data.trajectories), key=lambda name: hashlib.sha256(name.encode()).digest())
    if len(names) < _LEAST_TRAJECTORIES:
        reason = (
            f"there are {len(names)} trajectories, and {_LEAST_TRAJECTORIES} are needed to tell its errors; add "
            "further relaxations"
        )
        raise InputError("data", len(data), reason=reason)
    apart = set(names[: max(1, len(names) // _HELD_OUT)])
    learned = [i for i, name in enumerate(data.trajectories) if name not in apart]
    known = {int(number) for i in learned for number in data.frames[i].numbers}
    held_out: list[int] = []
    for i, name in enumerate(data.trajectories):
        if name in apart:
            (held_out if known.issuperset(data.frames[i].numbers.tolist()) else learned).append(i)
    return sorted(learned), held_out


def _bootstrapped(graphs: Sequence[Any], rng: np.random.Generator) -> tuple[GraphTensors, GraphTensors]:
    """Return a bootstrap sample of crystals, and those that are not in it."""
    drawn: NDArray[np.int_] = np.sort(rng.integers(len(graphs), size=len(graphs)))
    others = np.setdiff1d(np.arange(len(graphs)), drawn)
    if not len(others):  # only with very few crystals
        others = drawn
    return GraphTensors([graphs[i] for i in drawn]), GraphTensors([graphs[i] for i in others])


def _named(on_epoch: Callable[[Epoch], None], part: str) -> Callable[[Epoch], None]:
    return lambda epoch: on_epoch(replace(epoch, part=part))


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute with one thread: sums of several depend on their number, and networks of this size gain nothing."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)
