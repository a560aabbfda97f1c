"""The record of a search: an event log, and the state that follows from its events."""

from hybridcsp.archive.archive import Archive

__all__ = ["Archive"]
