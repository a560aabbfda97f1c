"""Recipes of environments: pinned packages, and the measured sizes that are shown before an installation."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files

from hybridcsp.errors import UnknownNameError

#: Folder of the requirement files, one for each recipe.
REQUIREMENTS = files("hybridcsp").joinpath("data", "environments")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Contents of the environment of a calculator.

    Attributes
    ----------
    name
        Name of the calculator and of its environment.
    summary
        Description in one line.
    principal
        Names of the most important packages.
    example
        Name of a calculator in it, as an example.
    module
        Module that must be importable after the installation.
    size
        Measured size in bytes of the environment with a torch for CPUs.
    download
        Measured size in bytes of its wheels, which are deleted after the installation.
    """

    name: str
    summary: str
    principal: tuple[str, ...]
    example: str
    module: str
    size: int
    download: int

    @property
    def requirements(self) -> str:
        """The text of the requirement file of pip: one pinned package a line."""
        lines = REQUIREMENTS.joinpath(f"{self.name}.txt").read_text(encoding="utf-8").splitlines()
        return "".join(f"{line}\n" for line in lines if line and not line.startswith("#"))

    @property
    def packages(self) -> dict[str, str]:
        """Versions of all packages by name."""
        pairs = (line.partition("==") for line in self.requirements.splitlines())
        return {name: version for name, _, version in pairs}

    @property
    def digest(self) -> str:
        """The SHA-256 of the pinned packages."""
        return hashlib.sha256(self.requirements.encode()).hexdigest()

    def principal_packages(self) -> str:
        """Return the most important packages with their versions, as in ``"sevenn 0.13.0, torch 2.13.0"``."""
        packages = self.packages
        return ", ".join(f"{name} {packages[name]}" for name in self.principal if name in packages)


#: Recipes by name.
RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            name="sevennet",
            summary="SevenNet, universal potentials whose weights come with the package",
            principal=("sevenn", "torch", "e3nn"),
            example="sevennet:l3i5",
            module="sevenn.calculator",
            size=1_550_000_000,
            download=360_000_000,
        ),
        Recipe(
            name="mace",
            summary="MACE, universal potentials by file or by name",
            principal=("mace-torch", "torch", "e3nn"),
            example="mace:medium-mpa-0",
            module="mace.calculators",
            size=1_450_000_000,
            download=360_000_000,
        ),
    )
}


def find_recipe(name: str) -> Recipe:
    """Return the recipe of an environment.

    Raises
    ------
    UnknownNameError
        If there is none of this name.
    """
    if name not in RECIPES:
        instead = "for any other calculator, make an environment yourself and give its interpreter with --python"
        raise UnknownNameError("environment", name, RECIPES, instead)
    return RECIPES[name]
