"""SevenNet models by name and by file [1]_.

The package sevenn contains the weights of the models in :data:`MODELS`. They are pickles, as every checkpoint of
SevenNet is, so that loading them executes code: of the names, only the files that the wheel of sevenn has installed are
loaded, which their hashes in its record prove; any other file must be named by its path.

References
----------
.. [1] Y. Park et al., "Scalable parallel algorithm for graph neural network interatomic potentials in molecular
   dynamics simulations", Journal of Chemical Theory and Computation 20, 4857 (2024), DOI 10.1021/acs.jctc.4c00190.
"""

from __future__ import annotations

import base64
import hashlib
import warnings
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from .exceptions import BuildError
from .identity import digest_of_file
from .models import missing_package, split_model


@dataclass(frozen=True)
class SevenNetModel:
    """A model that the package sevenn contains.

    Attributes
    ----------
    name
        Name of the model in sevenn.
    file
        Its checkpoint, relative to the folder of the package.
    modal
        The functional that the model imitates if it was trained on several; ``None`` otherwise.
    """

    name: str
    file: str
    modal: str | None = None


#: Models by the argument of the calculator; the one without an argument is the default.
MODELS = {
    "": SevenNetModel("7net-0", "pretrained_potentials/SevenNet_0__11Jul2024/checkpoint_sevennet_0.pth"),
    "l3i5": SevenNetModel("7net-l3i5", "pretrained_potentials/SevenNet_l3i5/checkpoint_l3i5.pth"),
    "mf:pbe": SevenNetModel("7net-mf-0", "pretrained_potentials/SevenNet_MF_0/checkpoint_sevennet_mf_0.pth", "PBE"),
    "mf:r2scan": SevenNetModel(
        "7net-mf-0", "pretrained_potentials/SevenNet_MF_0/checkpoint_sevennet_mf_0.pth", "R2SCAN"
    ),
}

#: Description of what may follow ``sevennet:``.
ARGUMENTS = f"one of {', '.join(name for name in MODELS if name)}, or the path of a checkpoint"


def find_checkpoint(argument: str | None) -> tuple[Path | None, str | None]:
    """Return the checkpoint file that an argument names, and the functional for a model that was trained on several.

    Parameters
    ----------
    argument
        A key of :data:`MODELS`, ``None`` for the default model, ``PATH`` or ``PATH:FUNCTIONAL``.

    Returns
    -------
    tuple of Path or None, and str or None
        The file is ``None`` for a model of the package sevenn.

    Raises
    ------
    BuildError
        If there is neither a model nor a file of this name.
    """
    if (argument or "") in MODELS:
        return None, MODELS[argument or ""].modal
    path, modal = split_model(str(argument), ())
    if not path.is_file():
        raise BuildError(f"sevennet:{argument}: this is neither a model of sevenn nor a file; give {ARGUMENTS}")
    return path, modal


def build_sevennet(
    argument: str | None = None, *, device: str | None = None, precision: str | None = None
) -> tuple[Any, str]:
    """Build a SevenNet calculator.

    Parameters
    ----------
    argument
        As in :func:`find_checkpoint`.
    device
        Device of torch; a GPU if torch finds one, otherwise the CPU, if not given.
    precision
        ``"float32"``, in which SevenNet is trained and the default, or ``"float64"``.

    Returns
    -------
    tuple of Calculator and str
        The calculator and its label, for example ``"sevennet 7net-0 (sevenn 0.13.0, weights=1f0c2a9b…)"``, with the
        start of the SHA-256 of the checkpoint.

    Raises
    ------
    BuildError
        If sevenn is not installed or does not contain the model, the file does not exist or is not the one that was
        installed, or the functional is missing.
    """
    path, modal = find_checkpoint(argument)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is no accelerator for GPUs, and deprecations of torch
        try:
            import sevenn
        except (ImportError, ValueError) as error:  # a ValueError for a version of e3nn that it does not support
            raise missing_package("sevennet", error) from error
        if path is None:
            model = MODELS[argument or ""]
            path, name = _installed_file(sevenn, model.file), model.name
        else:
            name = path.name
        from .sevennet_calculator import load_sevennet

        calculator = load_sevennet(path, modal, device=device, precision=precision)
    parts = [f"sevenn {sevenn.__version__}"]
    parts += [precision] if precision == "float64" else []
    parts += [f"weights={digest_of_file(path)}"]
    return calculator, f"sevennet {name}{f' {modal}' if modal else ''} ({', '.join(parts)})"


def _installed_file(package: Any, name: str) -> Path:
    """Return a file of the package sevenn, after a check that it is the one that the installation recorded.

    Raises
    ------
    BuildError
        If there is no such file or it has been changed.
    """
    path = Path(package.__file__).parent / name
    if not path.is_file():
        raise BuildError(f"sevenn {package.__version__} does not contain {name}; version 0.13 does")
    try:
        recorded = distribution("sevenn").files or []
    except PackageNotFoundError:  # not installed by pip: there is no record
        return path
    for file in recorded:
        if file.as_posix().endswith(name) and file.hash is not None:
            found = hashlib.new(file.hash.mode, path.read_bytes()).digest()
            if base64.urlsafe_b64encode(found).decode().rstrip("=") != file.hash.value:
                raise BuildError(f"{path} is not the file that was installed with sevenn; install sevenn again")
    return path
