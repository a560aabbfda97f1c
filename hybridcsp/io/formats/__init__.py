"""Files of other structure search codes: reading their results and writing seeds for them."""

from hybridcsp.io.formats.base import Format, Generational, Record, SeedSettings
from hybridcsp.io.formats.registry import FORMATS, check_folder, load, recognise, results_of, write

__all__ = [
    "FORMATS",
    "Format",
    "Generational",
    "Record",
    "SeedSettings",
    "check_folder",
    "load",
    "recognise",
    "results_of",
    "write",
]
