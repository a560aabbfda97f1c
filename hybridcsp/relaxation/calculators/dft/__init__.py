"""DFT codes, described by a TOML file and run through ASE's interfaces to them.

========================= ===========================================================================================
``settings``              the keys that all codes have, and stages
``pseudopotentials``      files by element, or a folder with a rule for their names
``quantum_espresso`` …    one file for each code: its keys, its input, its results
``codes``                 the codes by name, and the reading of a file
``calculator``            the ASE calculator, and the label of its energies
``workspace``             the folder of a job: its lock, its journal of evaluations, and whether it is kept
``program``               a program that is run in a folder, with the end of its output if it fails
========================= ===========================================================================================
"""
