"""Model files of potentials: checks before a search, and downloads."""

from __future__ import annotations

import http.client
import logging
import math
import time
from importlib.util import find_spec
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

from hybridcsp.errors import CalculatorError, message_of
from hybridcsp.relaxation.calculators.server.exceptions import BuildError
from hybridcsp.relaxation.calculators.server.mace import (
    ACADEMIC,
    ARCHIVE_END,
    FOUNDATION_MODELS,
    cached_file,
    ends_archive,
    find_model,
)
from hybridcsp.relaxation.calculators.server.models import PACKAGES, missing_package
from hybridcsp.relaxation.calculators.server.sevennet import find_checkpoint
from hybridcsp.utils.activity import announce
from hybridcsp.utils.files import atomic_write, make_folder
from hybridcsp.utils.paths import expanded

_log = logging.getLogger(__name__)

# Time in s without any data after which a download is given up.
_TIMEOUT = 60.0
_BLOCK = 2**18


#: Names of the files of a committee in its folder.
_COMMITTEE_WEIGHTS, _COMMITTEE_CARD = "weights.safetensors", "card.json"


def split_committee(argument: str | None) -> tuple[Path, float | None]:
    """Return the folder of a committee and its limit, from the argument of the calculator ``committee``.

    Parameters
    ----------
    argument
        ``FOLDER``, or ``FOLDER:LIMIT`` with a largest uncertainty of forces in eV/Å.

    Raises
    ------
    CalculatorError
        If the folder does not hold a committee, or the limit is not a positive number.
    """
    if not argument:
        raise CalculatorError("the calculator committee needs a folder that hybridcsp potential train has written")
    folder, limit = expanded(argument), None
    before, colon, after = argument.rpartition(":")
    if colon and not folder.exists():
        folder = expanded(before)
        try:
            limit = float(after)
        except ValueError:
            limit = math.nan
        if not (math.isfinite(limit) and limit > 0):
            raise CalculatorError(f"committee:{argument}: the limit {after} must be a positive number of eV/Å")
    missing = [name for name in (_COMMITTEE_CARD, _COMMITTEE_WEIGHTS) if not (folder / name).is_file()]
    if missing:
        raise CalculatorError(
            f"committee:{argument}: {folder} must be a folder that hybridcsp potential train has written; "
            f"{missing[0]} is missing"
        )
    return folder, limit


def model_file(calculator: str, argument: str | None) -> Path | None:
    """Return the model file of a potential.

    Parameters
    ----------
    calculator, argument
        Name of the calculator and its argument, for example ``"mace"`` and ``"medium-mpa-0"``.

    Returns
    -------
    Path or None
        ``None`` if the calculator has no file, if its package contains it, or if it has not been downloaded.

    Raises
    ------
    CalculatorError
        If the argument names neither a model nor a file.
    """
    if calculator == "committee":
        return split_committee(argument)[0] / _COMMITTEE_WEIGHTS
    try:
        if calculator == "mace":
            return find_model(argument)[0]
        if calculator == "sevennet":
            return find_checkpoint(argument)[0]
    except BuildError as error:
        raise CalculatorError(str(error)) from None
    return None


def check_package(calculator: str) -> None:
    """Check that this interpreter can import the package of a potential, without importing it.

    Raises
    ------
    CalculatorError
        If it is not installed.
    """
    if calculator in PACKAGES and find_spec(PACKAGES[calculator][0]) is None:
        raise CalculatorError(str(missing_package(calculator, "it is not installed")))


def download_model(calculator: str, argument: str | None) -> None:
    """Download the foundation model that a calculator names, unless it is there.

    Raises
    ------
    CalculatorError
        If this is not possible; the message contains the address and the place of the file.
    """
    if calculator != "mace" or model_file(calculator, argument) is not None:
        return
    name = find_model(argument)[1]
    address, file = FOUNDATION_MODELS[name], cached_file(name)
    terms = " (for academic use only: https://github.com/gabor1/ASL)" if name in ACADEMIC else ""
    _log.warning("downloading the model mace:%s%s from %s to %s", name, terms, address, file)
    make_folder(file.parent)
    try:
        _download(name, address, file)
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = message_of(error) if isinstance(error, HTTPError) else getattr(error, "reason", message_of(error))
        raise CalculatorError(
            f"mace:{argument}: the model cannot be downloaded ({reason}). Download {address} where there is a network "
            f"and save it as {file}, or anywhere and name it as mace:PATH"
        ) from error


def _download(name: str, address: str, file: Path) -> None:
    """Download a model; the file appears only if it is complete.

    Raises
    ------
    ValueError
        If something else has been received.
    """
    with urlopen(address, timeout=_TIMEOUT) as response, atomic_write(file, "wb", key="calculator") as stream:
        total = int(response.headers.get("Content-Length") or 0)
        received, end, reported = 0, b"", 0.0
        while block := response.read(_BLOCK):
            stream.write(block)
            received += len(block)
            end = (end + block)[-ARCHIVE_END:]
            if time.monotonic() - reported > 0.5:
                reported = time.monotonic()
                announce(f"downloading mace:{name}, {received / 1e6:.0f}{f' of {total / 1e6:.0f}' if total else ''} MB")
        if total and received != total:
            raise ValueError(f"the connection ended after {received} of {total} bytes")
        if not ends_archive(end, received):
            raise ValueError(f"the {received} bytes received are not a model")
