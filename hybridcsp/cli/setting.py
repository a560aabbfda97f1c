"""An option that sets a key of the configuration, and the panels of options in help texts."""

from __future__ import annotations

from dataclasses import dataclass

from hybridcsp.cli.values import Reader, last_text

#: Panels of ``--help``.
PROBLEM = "Problem"
SEARCH = "Search options"
RELAXATION = "Relaxations"
FOLLOW_UP = "Follow-ups with other calculators"
OBJECTIVES = "Several objectives"
POWDER = "Measured powder pattern"
STOPPING = "Stopping criteria"
OUTPUT = "Output"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """An option and the key of the configuration that it sets.

    Attributes
    ----------
    flag, key
        The option, such as ``--workers``, and the key with its table, such as ``search.workers``.
    metavar, help, panel
        Placeholder, description and panel in ``--help``.
    read
        Function that returns the value of the key, given the option and the texts after it. By default the last text,
        which the configuration reads.
    many
        Whether the option may be repeated.
    switch
        Whether the option has no value; it sets the key to true.
    unset
        Description of the default if the key has none in the configuration.
    default
        Description of the default that replaces the default of the configuration.
    """

    flag: str
    key: str
    metavar: str
    help: str
    panel: str
    read: Reader = last_text
    many: bool = False
    switch: bool = False
    unset: str = ""
    default: str = ""

    @property
    def name(self) -> str:
        """The name of the parameter of a command."""
        return self.flag.removeprefix("--").replace("-", "_")
