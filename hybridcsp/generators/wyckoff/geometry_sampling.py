"""Sampling of cells and coordinates from the geometry network for batches of occupations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hybridcsp.generators.wyckoff.collation import (
    conditions,
    contents_row,
    free_coordinates,
    occupied_row,
    pad_and_stack,
)
from hybridcsp.generators.wyckoff.geometry_network import (
    GeometryNetwork,
    Mixture,
    normal_log_density,
    von_mises_log_density,
)
from hybridcsp.generators.wyckoff.geometry_statistics import MeanGeometry
from hybridcsp.generators.wyckoff.occupation_sampling import COLD, OccupationState, draw_index
from hybridcsp.generators.wyckoff.retrieval import PrototypeStore
from hybridcsp.generators.wyckoff.tables import WyckoffTables
from hybridcsp.generators.wyckoff.tokens import CrystalTokens


@torch.no_grad()
def draw_geometries(
    network: GeometryNetwork,
    positions: WyckoffTables,
    store: PrototypeStore,
    states: Sequence[OccupationState],
    rng: np.random.Generator,
    temperature: float,
    given: Sequence[MeanGeometry | None] | None = None,
) -> list[tuple[CrystalTokens, float]]:
    """Return one crystal for each occupation, and the log-likelihood of occupation and geometry.

    Coordinates and shape of the cell are those of ``given`` where that is not ``None``; the volume is always drawn.
    """
    given = given or [None] * len(states)
    rows = [{**contents_row(s.elements, s.counts), **occupied_row(s.spacegroup, s.slots, s.letters)} for s in states]
    batch = pad_and_stack(rows)
    prototype = torch.as_tensor([store.number_of(s.prototype_by_element) for s in states])
    asked = torch.as_tensor(conditions([s.quantile for s in states], [s.pressure for s in states]))
    properties = torch.as_tensor(np.array([s.properties for s in states]))
    tokens, there, identities = network.discrete_tokens({**batch, "conditions": asked, "properties": properties})
    _, cache = network.run(tokens, there[:, None].expand(-1, tokens.shape[1], -1))

    def write(token: Tensor, written: Tensor) -> Tensor:
        """Append one token to each crystal, masked where nothing is written; return the network's output."""
        nonlocal there, cache
        there = torch.cat([there, written[:, None]], dim=1)
        hidden, cache = network.run(token, there[:, None], cache)
        return hidden[:, 0]

    n = len(states)
    hidden = write(network.cells(asked, prototype), torch.ones(n, dtype=torch.bool))
    free_cell = positions.free_cell[[s.spacegroup for s in states]].astype(float)
    shapes, is_given = _given_shapes(given)
    cells, likelihoods = _normal(network.cell_mixture(hidden), free_cell, rng, temperature, shapes, is_given)
    likelihoods += [s.log_likelihood for s in states]

    free = np.zeros((n, identities.shape[1], 3), dtype=bool)
    for row, state in enumerate(states):
        letters = np.array(state.letters)
        free[row, : len(letters)] = free_coordinates(state.spacegroup, letters, positions)
    coordinates = np.zeros(free.shape)
    points_given = np.zeros(free.shape)
    for row, one in enumerate(given):
        if one is not None:
            points_given[row, : len(one.coordinates)] = one.coordinates
    earlier = network.cell_value(_single(cells))[:, None]
    queues = [np.flatnonzero(row.any(axis=-1)).tolist() for row in free]
    all_rows = np.arange(n)
    for step in range(max(map(len, queues))):
        site = np.array([queue[step] if step < len(queue) else 0 for queue in queues])
        here = np.array([step < len(queue) for queue in queues])
        own = identities[all_rows, site][:, None]
        open_ = free[all_rows, site]
        token = network.points(own, torch.as_tensor(site[:, None]), earlier, prototype)
        hidden = write(token, torch.as_tensor(here))
        own_points = points_given[all_rows, site]
        points, density = _von_mises(
            network.point_mixture(hidden), open_, rng, temperature, own_points, is_given[:, -1:]
        )
        coordinates[all_rows[here], site[here]] = points[here]
        likelihoods += np.where(here, density, 0.0)
        earlier = network.settled(own, _single(points)[:, None], _single(open_)[:, None])
    found = []
    for row, s in enumerate(states):
        slots, letters = np.array(s.slots), np.array(s.letters)
        own = CrystalTokens(
            s.elements, s.counts, s.spacegroup, slots, letters, coordinates[row, : len(letters)], cells[row]
        )
        found.append((own, float(likelihoods[row])))
    return found


def _given_shapes(given: Sequence[MeanGeometry | None]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the given parameters of cells, and which are given: all but the volume, shapes ``(n, 6)``."""
    cells, is_given = np.zeros((len(given), 6)), np.zeros((len(given), 6), dtype=bool)
    for row, one in enumerate(given):
        if one is not None:
            cells[row], is_given[row, 1:] = one.cell, True
    return cells, is_given


def _normal(
    mixture: Mixture,
    free: NDArray[np.float64],
    rng: np.random.Generator,
    temperature: float,
    given: NDArray[np.float64],
    is_given: NDArray[np.bool_],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    weights, means, spreads = mixture
    chosen = draw_index(weights.numpy(), rng, temperature)
    rows = np.arange(len(chosen))
    noise = rng.normal(size=free.shape) * np.sqrt(temperature)
    drawn = means.numpy()[rows, chosen] + noise * spreads.numpy()[rows, chosen]
    values = np.where(is_given, given, drawn) * free
    density = normal_log_density(torch.as_tensor(values), torch.as_tensor(free), *mixture)
    return values.astype(float), density.numpy().astype(float)


def _von_mises(
    mixture: Mixture,
    free: NDArray[np.bool_],
    rng: np.random.Generator,
    temperature: float,
    given: NDArray[np.float64],
    is_given: NDArray[np.bool_],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    weights, means, concentrations = mixture
    chosen = draw_index(weights.numpy(), rng, temperature)
    rows = np.arange(len(chosen))
    sharpness = concentrations.numpy()[rows, chosen] / max(temperature, COLD)
    drawn = means.numpy()[rows, chosen] + rng.vonmises(0.0, sharpness) / (2 * np.pi)
    values = np.where(is_given, given, drawn) % 1.0 * free
    density = von_mises_log_density(torch.as_tensor(values), torch.as_tensor(free).double(), *mixture)
    return values.astype(float), density.numpy().astype(float)


def _single(values: NDArray[np.generic]) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float32)
