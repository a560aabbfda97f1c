"""Alloys from the AFLOW prototypes and from a search, relaxed with the EMT potential, as a data set for training."""

from pathlib import Path

from hybridcsp import Search
from hybridcsp.datasets import (
    SubstitutionLimits,
    aflow_templates,
    crystals_of_searches,
    describe_card,
    fold,
    read_crystals,
    relax_crystals,
    substitute_into,
    write_dataset,
)

templates = [template for template in aflow_templates() if len(template.atoms) <= 4]
made = substitute_into("Cu-Au", templates, limits=SubstitutionLimits(max_edge=8.0), count=12)
done = relax_crystals(made.crystals, "cu-au", calculator="emt", workers=1)  # the same call continues after a kill
print(f"{done.relaxed} of {done.total} relaxed, failed: {dict(done.reasons)}")
relaxed = read_crystals([Path("cu-au")])

search = Search("CuAu3", calculator="emt", sources=["random"], directory="cuau3", workers=1)
search.run(relaxations=5)
found = crystals_of_searches([Path("cuau3")])

left_out = relaxed.left_out + found.left_out
crystals = sorted([*relaxed.atoms, *found.atoms], key=lambda atoms: atoms.info["enthalpy_per_atom"])
card = write_dataset(
    fold(crystals, left_out),  # of equal crystals the first
    "cu-au.extxyz",
    "convert",
    settings={},
    inputs=[*relaxed.inputs, *found.inputs],
    left_out=lambda: left_out,
)
print(*describe_card(card)[:3], sep="\n")
