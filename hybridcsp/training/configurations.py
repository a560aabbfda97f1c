"""Named configurations of models: those of their authors, and the default ones, in which defects are mended."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from hybridcsp.errors import InputError, UnknownNameError

#: Names of the configurations.
PUBLISHED, CORRECTED = "published", "corrected"


class Configured:
    """Base class of models that can be made in several named configurations.

    Attributes
    ----------
    name
        Registered name of the model.
    configurations
        Names of the configurations, and functions without arguments that make an untrained model of each.
    """

    name: str
    configurations: ClassVar[Mapping[str, Callable[[], Any]]] = MappingProxyType({})

    @classmethod
    def configured(cls, configuration: str) -> Any:
        """Return an untrained model of a named configuration.

        Raises
        ------
        InputError
            If there is none of this name.
        """
        if not cls.configurations:
            reason = f"{cls.name} has only one configuration, which needs no name"
            raise InputError("configuration", configuration, reason=reason)
        if configuration not in cls.configurations:
            raise UnknownNameError("configuration", configuration, list(cls.configurations))
        return cls.configurations[configuration]()
