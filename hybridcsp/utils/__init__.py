"""Utilities that do not depend on crystals or searches: files, processes, signals and checks of user input."""
