"""Alloys from the AFLOW prototypes, relaxed with the EMT potential, as a data set for the training of a generator."""

from pathlib import Path

from hybridcsp.datasets import (
    SubstitutionLimits,
    aflow_templates,
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
left_out = relaxed.left_out
crystals = fold(sorted(relaxed.atoms, key=lambda atoms: atoms.info["energy_per_atom"]), left_out)
card = write_dataset(crystals, "cu-au.extxyz", "convert", settings={}, inputs=relaxed.inputs, left_out=lambda: left_out)
print(*describe_card(card)[:3], sep="\n")
