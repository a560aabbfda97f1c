"""MACE models, and the precautions that importing MACE requires.

A MACE model file is a pickle, so that loading it executes code: only files that the user has named are loaded.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ase.calculators.calculator import Calculator

from hybridcsp.errors import CalculatorError
from hybridcsp.relaxation.calculators.server.identity import digest_of_file
from hybridcsp.utils.quiet import quiet

_WEIGHTS_ONLY_SWITCH = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD"

# Foundation models of MACE and their cached files, copied from mace.calculators.foundations_models.mace_mp_urls, which
# cannot be imported without torch; a test compares the two.
FOUNDATION_MODELS = {
    "small": "20231210mace128L0_energy_epoch249model",
    "medium": "20231203mace128L1_epoch199model",
    "large": "MACE_MPtrj_20229model",
    "small-0b": "mace_agnesi_smallmodel",
    "medium-0b": "mace_agnesi_mediummodel",
    "small-0b2": "macesmalldensityagnesistressmodel",
    "medium-0b2": "macemediumdensityagnesistressmodel",
    "large-0b2": "macelargedensityagnesistressmodel",
    "medium-0b3": "macemp0b3mediummodel",
    "medium-mpa-0": "macempa0mediummodel",
    "small-omat-0": "maceomat0smallmodel",
    "medium-omat-0": "maceomat0mediummodel",
    "mace-matpes-pbe-0": "MACEmatpespbeomatftmodel",
    "mace-matpes-r2scan-0": "MACEmatpesr2scanomatftmodel",
    "mh-0": "macemh0model",
    "mh-1": "macemh1model",
}


def foundation_model_path(name: str) -> Path | None:
    """Return the cached file of a foundation model, or ``None`` if it has not been downloaded."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "mace"
    candidates = [cache / FOUNDATION_MODELS[name]]
    if name == "medium-mpa-0" and (spec := find_spec("mace")) and spec.submodule_search_locations:
        # some builds of mace contain this model
        package = Path(spec.submodule_search_locations[0])
        candidates.append(package / "calculators/foundations_models/mace-mpa-0-medium.model")
    return next((path for path in candidates if path.is_file()), None)


def find_model(argument: str) -> Path:
    """Return the file of a model that is given by a path or by the name of a foundation model.

    Raises
    ------
    CalculatorError
        If there is no such file. Nothing is downloaded, because a worker may run on a node without network.
    """
    path = Path(argument).expanduser()
    if path.is_file():
        return path
    if argument in FOUNDATION_MODELS:
        cached = foundation_model_path(argument)
        if cached is None:
            raise CalculatorError(
                f"mace:{argument}: this foundation model is not on this machine. Download it where there is a network: "
                f"python -c \"from mace.calculators import mace_mp; mace_mp('{argument}')\", or give the path of a "
                "file from https://github.com/ACEsuit/mace-foundations: mace:PATH"
            )
        return cached
    names = ", ".join(FOUNDATION_MODELS)
    raise CalculatorError(f"mace:{argument}: this is neither a model file nor a foundation model of MACE ({names})")


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


def build_mace(argument: str | None) -> tuple[Calculator, str]:
    """Build a MACE calculator in double precision, which relaxations require.

    Parameters
    ----------
    argument
        Path of a model file, or name of a downloaded foundation model.

    Returns
    -------
    tuple of Calculator and str
        The calculator and its label, for example ``"mace tiny.model (mace-torch 0.3.16, weights=1f0c2a9b…)"``, with the
        start of the file's SHA-256.

    Raises
    ------
    CalculatorError
        If there is no such model, or the file does not contain a MACE model.
    """
    if argument is None:
        raise CalculatorError("the calculator mace needs a model: mace:PATH or mace:NAME")
    path = find_model(argument)
    with quiet(), mace_environment():
        import torch

        torch.set_num_threads(1)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        from mace.calculators import MACECalculator

        model = torch.load(path, map_location=device, weights_only=False)
        if not hasattr(model, "r_max"):
            raise CalculatorError(f"mace:{argument}: {path} contains a {type(model).__name__}, not a MACE model")

        class QuietMACECalculator(MACECalculator):  # type: ignore[misc]
            """MACE calculator that changes torch's default precision only during a calculation."""

            def calculate(self, *args: Any, **kwargs: Any) -> None:
                before = torch.get_default_dtype()
                torch.set_default_dtype(torch.float64)
                try:
                    super().calculate(*args, **kwargs)
                finally:
                    torch.set_default_dtype(before)

        calculator = QuietMACECalculator(models=[model.double()], device=device, default_dtype="float64")
    name = argument if argument in FOUNDATION_MODELS and not Path(argument).is_file() else path.name
    return calculator, f"mace {name} (mace-torch {version('mace-torch')}, weights={digest_of_file(path)})"
