"""Results of one step of retraining."""

from __future__ import annotations

from dataclasses import dataclass

from hybridcsp.archive.history import ModelUpdate


@dataclass(frozen=True)
class Started:
    """Represent a training that has been started in the background; its end is another step.

    Attributes
    ----------
    source
        Name of the source whose generator is trained.
    """

    source: str


@dataclass(frozen=True)
class Deferred:
    """Represent a step in which nothing was done.

    Attributes
    ----------
    reason
        Reason in words.
    """

    reason: str


@dataclass(frozen=True)
class Finished:
    """Represent the end of a training or of a trial, successful or not.

    Attributes
    ----------
    update
        Event to be recorded.
    """

    update: ModelUpdate
