"""Files of structures that a person brings: whatever ASE reads, but never a pickle."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

from ase import Atoms
from ase.io import read
from ase.io.formats import get_compression, open_with_compression

_PICKLES = (".pckl", ".pkl", ".pickle")


def structure_files(path: Path) -> list[Path]:
    """Return the file itself, or a folder's files by name: not hidden ones, nor those of folders inside."""
    if not path.is_dir():
        return [path]
    return sorted(entry for entry in path.iterdir() if entry.is_file() and not entry.name.startswith("."))


def read_frames(file: Path) -> list[Atoms]:
    """Read all frames of a file that ASE reads; it may be compressed (.gz, .bz2, .xz).

    Raises
    ------
    ValueError
        If it is a pickle by its name: pickles can run code.
    Exception
        Whatever ASE's readers raise, which may be anything.
    """
    if get_compression(str(file))[1]:
        # ASE would read it in place, but seeks back for each frame: quadratic in their number.
        with tempfile.TemporaryDirectory() as folder:
            plain = Path(folder) / file.stem
            with open_with_compression(str(file), "rb") as source, plain.open("wb") as target:
                shutil.copyfileobj(source, target)
            return read_frames(plain)
    if file.suffix.lower() in _PICKLES:
        raise ValueError("pickles can run code and are never read; write extxyz instead")
    if file.stat().st_size == 0:
        return []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # The absolute path, so that no name can be taken for a database server's address.
        frames = read(str(file.resolve()), index=":", do_not_split_by_at_sign=True)
    return [frames] if isinstance(frames, Atoms) else list(frames)


def is_partly_occupied(atoms: Atoms) -> bool:
    """Whether a site holds more than one element, or one with an occupancy below 1."""
    return any(len(site) > 1 or min(site.values(), default=1) < 1 for site in _occupancies(atoms))


def _occupancies(atoms: Atoms) -> list[dict[Any, float]]:
    """Occupancies by element of each site, as ASE's CIF reader leaves them."""
    sites = atoms.info.get("occupancy")
    return [site for site in sites.values() if isinstance(site, dict)] if isinstance(sites, dict) else []
