"""Import of e3nn, which is an optional dependency."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import torch

from hybridcsp.errors import InputError


def e3nn_modules() -> tuple[ModuleType, ModuleType]:
    """Return ``e3nn.o3`` and ``e3nn.nn``.

    Raises
    ------
    InputError
        If e3nn is not installed.
    """
    try:
        # e3nn reads a file of its own with torch.load, which by default does not allow the slices in it.
        with torch.serialization.safe_globals([slice]):
            from e3nn import nn, o3
    except ImportError as error:
        raise InputError(
            "predictor",
            "equivariant",
            reason=f'it needs the package e3nn, which cannot be imported ({error}); install "hybridcsp[equivariant]", '
            "or use the predictor cgcnn",
        ) from error
    return o3, nn


@contextmanager
def without_scripts() -> Iterator[None]:
    """Make modules of e3nn inside the block without TorchScript, which takes seconds to compile and warns."""
    e3nn_modules()
    import e3nn

    before = e3nn.get_optimization_defaults()
    e3nn.set_optimization_defaults(jit_script_fx=False)
    try:
        yield
    finally:
        e3nn.set_optimization_defaults(**before)
