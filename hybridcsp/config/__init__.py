"""Configuration of a search in TOML files, and messages about mistakes in it."""

from hybridcsp.config.settings import (
    FILE,
    Configuration,
    SearchSection,
    SystemConfiguration,
    of_directory,
    parse,
    read,
    with_absolute_paths,
    write,
)

__all__ = [
    "FILE",
    "Configuration",
    "SearchSection",
    "SystemConfiguration",
    "of_directory",
    "parse",
    "read",
    "with_absolute_paths",
    "write",
]
