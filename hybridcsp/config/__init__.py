"""Settings of a search in TOML files, and the sentences for their mistakes."""

from hybridcsp.config.settings import (
    FILE,
    Configuration,
    SearchSection,
    of_directory,
    parse,
    read,
    with_absolute_paths,
    write,
)

__all__ = ["FILE", "Configuration", "SearchSection", "of_directory", "parse", "read", "with_absolute_paths", "write"]
