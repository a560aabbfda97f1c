"""Identification of calculators by version, parameters, and the files on which their energies depend."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from importlib.machinery import ModuleSpec
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from ase.calculators import mixing
from ase.calculators.calculator import BaseCalculator

_Mixer: Any = getattr(mixing, "Mixer", ())  # versions of ASE before 3.23 have none

#: Size in bytes above which files and models are identified by their names only, because reading them takes too long.
LARGEST = 2**30

# Number of bytes that are read at once.
_BLOCK = 2**20

#: Number of characters of a SHA-256 hash in a label.
SHOWN = 16

# Parameters that do not affect energies: where a calculator works and how it is started.
_NOT_OF_ENERGIES = ("directory", "command", "label", "txt")

# Parts of the names of parameters that are folders of pseudopotentials or basis sets.
_FOLDERS = ("pseudo", "pp_path", "potential", "basis")

# Types of parameters that are shown in a label.
_PLAIN = (str, int, float, bool, np.generic, os.PathLike, list, tuple, np.ndarray)

_INSTALLED = ("site-packages", "dist-packages")


def describe(calculator: Any, more: Mapping[str, str] | None = None) -> str:
    """Return class, package version and parameters of a calculator; nested parameters have dots: ``a.b=1``.

    Files that a parameter names (weights, pseudopotentials) and the weights of torch models are represented by a hash
    of their contents.

    Parameters
    ----------
    calculator
        Any calculator.
    more
        Further values on which the energies depend.
    """
    kind = type(calculator)
    package = kind.__module__.partition(".")[0]
    words = []
    if package in sys.modules:
        with contextlib.suppress(PackageNotFoundError):
            words.append(f"{package} {version(package)}")
    found = {**_parameters(calculator, set()), **(more or {})}
    words += [f"{key}={value}" for key, value in sorted(found.items())]
    return f"{kind.__qualname__} ({', '.join(words)})" if words else kind.__qualname__


def digest_of_file(file: Path) -> str | None:
    """Return the beginning of the SHA-256 hash of a file; ``None`` if it is not readable or too large."""
    try:
        if not file.is_file() or file.stat().st_size > LARGEST:
            return None
        found = hashlib.sha256()
        with file.open("rb") as stream:
            while block := stream.read(_BLOCK):
                found.update(block)
        return found.hexdigest()[:SHOWN]
    except (OSError, ValueError):
        return None


def digest_of_source(spec: ModuleSpec | None) -> str | None:
    """Return a hash of the source of a module without a version; ``None`` for installed and standard modules."""
    if spec is None or spec.origin is None or spec.name.partition(".")[0] == "hybridcsp":
        return None
    file = Path(spec.origin)
    standard = Path(sysconfig.get_path("stdlib"))
    if standard in file.parents or any(part in _INSTALLED for part in file.parts):
        return None
    return digest_of_file(file)


def _parameters(calculator: Any, seen: set[int]) -> dict[str, str]:
    """Return the parameters on which energies may depend, also those of nested calculators."""
    if id(calculator) in seen:
        return {}
    seen.add(id(calculator))
    own = getattr(calculator, "__dict__", {})
    parameters = own.get("parameters", getattr(calculator, "parameters", None))
    found: dict[str, str] = {}
    if isinstance(parameters, Mapping):
        profile = getattr(own.get("profile"), "__dict__", {})
        found.update(_plain(parameters, [*_folders(parameters), *_folders(profile)]))
    for attribute, value in own.items():
        if isinstance(value, _Mixer):
            found[f"{attribute}.weights"] = _text(value.weights, [])
            value = value.calcs
        for name, part in _parts(attribute, value):
            if isinstance(part, BaseCalculator):
                found[name] = type(part).__qualname__
                found.update({f"{name}.{key}": text for key, text in _parameters(part, seen).items()})
            elif (digest := _digest_of_model(part)) is not None:
                found[name] = digest
    return found


def _parts(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, (list, tuple)):
        yield from ((f"{name}.{n}", part) for n, part in enumerate(value))
    else:
        yield name, value


def _plain(parameters: Mapping[str, Any], folders: Sequence[Path], prefix: str = "") -> dict[str, str]:
    """Return numbers, strings and arrays of them as strings; objects and working folders are left out."""
    found: dict[str, str] = {}
    for key, value in parameters.items():
        name = f"{prefix}{key}"
        if key in _NOT_OF_ENERGIES:
            continue
        if isinstance(value, Mapping):
            found.update(_plain(value, folders, f"{name}."))
        elif isinstance(value, _PLAIN):
            found[name] = _text(value, folders)
    return found


def _text(value: Any, folders: Sequence[Path]) -> str:
    if isinstance(value, (str, os.PathLike)):
        return _name_of_file(os.fspath(value), folders)
    if isinstance(value, (list, tuple)):
        paths = (str, os.PathLike)
        value = [_name_of_file(os.fspath(item), folders) if isinstance(item, paths) else item for item in value]
    if isinstance(value, (list, np.ndarray)):
        return str(np.asarray(value, dtype=object).tolist()).replace(", ", ",")
    return str(value)


def _name_of_file(text: str | bytes, folders: Sequence[Path]) -> str:
    """Return name and hash of the file that a text names, or the text itself."""
    text = text if isinstance(text, str) else os.fsdecode(text)
    named = [folder / text for folder in folders]
    if os.sep in text or Path(text).suffix:
        named.append(_expanded(text))
    for file in named:
        if text and (digest := digest_of_file(file)) is not None:
            return f"{file.name}:{digest}"
    return text


def _expanded(text: str) -> Path:
    return Path(os.path.expanduser(text))  # noqa: PTH111  # the method of Path raises an error for an unknown user


def _folders(parameters: Mapping[str, Any]) -> list[Path]:
    """Return the folders in which a calculator searches for pseudopotentials and similar files."""
    found = []
    for key, value in parameters.items():
        if isinstance(value, Mapping):
            found += _folders(value)
        elif any(part in str(key).lower() for part in _FOLDERS):
            paths = [path for _, path in _parts("", value) if isinstance(path, (str, os.PathLike)) and path]
            found += [folder for path in paths if (folder := _expanded(os.fsdecode(path))).is_dir()]
    return found


def _digest_of_model(thing: Any) -> str | None:
    """Return a hash of the weights of a torch model; ``None`` for any other object."""
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(thing, torch.nn.Module):
        return None
    tensors = {name: tensor for name, tensor in thing.state_dict().items() if isinstance(tensor, torch.Tensor)}
    if sum(tensor.nbytes for tensor in tensors.values()) > LARGEST:
        return None
    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        numbers = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()
        found.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\0".encode() + numbers)
    return found.hexdigest()[:SHOWN]
