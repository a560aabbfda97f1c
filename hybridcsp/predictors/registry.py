"""Registry of the predictors."""

from __future__ import annotations

from hybridcsp.core.registry import Entry, Registry

PREDICTORS = Registry(
    "predictor",
    (
        Entry(
            name="cgcnn",
            target="hybridcsp.predictors.cgcnn:CGCNN",
            summary="crystal graph convolutions over the twelve nearest neighbours of each atom",
        ),
        Entry(
            name="equivariant",
            target="hybridcsp.predictors.equivariant:EquivariantPredictor",
            summary="messages of scalars and vectors that rotate with the crystal, by e3nn",
        ),
        Entry(
            name="synthesizability",
            target="hybridcsp.predictors.synthesizability:Synthesizability",
            summary="whether a crystal has been made, by positive-unlabelled learning with CGCNN",
        ),
    ),
    base="hybridcsp.predictors.base:Predictor",
)
