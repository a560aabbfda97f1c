"""MACE models by file and by name, and the precautions that importing MACE requires.

A MACE model file is a pickle, so that loading it executes code: only files that the user has named and models of the
MACE developers are loaded.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from .exceptions import BuildError
from .identity import digest_of_file
from .models import missing_package, split_model

_WEIGHTS_ONLY_SWITCH = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"

_RELEASES = "https://github.com/ACEsuit/{}/releases/download"
_MACE_MP = _RELEASES.format("mace-mp")
_FOUNDATIONS = _RELEASES.format("mace-foundations")

#: Addresses of the foundation models of MACE by name, copied from mace.calculators.foundations_models.mace_mp_urls,
#: which cannot be imported without torch; a test compares the two.
FOUNDATION_MODELS = {
    "small": f"{_MACE_MP}/mace_mp_0/2023-12-10-mace-128-L0_energy_epoch-249.model",
    "medium": f"{_MACE_MP}/mace_mp_0/2023-12-03-mace-128-L1_epoch-199.model",
    "large": f"{_MACE_MP}/mace_mp_0/MACE_MPtrj_2022.9.model",
    "small-0b": f"{_MACE_MP}/mace_mp_0b/mace_agnesi_small.model",
    "medium-0b": f"{_MACE_MP}/mace_mp_0b/mace_agnesi_medium.model",
    "small-0b2": f"{_MACE_MP}/mace_mp_0b2/mace-small-density-agnesi-stress.model",
    "medium-0b2": f"{_MACE_MP}/mace_mp_0b2/mace-medium-density-agnesi-stress.model",
    "large-0b2": f"{_MACE_MP}/mace_mp_0b2/mace-large-density-agnesi-stress.model",
    "medium-0b3": f"{_MACE_MP}/mace_mp_0b3/mace-mp-0b3-medium.model",
    "medium-mpa-0": f"{_MACE_MP}/mace_mpa_0/mace-mpa-0-medium.model",
    "small-omat-0": f"{_MACE_MP}/mace_omat_0/mace-omat-0-small.model",
    "medium-omat-0": f"{_MACE_MP}/mace_omat_0/mace-omat-0-medium.model",
    "mace-matpes-pbe-0": f"{_FOUNDATIONS}/mace_matpes_0/MACE-matpes-pbe-omat-ft.model",
    "mace-matpes-r2scan-0": f"{_FOUNDATIONS}/mace_matpes_0/MACE-matpes-r2scan-omat-ft.model",
    "mh-0": f"{_FOUNDATIONS}/mace_mh_1/mace-mh-0.model",
    "mh-1": f"{_FOUNDATIONS}/mace_mh_1/mace-mh-1.model",
}

#: Foundation models that may be used for academic purposes only (Academic Software License).
ACADEMIC = ("small-omat-0", "medium-omat-0", "mace-matpes-pbe-0", "mace-matpes-r2scan-0")


#: Number of bytes of the record at the end of a zip archive without a comment.
ARCHIVE_END = 22


def cached_file(name: str) -> Path:
    """Return the file in which MACE keeps a foundation model that has been downloaded."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "mace"
    file = FOUNDATION_MODELS[name].rpartition("/")[2]
    return cache / "".join(character for character in file if character.isalnum() or character == "_")


def foundation_model(name: str) -> Path | None:
    """Return the file of a foundation model, or ``None`` if it has not been downloaded completely."""
    candidates = [cached_file(name)]
    if name == "medium-mpa-0":  # some builds of mace contain this model
        spec = find_spec("mace")
        folders = (spec.submodule_search_locations if spec else None) or []
        candidates += [Path(one) / "calculators/foundations_models/mace-mpa-0-medium.model" for one in folders]
    return next((path for path in candidates if is_complete(path)), None)


def is_complete(path: Path) -> bool:
    """Return whether a file is a whole zip archive, as files of torch are; an incomplete one has no end."""
    if not path.is_file():
        return False
    size = path.stat().st_size
    with path.open("rb") as stream:
        stream.seek(max(0, size - ARCHIVE_END))
        return ends_archive(stream.read(), size)


def ends_archive(end: bytes, size: int) -> bool:
    """Return whether a zip archive is whole.

    Models contain archives, so that the end of one of these is not enough: the table of contents must be where the end
    says.

    Parameters
    ----------
    end
        The last :data:`ARCHIVE_END` bytes.
    size
        Number of bytes of the file.
    """
    if len(end) < ARCHIVE_END or end[:4] != b"PK\x05\x06":
        return False
    length, start = struct.unpack("<LL", end[12:20])
    records_between = size - ARCHIVE_END - start - length  # of archives in the format for large files
    return start == 0xFFFFFFFF or records_between in (0, 76)


def find_model(argument: str | None) -> tuple[Path | None, str, str | None]:
    """Return the file of a model that is given by a path or by the name of a foundation model.

    Parameters
    ----------
    argument
        ``PATH`` or ``NAME``, for models with several heads ``PATH:HEAD`` or ``NAME:HEAD``.

    Returns
    -------
    path
        The file; ``None`` for a foundation model that has not been downloaded.
    name
        Name of the foundation model, or of the file.
    head
        The head; ``None`` if it is not given.

    Raises
    ------
    BuildError
        If there is no such file.
    """
    if not argument:
        raise BuildError("the calculator mace needs a model: mace:PATH or mace:NAME, for example mace:medium-mpa-0")
    path, head = split_model(argument, FOUNDATION_MODELS)
    name = argument[: -len(head) - 1] if head else argument
    if name in FOUNDATION_MODELS:  # first, so that no file in the working directory stands in for the model
        return foundation_model(name), name, head
    if path.is_file():
        return path, path.name, head
    names = ", ".join(FOUNDATION_MODELS)
    raise BuildError(f"mace:{argument}: this is neither a model file nor a foundation model of MACE ({names})")


@contextmanager
def mace_environment() -> Iterator[None]:
    """Allow ``import mace``, and undo its side effects on the process.

    e3nn 0.4 stores a ``slice`` in a file, which torch's weights-only loading refuses unless it is declared safe.
    Importing mace sets an environment variable that disables weights-only loading in the whole process.
    """
    import torch

    torch.serialization.add_safe_globals([slice])
    before = os.environ.get(_WEIGHTS_ONLY_SWITCH)
    dtype = torch.get_default_dtype()
    try:
        yield
    finally:
        torch.set_default_dtype(dtype)
        if before is None:
            os.environ.pop(_WEIGHTS_ONLY_SWITCH, None)
        else:
            os.environ[_WEIGHTS_ONLY_SWITCH] = before


def build_mace(
    argument: str | None = None, *, device: str | None = None, precision: str | None = None
) -> tuple[Any, str]:
    """Build a MACE calculator.

    Parameters
    ----------
    argument
        As in :func:`find_model`. Nothing is downloaded, because a worker may run on a node without network.
    device
        Device of torch; a GPU if torch finds one, otherwise the CPU, if not given.
    precision
        ``"float64"``, the default because accurate relaxations need it, or ``"float32"``.

    Returns
    -------
    tuple of Calculator and str
        The calculator and its label, for example ``"mace tiny.model (mace-torch 0.3.16, weights=1f0c2a9b…)"``, with the
        start of the file's SHA-256.

    Raises
    ------
    BuildError
        If there is no such model, the file does not contain a MACE model, or MACE is not installed.
    """
    path, name, head = find_model(argument)
    if path is None:
        raise BuildError(
            f"mace:{argument}: this foundation model has not been downloaded; its file is {FOUNDATION_MODELS[name]}, "
            f"and its place is {cached_file(name)}"
        )
    precision = precision or "float64"
    with mace_environment():
        import torch

        try:
            from .mace_calculator import CheckedMACECalculator
        except ImportError as error:
            raise missing_package("mace", error) from error
        torch.set_num_threads(1)
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        dtype = getattr(torch, precision)
        model = torch.load(path, map_location=device, weights_only=False)
        if not hasattr(model, "r_max"):
            raise BuildError(f"mace:{argument}: {path} contains a {type(model).__name__}, not a MACE model")
        heads = getattr(model, "heads", None) or ["Default"]
        if head not in heads and (head is not None or (len(heads) > 1 and "default" not in map(str.lower, heads))):
            model_argument = str(argument)[: -len(head) - 1] if head else argument
            raise BuildError(
                f"mace:{argument}: the model has the heads {', '.join(heads)}; name one, mace:{model_argument}:HEAD"
            )

        options = {} if head is None else {"head": head}
        model = model.to(dtype)
        calculator = CheckedMACECalculator(name, models=[model], device=device, default_dtype=precision, **options)
    parts = [f"mace-torch {version('mace-torch')}"]
    parts += [precision] if precision != "float64" else []
    parts += [f"weights={digest_of_file(path)}"]
    return calculator, f"mace {name}{f' {head}' if head else ''} ({', '.join(parts)})"
