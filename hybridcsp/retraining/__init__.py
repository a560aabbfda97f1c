"""Retraining of generators on the minima of a search: schedule, training sets and versions."""

from hybridcsp.retraining.retrainer import Retrainer
from hybridcsp.retraining.scheduler import RetrainingScheduler
from hybridcsp.retraining.settings import WEIGHTINGS, Retraining
from hybridcsp.retraining.steps import Deferred, Finished, Started

__all__ = ["WEIGHTINGS", "Deferred", "Finished", "Retrainer", "Retraining", "RetrainingScheduler", "Started"]
