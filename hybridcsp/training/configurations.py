"""Named configurations and sizes of models.

Configurations are those of a method's authors, and the default ones, in which defects are mended.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from hybridcsp.errors import InputError, UnknownNameError

#: Names of the configurations.
PUBLISHED, CORRECTED = "published", "corrected"


class Configured:
    """Base class of models that can be made in several named configurations and sizes.

    Attributes
    ----------
    name
        Registered name of the model.
    configurations
        Names of the configurations, and functions that make an untrained model of each. They have no arguments that
        must be given, and those of the sizes.
    named_sizes
        Names of the sizes, and the arguments of the class, or of the function of a configuration, that make an
        untrained model of each.
    """

    name: str
    configurations: ClassVar[Mapping[str, Callable[..., Any]]] = MappingProxyType({})
    named_sizes: ClassVar[Mapping[str, Mapping[str, Any]]] = MappingProxyType({})

    @classmethod
    def configured(cls, configuration: str | None = None, size: str | None = None) -> Any:
        """Return an untrained model of a named configuration and size.

        Parameters
        ----------
        configuration
            Name of the configuration; ``None`` for the default.
        size
            Name of the size; ``None`` for the default of the configuration.

        Raises
        ------
        InputError
            If there is no such configuration or size.
        """
        make: Callable[..., Any] = cls
        if configuration is not None:
            make = _chosen("configuration", configuration, cls.configurations, cls.name)
        return make() if size is None else make(**_chosen("size", size, cls.named_sizes, cls.name))


def _chosen(what: str, chosen: str, known: Mapping[str, Any], model: str) -> Any:
    """Return the entry of a name."""
    if not known:
        raise InputError(what, chosen, reason=f"{model} has only one {what}, which needs no name")
    if chosen not in known:
        raise UnknownNameError(what, chosen, list(known))
    return known[chosen]
