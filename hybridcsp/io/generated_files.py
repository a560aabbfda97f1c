"""Recognition of files in which programs that generate crystals write the same crystals a second time."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

#: Patterns of the names of files, and of the files that hold their crystals as well. MatterGen writes each crystal to
#: an extxyz file and to an archive of CIFs, and the steps of its diffusion to another archive; chemeleon writes CIFs
#: and one JSON file; samples of CrystalFormer (``output_225.csv``) may have been converted to pymatgen's structures.
_COPIES = (
    (r"generated_crystals_cif\.zip", r"generated_crystals\.extxyz"),
    (r"generated_trajectories\.zip", r"generated_crystals(?:\.extxyz|_cif\.zip)"),
    (r"generated_structures\.json(?:\.gz)?", r"sample_\d+_\w+\.cif"),
    (r"output_(\w+)_struct\.csv", r"output_\1\.csv"),
)


def without_copies(files: Sequence[Path]) -> list[Path]:
    """Return the files of a folder without those whose crystals another one of them holds as well.

    Parameters
    ----------
    files
        Files of one folder.
    """
    names = [file.name for file in files]
    return [file for file in files if not any(_is_copy(file.name, copy, of, names) for copy, of in _COPIES)]


def _is_copy(name: str, copy: str, of: str, names: Sequence[str]) -> bool:
    found = re.fullmatch(copy, name)
    if found is None:
        return False
    wanted = of.replace(r"\1", re.escape(found[1])) if found.groups() else of
    return any(re.fullmatch(wanted, other) for other in names)
