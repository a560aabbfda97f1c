"""A predictor that learns a property from crystals, with uncertainties, and a search that improves the property."""

from pathlib import Path

import ase.io
import numpy as np
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.units import GPa

from hybridcsp import Search
from hybridcsp.predictors.labelled import read_labelled
from hybridcsp.predictors.loading import new_predictor

# Crystals with a property in their info; here the stress of copper and gold with the EMT potential.
crystals = []
for i, scale in enumerate(np.random.default_rng(0).uniform(0.95, 1.1, 60)):
    element, a = [("Cu", 3.61), ("Au", 4.08)][i % 2]
    crystal = bulk(element, "fcc", a * scale) * (1 + i % 3, 1, 1)
    crystal.rattle(0.05, seed=i)
    crystal.calc = EMT()
    crystal.info["pressure_of_emt_gpa"] = -crystal.get_stress()[:3].mean() / GPa
    crystal.calc = None
    crystals.append(crystal)
ase.io.write("crystals.extxyz", crystals)

data = read_labelled([Path("crystals.extxyz")], "pressure_of_emt_gpa", max_atoms=20)
predictor = new_predictor("cgcnn", "corrected")
predictor.fit(data, members=2, epochs=10, batch_size=16)
predictor.save(Path("pressure"))
print(f"held-out error: {predictor.card['held_out']['mae']:.1f} {predictor.unit}")

prediction = predictor.predict([bulk("Cu"), bulk("Ag")])
for i, unseen in enumerate(prediction.unseen):
    value = f"{prediction.mean[i]:.1f} ± {prediction.standard_deviation[i]:.1f} {predictor.unit}"
    print(value, *(f"(no {symbol} was learned)" for symbol in unseen))

search = Search("CuAu", calculator="emt", sources=["random"], objectives=["predictor:pressure:0"], directory="cu-au")
search.run(relaxations=5)
for minimum in search.minima(3):
    print(f"{minimum.enthalpy_per_atom:.3f} eV/atom, predicted {minimum.objectives['predictor']:.1f} GPa")
