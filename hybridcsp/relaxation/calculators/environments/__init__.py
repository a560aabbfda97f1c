"""Virtual environments that hybridcsp installs for calculators whose packages conflict with its own.

Each lies in ``environments/NAME`` of the data folder and holds pinned packages. It is complete once its description
``environment.json`` is written, which happens last; an incomplete one is never used and is replaced by the next
installation. One process at a time installs or removes.
"""

from hybridcsp.relaxation.calculators.environments.environment import Environment, environment, listed, remove
from hybridcsp.relaxation.calculators.environments.folders import data_folder
from hybridcsp.relaxation.calculators.environments.installation import install
from hybridcsp.relaxation.calculators.environments.recipes import RECIPES, Recipe, find_recipe

__all__ = [
    "RECIPES",
    "Environment",
    "Recipe",
    "data_folder",
    "environment",
    "find_recipe",
    "install",
    "listed",
    "remove",
]
