"""Configuration of a search in TOML files, and messages about mistakes in it."""

from hybridcsp.config.paths import FILE, with_absolute_paths
from hybridcsp.config.settings import (
    Configuration,
    SearchSection,
    SystemConfiguration,
    model_of,
    of_directory,
    parse,
    read,
    write,
)

__all__ = [
    "FILE",
    "Configuration",
    "SearchSection",
    "SystemConfiguration",
    "model_of",
    "of_directory",
    "parse",
    "read",
    "with_absolute_paths",
    "write",
]
