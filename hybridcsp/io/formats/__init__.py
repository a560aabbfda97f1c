"""Other codes' files: reading what they found, and writing seeds for them; one file for each code."""

from hybridcsp.io.formats.base import Format, Generational, Record, Settings
from hybridcsp.io.formats.registry import FORMATS, load, recognise, results_of, write

__all__ = ["FORMATS", "Format", "Generational", "Record", "Settings", "load", "recognise", "results_of", "write"]
