"""Operators by name: ours, and those that other packages register."""

from __future__ import annotations

from hybridcsp.core.registry import Entry, Registry
from hybridcsp.errors import InputError, UnknownNameError
from hybridcsp.operators import CALCULATOR_SOFT_MUTATION, OPERATORS, WeightedOperator

#: Stands for all that evolution uses if nobody says otherwise.
DEFAULT = "default"

_OURS = {offer.operator.name: offer for offer in (*OPERATORS, CALCULATOR_SOFT_MUTATION)}

NAMED = Registry(
    "operator",
    (
        *(
            Entry(
                name=name,
                target=f"{type(offer.operator).__module__}:{type(offer.operator).__qualname__}",
                summary=(type(offer.operator).__doc__ or "").partition("\n")[0],
            )
            for name, offer in _OURS.items()
        ),
        Entry(
            name="ase-ga-cut-and-splice",
            target="hybridcsp.operators.ase_ga:cut_and_splice",
            summary="Deaven and Ho's cut-and-splice as ase-ga has it; needs the package ase-ga.",
        ),
    ),
)


def offers_named(names: str) -> tuple[WeightedOperator, ...]:
    """Return operators for evolution.

    Parameters
    ----------
    names
        Names joined by commas; ``default`` among them stands for :data:`~hybridcsp.operators.OPERATORS`.

    Raises
    ------
    UnknownNameError
        If there is no operator of a name.
    InputError
        If one is named twice.
    RegistrationError
        If what another package registers is no operator.
    """
    offers: list[WeightedOperator] = []
    for name in names.split(","):
        offers += OPERATORS if name == DEFAULT else [_offer(name)]
    found = [offer.operator.name for offer in offers]
    for name in found:
        if found.count(name) > 1:
            raise InputError("operator", names, f"{name} is there twice")
    return tuple(offers)


def _offer(name: str) -> WeightedOperator:
    if name in _OURS:
        return _OURS[name]
    entries = NAMED.entries()
    if name not in entries:
        raise UnknownNameError("operator", name, [DEFAULT, *entries])
    made = entries[name].build()
    offer = made if isinstance(made, WeightedOperator) else WeightedOperator(made)
    entries[name].require(offer.operator, ("name", "n_parents", "applies_to", "__call__"))
    return offer
