"""Construction and evaluation of calculators, also in the Python interpreter of another environment.

This package needs only the standard library, numpy and ASE, and runs in every Python from 3.9 on. hybridcsp imports it
like its other packages; another interpreter runs it by its path, ``python FOLDER/__main__.py``, so that nothing of
hybridcsp has to be installed there. Therefore its modules import each other by relative names and nothing else of
hybridcsp, and import a potential (torch, sevenn, mace) only inside the function that builds it.
"""
