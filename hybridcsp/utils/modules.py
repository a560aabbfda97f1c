"""Lookup of Python modules by name without running any of their code."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path


def locate(name: str) -> ModuleSpec | None:
    """Return the specification of a module, or ``None`` if there is no such module.

    Unlike :func:`importlib.util.find_spec`, which imports the packages that contain a module, this function imports
    nothing. Therefore it does not find a submodule that exists only after its package has changed its search path.

    Parameters
    ----------
    name
        Dotted name, ``"package.module"``.
    """
    parts = name.split(".")
    if not all(part.isidentifier() for part in parts):
        return None
    spec: ModuleSpec | None = None
    path: Sequence[str] | None = None
    for depth in range(1, len(parts) + 1):
        prefix = ".".join(parts[:depth])
        spec = getattr(sys.modules.get(prefix), "__spec__", None)
        if spec is None:
            if depth > 1 and path is None:
                return None  # a plain module has no submodules
            spec = _found(prefix, path)
        if spec is None:
            return None
        path = _search_path(spec, parts[depth - 1], path)
    return spec


def _found(name: str, path: Sequence[str] | None) -> ModuleSpec | None:
    for finder in sys.meta_path:
        try:
            spec = finder.find_spec(name, path)
        except (ImportError, KeyError, AttributeError):
            # A nested namespace package can be found only after the outer package has been imported.
            spec = _namespace(name, path or ())
        if spec is not None:
            return spec
    return None


def _namespace(name: str, path: Sequence[str]) -> ModuleSpec | None:
    last = name.rpartition(".")[2]
    portions = [str(folder) for entry in path if (folder := Path(entry) / last).is_dir()]
    if not portions:
        return None
    spec = ModuleSpec(name, None, is_package=True)
    spec.submodule_search_locations = portions
    return spec


def _search_path(spec: ModuleSpec, last: str, outer: Sequence[str] | None) -> list[str] | None:
    """Return the search path of submodules; ``None`` for a module that is not a package."""
    locations = spec.submodule_search_locations
    if locations is None:
        return None
    try:
        return list(locations)
    except KeyError:  # a nested namespace package whose outer package is not imported
        return [str(Path(entry) / last) for entry in outer or () if (Path(entry) / last).is_dir()]
