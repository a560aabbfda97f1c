"""Convert crystals of DiffCSP's eval_gen.pt or eval_diff.pt to extended XYZ, which hybridcsp reads.

    python diffcsp_to_extxyz.py eval_gen.pt crystals.extxyz

Run it in the environment of DiffCSP, and on files that you have made: a file of PyTorch is a pickle, which can run code
when it is read. CDVAE and others that began with its scripts write the same files.
"""

import sys

import torch
from ase import Atoms
from ase.io import write


def crystals(results):
    """Yield the crystals in the dictionary of results, whose arrays hold the atoms of one crystal after the other."""
    names = ("num_atoms", "lengths", "angles", "frac_coords", "atom_types")
    arrays = {name: results[name].detach().cpu() for name in names}
    if arrays["num_atoms"].ndim == 1:  # eval_gen.pt holds one sample; the others have an axis of samples in front
        arrays = {name: array[None] for name, array in arrays.items()}
    for counts, lengths, angles, places, types in zip(*(arrays[name].numpy() for name in names)):  # noqa: B905  # Python 3.8
        begin = 0
        for count, sides, corners in zip(counts.tolist(), lengths.tolist(), angles.tolist()):  # noqa: B905
            own = slice(begin, begin + count)
            yield Atoms(types[own], scaled_positions=places[own], cell=[*sides, *corners], pbc=True)
            begin += count


if __name__ == "__main__":
    source, target = sys.argv[1:]
    try:
        results = torch.load(source, map_location="cpu", weights_only=False)
    except TypeError:  # versions before 1.13
        results = torch.load(source, map_location="cpu")
    write(target, list(crystals(results)), format="extxyz")
