"""Neighbour lists."""

import numpy as np
from ase.neighborlist import primitive_neighbor_list

import sevenn._keys as keys

calls = 0


def unlabeled_atoms_to_graph(atoms, cutoff, with_shift=False):
    global calls
    calls += 1
    first, second, vectors = primitive_neighbor_list("ijD", atoms.pbc, atoms.cell.array, atoms.positions, cutoff)
    return {
        keys.NODE_FEATURE: atoms.numbers,
        keys.ATOMIC_NUMBERS: atoms.numbers,
        keys.POS: atoms.positions,
        keys.EDGE_IDX: np.array([first, second]),
        keys.EDGE_VEC: vectors,
        keys.CELL_VOLUME: np.array(atoms.cell.volume),
        keys.NUM_ATOMS: np.array(len(atoms)),
    }
