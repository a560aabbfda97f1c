"""Calculator that is built and evaluated in a process of another Python interpreter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import PropertyNotImplementedError

from hybridcsp.errors import CalculatorError, ExitRaisedError, InputError, message_of
from hybridcsp.relaxation.calculators.interpreters import Interpreter
from hybridcsp.relaxation.calculators.server.exceptions import IsolatedAtomsError
from hybridcsp.relaxation.calculators.server.wire import (
    decode_error,
    decode_result,
    decode_structure,
    encode,
    encode_structure,
)
from hybridcsp.relaxation.calculators.server_process import CalculatorServer, ServerLostError
from hybridcsp.relaxation.calculators.stand_in import StandInCalculator


class RemoteCalculator(StandInCalculator):
    """Calculator that lives in a calculator server.

    Each structure is sent once, and all properties that relaxations use come back together. Exceptions of the
    calculator are raised here with the same class name and message. The server starts when it is needed, and again
    after it has died; copies of this object have servers of their own.

    Parameters
    ----------
    name, argument
        Name of the calculator and its argument, or a module and the name of a function in it.
    interpreter
        The Python interpreter of the server.
    device, precision
        Device and precision; ``None`` for the calculator's own.
    """

    def __init__(
        self,
        name: str,
        argument: str | None,
        *,
        interpreter: Interpreter,
        device: str | None = None,
        precision: str | None = None,
    ) -> None:
        super().__init__()
        self._description = {"name": name, "argument": argument, "device": device, "precision": precision}
        self._interpreter = interpreter
        self._server: CalculatorServer | None = None
        self._built: Mapping[str, Any] = {}
        self._evaluated: bytes | None = None  # the structure of the results
        self._missing: dict[str, Exception] = {}
        self._failure: Exception | None = None  # after which no further property was calculated

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return _copy, (self._description, self._interpreter)

    @property
    def label(self) -> str:
        """Name, version and parameters of the calculator, as hybridcsp's own interpreter would give them."""
        self._start()
        return str(self._built["label"])

    @property
    def class_name(self) -> str:
        """Name of the class of the calculator in the server."""
        self._start()
        return str(self._built["class"])

    @property
    def implemented_properties(self) -> list[str]:
        """Properties that the calculator declares."""
        self._start()
        return [str(name) for name in self._built["properties"]]

    def get_property(self, name: str, atoms: Atoms | None = None, allow_calculation: bool = True) -> Any:
        """Return a property of a structure; all properties are calculated together.

        If the calculator changes the structure, ``atoms`` are changed in the same way.

        Raises
        ------
        ServerLostError
            If the server ends before it answers.
        PropertyNotImplementedError, IsolatedAtomsError, MemoryError, Exception
            If the calculator raises it.
        """
        if atoms is not None and self.calculation_required(atoms, []):
            if not allow_calculation:
                return None
            self.calculate(atoms)
        if name in self._missing:
            raise self._missing[name]
        if name not in self.results and self._failure is not None:
            self._evaluated = None  # another attempt evaluates the structure again
            raise self._failure
        if name not in self.results:
            raise PropertyNotImplementedError(f"{self.class_name} returned no {name}")
        value = self.results[name]
        # What is not writeable stands for an array of another shape, which may be larger than the memory.
        return value.copy() if isinstance(value, np.ndarray) and value.flags.writeable else value

    def calculation_required(self, atoms: Atoms, properties: list[str]) -> bool:
        """Return whether a structure is another one than that of the results, or a property is missing in them."""
        return encode(encode_structure(atoms)) != self._evaluated or not set(properties) <= set(self.results)

    def calculate(
        self, atoms: Atoms, properties: list[str] | None = None, system_changes: list[str] | None = None
    ) -> None:
        """Calculate all properties of a structure; errors as in :meth:`get_property`."""
        server = self._start()
        self._evaluated, self.results, self._missing, self._failure = None, {}, {}, None
        structure = encode(encode_structure(atoms))
        answer = server.ask(structure)
        try:
            for name, outcome in answer["results"]:
                if "value" in outcome:
                    self.results[name] = decode_result(outcome["value"])
                elif "missing" in outcome:
                    self._missing[name] = PropertyNotImplementedError(str(outcome["missing"]["message"]))
                else:
                    self._failure = _failure(outcome["error"])
            if answer["changed"] is not None:
                _replace(atoms, decode_structure(answer["changed"]))
                structure = encode(encode_structure(atoms))
        except (KeyError, TypeError, ValueError) as error:
            server.close()
            raise ServerLostError(f"{server.name} sent an answer that cannot be read ({message_of(error)})") from error
        if isinstance(self._failure, ExitRaisedError):
            server.close()  # the calculator wanted to end its process
        self._evaluated = structure

    def close(self) -> None:
        """End the server; it starts again when it is needed."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def _start(self) -> CalculatorServer:
        """Return the running server with the calculator; start it if there is none.

        Raises
        ------
        InputError
            If the interpreter cannot be used, or the calculator has no such device or precision.
        CalculatorError
            If the calculator cannot be built, or is another one than before.
        """
        if self._server is not None and self._server.usable:
            return self._server
        server = CalculatorServer(self._interpreter)
        try:
            built = self._build(server)
        except BaseException:
            server.close()
            raise
        if self._built and built["label"] != self._built["label"]:
            server.close()
            raise CalculatorError(
                f"the calculator {self._shown} has changed: it was {self._built['label']}, now {built['label']}"
            )
        self._server, self._built = server, built
        self.parameters = {"calculator": built["label"]}  # identifies it as a part of another calculator
        return server

    def _build(self, server: CalculatorServer) -> Mapping[str, Any]:
        """Build the calculator in a server and return what describes it."""
        where = f"the calculator {self._shown} cannot be built by {self._interpreter.path}"
        try:
            answer = server.ask(self._description)
        except ServerLostError as error:
            raise CalculatorError(f"{where}: {error}") from error
        match answer:
            case {"label": str(label), "class": str(), "properties": [*_]} if label:
                return answer  # type: ignore[no-any-return]
            case {"option": [str(option), value, str(reason)]}:
                raise InputError(option, value, reason=reason)
            case {"build": str(text)}:
                raise CalculatorError(text)
            case {"error": {"class": str(), "message": str()} as sent}:
                raise CalculatorError(f"{where}: {message_of(decode_error(sent))}")
        raise CalculatorError(f"{where}: the server sent an unknown answer")

    @property
    def _shown(self) -> str:
        name, argument = self._description["name"], self._description["argument"]
        return f"{name}:{argument}" if argument else str(name)


@cache
def check_interpreter(interpreter: Interpreter, device: str | None = None) -> None:
    """Check that an interpreter can run calculator servers and has a device; if so, it is started only the first time.

    Raises
    ------
    InputError
        If it cannot, or has no such device.
    """
    server = CalculatorServer(interpreter)
    try:
        answer = server.ask({"device": device}) if device is not None else {}
    except ServerLostError as error:
        raise InputError("python", interpreter.path, reason=f"it cannot look for devices: {error}") from error
    finally:
        server.close()
    match answer:
        case {"option": [str(option), value, str(reason)]}:
            raise InputError(option, value, reason=reason)


def _copy(description: Mapping[str, Any], interpreter: Interpreter) -> RemoteCalculator:
    return RemoteCalculator(**description, interpreter=interpreter)


def _failure(sent: Any) -> Exception:
    """Return the exception that a message describes."""
    original = decode_error(sent)
    match sent["kind"]:
        case "memory":
            return MemoryError(str(original))
        case "isolated":
            return IsolatedAtomsError(str(original))
        case "exit":
            return ExitRaisedError(message_of(original))
    return original


def _replace(atoms: Atoms, changed: Atoms) -> None:
    """Change a structure to another one."""
    atoms.arrays = changed.arrays
    atoms.set_cell(changed.cell)
    atoms.pbc = changed.pbc
