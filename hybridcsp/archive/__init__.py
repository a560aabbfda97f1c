"""The record of a search: an event log, and the state that its events add up to."""

from hybridcsp.archive.archive import Archive

__all__ = ["Archive"]
