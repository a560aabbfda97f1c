"""The minima of a search return to its generators: training sets, versions, and when to change them."""

from hybridcsp.retraining.retrainer import Retrainer
from hybridcsp.retraining.scheduler import RetrainingScheduler
from hybridcsp.retraining.settings import WEIGHTINGS, Retraining

__all__ = ["WEIGHTINGS", "Retrainer", "Retraining", "RetrainingScheduler"]
