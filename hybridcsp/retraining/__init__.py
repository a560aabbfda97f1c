"""The minima of a search return to its generators: training sets, versions, and when to change them."""

from hybridcsp.retraining.retrainer import Retrainer
from hybridcsp.retraining.scheduler import Classroom
from hybridcsp.retraining.settings import WEIGHTINGS, Retraining

__all__ = ["WEIGHTINGS", "Classroom", "Retrainer", "Retraining"]
