"""Common names of structure types, such as rutile, anatase and rock salt."""

from __future__ import annotations

import math
from functools import cache

from ase import Atoms
from ase.spacegroup import crystal

from hybridcsp.prototypes.labels import identify, reduced_counts, slot_orders
from hybridcsp.prototypes.library import AFLOW, Template, aflow, as_template
from hybridcsp.structure.conversion import to_pymatgen
from hybridcsp.structure.symmetry import SYMPREC

#: Common names by Strukturbericht symbol or, where there is none, by AFLOW's label. The names in the library are those
#: of one compound ("Halite, Rock Salt") and often do not name a structure ("alpha").
NAMES = {
    "A1": "fcc", "A2": "bcc", "A3": "hcp", "A3'": "dhcp", "A4": "diamond", "A5": "β-Sn", "A7": "α-As", "A8": "α-Se",
    "A9": "graphite", "A12": "α-Mn", "A13": "β-Mn", "A15": "A15", "A17": "black P", "A20": "α-U", "A_h": "simple cubic",
    "A_hP4_194_f": "lonsdaleite", "A_cI16_206_c": "BC8", "A_hR2_166_c": "rhombohedral graphite",
    "B1": "rock salt", "B2": "CsCl", "B3": "zinc blende", "B4": "wurtzite", "B8_1": "NiAs", "B8_2": "Ni2In",
    "B9": "cinnabar", "B10": "litharge", "B13": "millerite", "B16": "GeS", "B17": "cooperite", "B19": "AuCd",
    "B20": "FeSi", "B24": "TlF", "B26": "tenorite", "B27": "FeB", "B31": "MnP", "B32": "NaTl", "B33": "CrB",
    "B35": "CoSn", "B_h": "WC", "B_k": "hexagonal BN", "AB_cP6_221_c_d": "NbO",
    "C1": "fluorite", "C1_b": "half-Heusler", "C2": "pyrite", "C3": "cuprite", "C4": "rutile",
    "C6": "CdI2", "C7": "molybdenite", "C8": "β-quartz", "C9": "β-cristobalite", "C10": "β-tridymite",
    "C11_b": "MoSi2", "C14": "Laves C14", "C15": "Laves C15", "C15_b": "AuBe5", "C16": "CuAl2", "C18": "marcasite",
    "C21": "brookite", "C22": "Fe2P", "C23": "cotunnite", "C32": "AlB2", "C33": "Bi2Te3", "C35": "CaCl2",
    "C36": "Laves C36", "C37": "Co2Si", "C38": "Cu2Sb", "C40": "CrSi2", "C42": "SiS2", "C43": "baddeleyite",
    "C49": "ZrSi2", "C54": "TiSi2", "A2B_hP9_152_c_a": "α-quartz", "A2B_tP12_92_b_a": "α-cristobalite",
    "A2B_mC48_15_ae3f_2f": "coesite", "A2B_tP36_96_3b_ab": "keatite",
    "D0_2": "skutterudite", "D0_3": "BiF3", "D0_5": "BiI3", "D0_9": "ReO3", "D0_11": "cementite", "D0_18": "Na3As",
    "D0_19": "Ni3Sn", "D0_22": "TiAl3", "D0_23": "ZrAl3", "D1_3": "BaAl4", "D2_1": "CaB6", "D2_b": "ThMn12",
    "D2_d": "CaCu5", "D2_f": "UB12", "D5_1": "corundum", "D5_3": "bixbyite", "D5_8": "stibnite", "D5_13": "Ni2Al3",
    "D8_b": "σ phase", "A3B_hP4_191_bc_a": "Li3N",
    "E0_1": "PbFCl", "E1_1": "chalcopyrite", "E2_1": "perovskite", "AB3C_oP20_62_c_cd_a": "orthorhombic perovskite",
    "AB3C_hR10_148_c_f_c": "ilmenite", "ABC3_hR10_161_a_a_b": "LiNbO3", "G0_1": "calcite", "H1_1": "spinel",
    "A4BC_tI24_141_h_b_a": "zircon", "L1_0": "CuAu", "L1_1": "CuPt", "L1_2": "AuCu3", "L2_1": "Heusler",
    "H2_6": "stannite", "F5_1": "α-NaFeO2", "A3B4_tI28_141_ad_h": "hausmannite",
}  # fmt: skip

# Space group, cell lengths (Å) and sites of structures that are missing or wrong in the library: its anatase mixes the
# origins of two settings (oxygen at z = 0.208 is in the first, titanium in the second).
_ADDITIONAL = {
    "anatase": (141, (3.785, 3.785, 9.514), (("Ti", (0, 0, 0)), ("O", (0, 0, 0.208)))),
    "α-PbO2": (60, (4.541, 5.493, 4.906), (("Ti", (0, 0.170, 0.25)), ("O", (0.272, 0.381, 0.414)))),
}

# Primitive cells with more atoms are not compared, which would take too long.
_MAX_ATOMS = 40


def prototype_name(atoms: Atoms) -> str:
    """Return the common name of a crystal's structure type, or an empty string if it has none.

    The space group at 0.01 Å, the stoichiometry and the number of formula units in the primitive cell must be those of
    the prototype, and the crystal must match the prototype after substitution of the elements and scaling of the
    volume. The name is that of the prototype with the smallest deviation.
    """
    from pymatgen.analysis.structure_matcher import StructureMatcher

    templates = _named(tuple(reduced_counts(atoms.numbers).values()))
    if not templates or (found := identify(atoms, SYMPREC)) is None:
        return ""
    label, elements = found
    matcher = StructureMatcher()
    best, nearest = "", math.inf
    for name, template in templates:
        alike = template.label.spacegroup == label.spacegroup and template.label.units == label.units
        if not alike or len(template.atoms) > _MAX_ATOMS:
            continue
        for order in slot_orders(label.stoichiometry):
            new = {template.elements[slot]: elements[place] for place, slot in enumerate(order)}
            substituted = template.atoms.copy()
            substituted.numbers = [new[number] for number in template.atoms.numbers]
            distance = matcher.get_rms_dist(to_pymatgen(substituted), to_pymatgen(atoms))
            if distance is not None and distance[0] < nearest:
                best, nearest = name, distance[0]
    return best


@cache
def _named(stoichiometry: tuple[int, ...]) -> list[tuple[str, Template]]:
    """Return the named prototypes of a stoichiometry."""
    found = []
    for template in aflow().matching(stoichiometry):
        name = NAMES.get(template.strukturbericht) or NAMES.get(template.name.partition(" ")[0])
        if name:
            found.append((name, template))
    for name, (group, lengths, sites) in _ADDITIONAL.items():
        atoms = crystal(
            [symbol for symbol, _ in sites], [at for _, at in sites], spacegroup=group, cellpar=[*lengths, 90, 90, 90]
        )
        own = as_template(name, AFLOW, atoms)
        if own is not None and own.label.stoichiometry == stoichiometry:
            found.append((name, own))
    return found
