"""Objectives that a Python function of the user computes."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ase import Atoms

from hybridcsp.errors import InputError, did_you_mean, message_of, with_hint
from hybridcsp.objectives.base import Objective
from hybridcsp.utils.interrupts import exits_contained
from hybridcsp.utils.modules import locate
from hybridcsp.utils.reading import sha256_of

#: End of the name of a file with Python code.
SUFFIX = ".py"


class FunctionObjective(Objective):
    """The value of a function of the relaxed structure.

    Parameters
    ----------
    function
        ``module:function``, ``file.py:function``, or the function itself. It is called with an ``Atoms`` object, see
        :meth:`~hybridcsp.objectives.base.Objective.value`, and returns a number.
    unit
        Unit of the value.

    Raises
    ------
    InputError
        If there is no such module, file or function, or importing it fails.
    """

    runs_code = True

    def __init__(self, function: str | Callable[[Atoms], float], *, unit: str = "") -> None:
        super().__init__()
        self.unit = unit
        self._function = _loaded(function) if isinstance(function, str) else function
        file = function.rpartition(":")[0] if isinstance(function, str) else ""
        self.digest = sha256_of(Path(file)) if file.endswith(SUFFIX) else ""

    def value(self, atoms: Atoms) -> float:
        """Return the value of the function."""
        return self._function(atoms)


def _loaded(text: str) -> Callable[[Atoms], float]:
    module, _, name = text.partition(":")
    if module.endswith(SUFFIX):
        file = Path(module)
        if not file.is_file():
            near = did_you_mean(file.name, [other.name for other in file.parent.glob("*.py")])
            raise InputError("objective", text, reason=with_hint(f"there is no file {module}", near))
    elif locate(module) is None:
        there = f"there is no Python module {module!r} (a file is given with its ending: {module}.py:{name})"
        raise InputError("objective", text, reason=there)
    try:
        with exits_contained():
            found = _from_file(Path(module)) if module.endswith(SUFFIX) else importlib.import_module(module)
    except Exception as error:  # code of the user may fail in any way when it is imported
        raise InputError("objective", text, reason=f"{module} cannot be imported: {message_of(error)}") from error
    if name not in vars(found) and not hasattr(found, name):
        near = did_you_mean(name, [known for known in vars(found) if not known.startswith("_")])
        raise InputError("objective", text, reason=with_hint(f"there is no function {name!r} in {module}", near))
    function = getattr(found, name)
    if not callable(function):
        kind = type(function).__name__
        raise InputError("objective", text, reason=f"{name} in {module} is not a function, but of the type {kind}")
    checked: Callable[[Atoms], float] = function
    return checked


def _from_file(file: Path) -> Any:
    """Import a file as a module of a name that no other has; modules beside it can be imported by it."""
    name = f"hybridcsp_objective_{hashlib.sha256(str(file.resolve()).encode()).hexdigest()[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None, "the file has the ending of Python code"
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(file.resolve().parent))
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    finally:
        sys.path.remove(str(file.resolve().parent))
    return module
