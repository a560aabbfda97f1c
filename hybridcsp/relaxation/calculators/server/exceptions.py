"""Exceptions with which builders and calculators explain themselves."""

from __future__ import annotations


class BuildError(Exception):
    """A calculator that cannot be built, with a message that explains this to the user in full sentences."""


class OptionError(BuildError):
    """A device or a precision that a calculator does not have.

    Parameters
    ----------
    option
        Name of the option, ``"device"`` or ``"precision"``.
    value
        The given value.
    reason
        Clause that says why the value cannot be used, and what to do instead.
    """

    def __init__(self, option: str, value: object, reason: str) -> None:
        super().__init__(f"{option} = {value!r} cannot be used: {reason}.")
        self.option = option
        self.value = value
        self.reason = reason


class IsolatedAtomsError(Exception):
    """Atom without neighbours within the cutoff of a calculator: the structure has fallen apart."""
