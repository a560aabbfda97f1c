"""CIFs: what is read, what is refused and why; ASE, pymatgen and spglib are the witnesses."""

import io
import json
import re
import warnings
from functools import cache
from pathlib import Path

import ase.io
import numpy as np
import pymatgen.symmetry
import pytest
from ase.neighborlist import neighbor_list
from ase.spacegroup import crystal
from crystals import rutile
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.analysis.prototypes import AFLOW_PROTOTYPE_LIBRARY
from pymatgen.analysis.structure_matcher import StructureMatcher
from pymatgen.core.operations import SymmOp
from pymatgen.io.cif import CifWriter

from hybridcsp.io.cif import CifCrystal, operations, read_cif
from hybridcsp.similarity import same_structure
from hybridcsp.structure.conversion import to_pymatgen
from hybridcsp.structure.symmetry import spacegroup

LENGTHS = "_cell_length_a {}\n_cell_length_b {}\n_cell_length_c {}\n"
CELL = LENGTHS + "_cell_angle_alpha {}\n_cell_angle_beta {}\n_cell_angle_gamma {}\n"
CUBIC = CELL.format(4, 4, 4, 90, 90, 90)
COLUMNS = ("label", "type_symbol", "fract_x", "fract_y", "fract_z", "occupancy")


def cif(*sites, cell=CUBIC, before="", columns=COLUMNS, name="test"):
    header = "".join(f"_atom_site_{column}\n" for column in columns)
    return f"data_{name}\n{cell}{before}loop_\n{header}" + "".join(f"{site}\n" for site in sites)


FCC = ("Cu1 Cu 0 0 0 1", "Cu2 Cu 0.5 0.5 0 1", "Cu3 Cu 0.5 0 0.5 1", "Cu4 Cu 0 0.5 0.5 1")
CSCL = ("Cs1 Cs 0 0 0 1", "Cl1 Cl 0.5 0.5 0.5 1")


def read(text):
    return list(read_cif(io.StringIO(text, newline=None)))


def only(text):
    (found,) = read(text)
    assert isinstance(found, CifCrystal), found
    return found.atoms


def refused(text):
    (found,) = read(text)
    assert isinstance(found, tuple), found.atoms
    return found[1]


# Syntax


@pytest.mark.parametrize(
    "text",
    [
        cif(*CSCL),
        cif(*CSCL).replace("\n", "\r\n"),
        cif(*CSCL).replace("\n", "\r"),
        cif(*CSCL).replace(" ", "\t"),
        cif(*CSCL).replace("data_t", "DATA_t").replace("loop_", "LOOP_").replace("_cell_length_a", "_Cell_Length_A"),
        cif(*CSCL).replace("_cell_", "_cell.").replace("_atom_site_", "_atom_site."),
        cif(*CSCL, before="_publ_section_title\n;\n data_not a block\nloop_ of text\n;\n"),
        cif(*CSCL, before="_journal_name 'Journal's name' # a comment\n"),
        cif(*CSCL, before='_a "with # inside"\n# a comment with an \' in it\n'),
        cif("Cs1 Cs\n0 0 0\n1 Cl1 Cl 0.5", "0.5 0.5 1"),
        cif("Cs1 Cs 0 0 0 1", "", "# in between", "Cl1 Cl .5 +0.5 5.0e-1 1."),
        cif("'Cs1' \"Cs\" 0.0(1) -0.0000(12) 0 1.00(2)", "Cl1 Cl 0.500(3) 1/2 0.5(10) 1"),
        cif("Cs1 Cs 1 -1 2 1", "Cl1 Cl -0.5 1.5 0.5 1"),
        cif(*CSCL).replace("_cell_length_a 4", "_cell_length_a 4.0000(13)"),
        cif(*CSCL).replace("_cell_angle_alpha 90\n", "").replace("_cell_angle_beta 90", "_cell_angle_beta ."),
        cif(*CSCL, before="_symmetry_space_group_name_H-M P m -3 m\n_symmetry_Int_Tables_number 221\n"),
        cif(*CSCL, before="loop_\n_citation_id\n_citation_year\n"),
    ],
)  # fmt: skip
def test_equivalent_texts_give_the_same_crystal(text):
    atoms = only(text)
    assert str(atoms.symbols) == "CsCl"
    assert np.allclose(atoms.cell, 4 * np.eye(3))
    assert np.allclose(atoms.get_scaled_positions(), [(0, 0, 0), (0.5, 0.5, 0.5)])


def test_blocks_without_atoms_are_skipped():
    first, second = cif(*CSCL, name="first"), cif(*CSCL, name="2")
    text = f"data_global\n_publ_author 'A. B.'\n{first}data_powder\n_pd_x 1\n{second}"
    assert [found.name for found in read(text)] == ["first", "2"]
    lines = text.splitlines()
    assert [found.line for found in read(text)] == [1 + lines.index("data_first"), 1 + lines.index("data_2")]
    assert "no data block with atoms" in refused("data_global\n_publ_author 'A. B.'\n")
    assert read("") == []
    assert read("# nothing but a comment\n") == []


def test_broken_block_does_not_affect_other_blocks():
    whole, broken = cif(*CSCL), cif("Cs1 Cs 0 0 0 1", "Cl1 Cl 0.5 0.5 1", name="broken")
    first, second, third = read(whole + broken + whole)
    assert isinstance(first, CifCrystal)
    assert isinstance(third, CifCrystal)
    begun = len(whole.splitlines()) + broken.splitlines().index("loop_") + 1
    assert second == (begun, "a loop of 6 columns has 11 values, which is not a multiple")


# Elements and occupancies


@pytest.mark.parametrize(
    ("label", "symbol", "element"),
    [
        ("Fe1", "Fe3+", "Fe"), ("FE1", "FE", "Fe"), ("O1", "O2-", "O"), ("X1", "Cu0+", "Cu"), ("any", "Na+1", "Na"),
        ("D1", "D", "H"), ("T1", "T", "H"), ("D2", "?", "H"), ("CU1", "?", "Cu"), ("FE2", ".", "Fe"),
        ("NA+", "?", "Na"),
        ("fe1", "?", "Fe"), ("O1A", "?", "O"), ("OW1", "?", "O"), ("Fe1_oct", "?", "Fe"), ("N1B", "?", "N"),
        ("Ca1_A", "?", "Ca"), ("NaM1", "?", "Na"),
        ("Ti(1)", "?", "Ti"), ("CL*", "?", "Cl"), ("NH4", "?", "N"),
    ],
)  # fmt: skip
def test_elements_are_recognised_in_symbols_and_labels(label, symbol, element):
    assert str(only(cif(f"{label} {symbol} 0 0 0 1")).symbols) == element


def test_elements_are_read_from_labels_or_from_symbols_alone():
    places = ("fract_x", "fract_y", "fract_z")
    assert str(only(cif("CU1 0 0 0", "Al2 0.5 0.5 0.5", columns=("label", *places))).symbols) == "CuAl"
    assert str(only(cif("Cu 0 0 0", "AL 0.5 0.5 0.5", columns=("type_symbol", *places))).symbols) == "CuAl"


def test_formula_resolves_ambiguous_capital_letters():
    sites = "CO1 ? 0 0 0 1", "O1 ? .5 .5 .5 1"
    assert sorted(only(cif(*sites)).symbols) == ["Co", "O"]
    assert sorted(only(cif(*sites, before="_chemical_formula_sum 'C O'\n")).symbols) == ["C", "O"]


@pytest.mark.parametrize(
    "site",
    [
        "M1 '0.62Cu + 0.38Al' 0 0 0 1", "Nb,Zr '0.8Nb + 0.2Zr' 0 0 0 1", "(Cu,Al)1 Cu 0 0 0 1", "Cu/Al ? 0 0 0 1",
        "CU/AL ? 0 0 0 1", "CuAl1 ? 0 0 0 1", "CaMg Ca 0 0 0 1", "Ca1-Mg1 ? 0 0 0 1", "M1 Ca:Mg 0 0 0 1",
        "Cu0.5Al0.5 ? 0 0 0 1", "M Cu0.5Al0.5 0 0 0 1", "Cu1 CuAl 0 0 0 1", "M1 M 0 0 0 1", "M1 ? 0 0 0 1",
        "Va Va 0 0 0 1",
        "X ? 0 0 0 1", "1 ? 0 0 0 1", "Wat Wat 0 0 0 1", "OH OH 0 0 0 1", "Met ? 0 0 0 1", "Fe1 Fe 0 0 0 0.5",
        "Fe1 Fe 0 0 0 0.9(2)", "Fe1 Fe 0 0 0 1.2", "Fe1 Fe 0 0 0 -1", "Fe1 Fe 0 0 0 full", "Fe1 Fe 0 ? 0 1",
        "Fe1 Fe 0 . 0 1", "Fe1 Fe 0 nan 0 1", "Fe1 Fe 0 1_0 0 1",
    ],
)  # fmt: skip
def test_sites_without_exactly_one_atom_are_refused(site):
    assert refused(cif(site, "O1 O 0.5 0.5 0.5 1"))


def test_unknown_occupancies_are_one_and_empty_sites_are_omitted():
    assert str(only(cif("Cs1 Cs 0 0 0 .", "Cl1 Cl .5 .5 .5 ?", "O1 O .5 0 0 0", "O2 O ? ? ? 0.0(1)")).symbols) == "CsCl"
    assert "all sites are empty" in refused(cif("Cs1 Cs 0 0 0 0"))
    dummies = (*COLUMNS, "calc_flag")
    assert len(only(cif("Cs1 Cs 0 0 0 1 d", "Q1 Q .5 .5 .5 1 dum", columns=dummies))) == 1


def test_occupancies_of_one_element_on_one_site_are_added():
    assert str(only(cif("Fe1 Fe2+ 0 0 0 0.5", "Fe2 Fe3+ 0 0 0 0.5", "O1 O .5 .5 .5 1")).symbols) == "FeO"
    assert "occupancy 0.9" in refused(cif("Fe1 Fe 0 0 0 0.5", "Fe2 Fe 0 0 0 0.4"))
    assert "Cu and Zn" in refused(cif("Cu1 Cu 0 0 0 0.5", "Zn1 Zn 0 0 0 0.5"))


def test_alternatives_of_a_disordered_group_are_refused():
    columns = (*COLUMNS, "disorder_group")
    assert "disorder" in refused(cif("O1 O 0 0 0 1 1", "O2 O 0.5 0 0 1 2", columns=columns))
    assert len(only(cif("O1 O 0 0 0 1 .", "O2 O 0.5 0 0 1 1", columns=columns))) == 2


def test_hydrogen_without_coordinates_is_refused():
    columns = (*COLUMNS, "attached_hydrogens")
    assert "2 hydrogen atoms" in refused(cif("O1 O 0 0 0 1 2", columns=columns))
    assert len(only(cif("O1 O 0 0 0 1 0", columns=columns))) == 1


def test_overlapping_atoms_are_named_with_their_distance():
    said = refused(cif("Cs1 Cs 0 0 0 1", "Cl1 Cl 0.02 0 0 1"))
    assert "on top of each other: Cs (atom 1) and Cl (atom 2), 0.080 Å" in said


# Contents


@pytest.mark.parametrize(
    "stated",
    [
        "_chemical_formula_sum 'Cs Cl'\n", "_chemical_formula_sum 'Cl Cs'\n_cell_formula_units_Z 1\n",
        "_chemical_formula_sum 'Cs2 Cl2'\n", "_chemical_formula_sum ?\n", "_chemical_formula_sum 'Cs1-x Cl'\n",
        "_chemical_formula_sum CsCl\n_cell_formula_units_Z ?\n", "_chemical_formula_moiety 'Cs 1+, Cl 1-'\n",
        "_chemical_formula_sum Cs1.00Cl1.0\n", "_chemical_formula_moiety 'Cs Cl, 2(anything else)'\n",
    ],
)  # fmt: skip
def test_contents_that_agree_with_the_formula_are_read(stated):
    assert len(only(cif(*CSCL, before=stated))) == 2


@pytest.mark.parametrize(
    "stated",
    [
        "_chemical_formula_sum 'Cs Br'\n", "_chemical_formula_sum 'Cs Cl2'\n", "_chemical_formula_sum 'Cs Cl H4'\n",
        "_chemical_formula_sum 'Cs Cl'\n_cell_formula_units_Z 4\n", "_chemical_formula_sum 'Cs0.9 Cl'\n",
        "_chemical_formula_moiety 'Cs 1+, 2(Cl 1-)'\n", "_chemical_formula_moiety 'Cs Cl, H2 O'\n",
    ],
)  # fmt: skip
def test_contents_that_contradict_the_formula_are_refused(stated):
    assert "stated" in refused(cif(*CSCL, before=stated))


def test_volume_that_contradicts_the_cell_is_refused():
    assert len(only(cif(*CSCL, before="_cell_volume 64.1(2)\n"))) == 2
    assert len(only(cif(*CSCL, before="_cell_volume ?\n"))) == 2
    assert "volume" in refused(cif(*CSCL, before="_cell_volume 256.0\n"))


def test_second_crystal_in_one_block_is_refused():
    assert "twice" in refused(cif(*CSCL) + "_cell_length_a 5\n")
    assert "twice" in refused(cif(*CSCL) + cif("K1 K 0 0 0 1", cell="").partition("\n")[2])
    assert len(only(cif(*CSCL) + "_cell_length_a 4\n_publ_author_name A\n_publ_author_name B\n")) == 2


def test_deuterium_counts_as_hydrogen_in_formulas_too():
    sites = "O1 O 0 0 0 1", "D1 D 0.24 0 0 1", "H1 H 0 0.24 0 1"
    assert str(only(cif(*sites, before="_chemical_formula_sum 'D1 H1 O1'\n")).symbols) == "OH2"
    assert str(only(cif(*sites, before="_chemical_formula_sum 'H2 O'\n")).symbols) == "OH2"


# Symmetry

HEXAGONAL = CELL.format(3.82, 3.82, 6.26, 90, 90, 120)
WURTZITE = "_symmetry_space_group_name_H-M 'P 63 m c'\n"


@pytest.mark.parametrize("third", ["0.33 0.67", "0.333 0.667", "0.3333 0.6667", "0.33333 0.66667", "1/3 2/3"])
def test_images_at_rounded_thirds_are_merged(third):
    atoms = only(cif(f"Zn1 Zn {third} 0 1", f"S1 S {third} 0.375 1", cell=HEXAGONAL, before=WURTZITE))
    assert sorted(atoms.symbols) == ["S", "S", "Zn", "Zn"]
    assert neighbor_list("d", atoms, 3.0).min() > 2.2
    assert spacegroup(atoms, 1e-5) == 186


@pytest.mark.parametrize("group", ["R -3 m", "R-3m", "R -3 m :R", "R -3 m R", "R -3 m :H", "R 3 m", "166", "-P 3* 2"])
def test_cell_determines_rhombohedral_axes(group):
    names = {"166": "_symmetry_Int_Tables_number", "-P 3* 2": "_space_group_name_Hall"}
    name = names.get(group, "_space_group_name_H-M_alt")
    cell = CELL.format(4.13, 4.13, 4.13, 54.1, 54.1, 54.1)
    text = cif("As1 As 0.2276 0.2276 0.2276 1", cell=cell, before=f"{name} '{group}'\n")
    if group.endswith(":H"):
        assert "symmetry of the space group" in refused(text)
        return
    atoms = only(text)
    assert len(atoms) == (1 if group == "R 3 m" else 2)
    assert spacegroup(atoms, 1e-4) == 166
    hexagonal = CELL.format(3.76, 3.76, 10.55, 90, 90, 120)
    if group in ("R -3 m", "R-3m", "166"):
        assert len(only(cif("As1 As 0 0 0.2276 1", cell=hexagonal, before=f"{name} '{group}'\n"))) == 6


def test_cell_determines_the_unique_axis_of_monoclinic_groups():
    b, c = CELL.format(5, 6, 7, 90, 105, 90), CELL.format(5, 6, 7, 90, 90, 105)
    number, name = "_space_group_IT_number 14\n", "_symmetry_space_group_name_H-M '{}'\n"
    for cell, short, full in (
        (b, number, "P 1 21/c 1"),
        (b, name.format("P 21/n"), "P 1 21/n 1"),
        (b, name.format("P21/c"), "P 1 21/c 1"),
        (c, name.format("P 21/n"), "P 1 1 21/n"),
        (c, number, "P 1 1 21/a"),
    ):
        one, other = (only(cif("O1 O 0.1 0.2 0.3 1", cell=cell, before=text)) for text in (short, name.format(full)))
        assert one == other


DIAMOND = CELL.format(3.567, 3.567, 3.567, 90, 90, 90)


def test_unstated_origin_follows_from_the_contents_or_is_refused():
    group = "_symmetry_space_group_name_H-M 'F d -3 m'\n"
    stated = "_chemical_formula_sum C\n_cell_formula_units_Z 8\n"
    for place in ("0 0 0", "0.125 0.125 0.125"):
        assert len(only(cif(f"C1 C {place} 1", cell=DIAMOND, before=group + stated))) == 8
        assert "origin" in refused(cif(f"C1 C {place} 1", cell=DIAMOND, before=group))
    for suffix, place in ((":1", "0 0 0"), (":2", "0.125 0.125 0.125"), (" S", "0 0 0"), (" Z", ".125 .125 .125")):
        before = f"_symmetry_space_group_name_H-M 'F d -3 m{suffix}'\n"
        assert len(only(cif(f"C1 C {place} 1", cell=DIAMOND, before=before))) == 8
    hall = "_symmetry_space_group_name_Hall '-F 4vw 2vw 3'\n"
    assert len(only(cif("C1 C 0.125 0.125 0.125 1", cell=DIAMOND, before=hall + group))) == 8


def operations_loop(*lines, name="_symmetry_equiv_pos_as_xyz"):
    return f"loop_\n{name}\n" + "".join(f"'{line}'\n" for line in lines)


@pytest.mark.parametrize(
    "lines",
    [
        ("x,y,z", "1/2+x,1/2+y,z", "1/2+x,y,1/2+z", "x,1/2+y,1/2+z"),
        ("X, Y, Z", "X+1/2, Y+1/2, Z", "X+0.5, Y, Z+.5", "x, y+1/2, z+1/2"),
        ("+x,+y,+z", "x-1/2,y-1/2,z", "x-.5,y,z+3/2", "x,y+0.500,z+0.5000"),
    ],
)
def test_equivalent_spellings_of_operations_are_read(lines):
    assert len(only(cif("Cu1 Cu 0 0 0 1", before=operations_loop(*lines)))) == 4


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        (("x,y,z", "1/2+x,1/2+y,z", "1/2+x,y,1/2+z"), "not form a group"),
        (("x,y,z", "-x,-y"), "not a symmetry operation"), (("x,y,z", "-x,-y,q"), "not a symmetry operation"),
        (("x,y,z", "-x,-y,2z"), "not a symmetry operation"), (("x,y,z", "-x,-y,z+1/0"), "not a symmetry operation"),
        (("x,y,z", "x+0.11,y,z"), "not a simple fraction"), (("x,y,z", "-x,y y,z"), "not a symmetry operation"),
    ],
)  # fmt: skip
def test_damaged_operations_are_refused(lines, why):
    assert why in refused(cif("Cu1 Cu 0 0 0 1", before=operations_loop(*lines)))


def test_operations_must_agree_with_the_stated_space_group():
    group = "_symmetry_space_group_name_H-M 'F m -3 m'\n_symmetry_Int_Tables_number 225\n"
    few = operations_loop("x,y,z", "-x,-y,-z")
    assert "only 2 of the 192 operations" in refused(cif("Cu1 Cu 0 0 0 1", before=group + few))
    assert len(only(cif(*FCC, before=group + operations_loop("x,y,z")))) == 4  # as programs write P 1
    assert "only the identity is listed" in refused(cif("Cu1 Cu 0 0 0 1", before=group + operations_loop("x,y,z")))
    primitive = CELL.format(2.83, 2.83, 2.83, 60, 60, 60)
    assert len(only(cif("Cu1 Cu 0 0 0 1", cell=primitive, before=group + operations_loop("x,y,z")))) == 1
    assert "different groups" in refused(cif("Cu1 Cu 0 0 0 1", before=group.replace("225", "227")))
    assert "does not have the symmetry" in refused(cif("Cu1 Cu 0 0 0 1", cell=HEXAGONAL, before=group))
    turned = operations_loop("x,y,z", "-y,x-y,z", "y-x,-x,z")
    assert "does not have the symmetry" in refused(cif("Cu1 Cu 0 0 0 1", before=turned))
    assert "is unknown" in refused(cif("Cu1 Cu 0 0 0 1", before="_symmetry_space_group_name_H-M 'P 99'\n"))
    assert len(only(cif("Cu1 Cu 0 0 0 1", before="_symmetry_Int_Tables_number ?\n"))) == 1


def test_positions_of_magnetic_cifs_are_read():
    magnetic = operations_loop("x,y,z,+1", "-x,-y,-z,-1", name="_space_group_symop_magn_operation.xyz")
    centred = operations_loop("x,y,z,+1", "x+1/2,y+1/2,z+1/2,-1", name="_space_group_symop_magn_centering.xyz")
    assert len(only(cif("Fe1 Fe 0.1 0.2 0.3 1", before=magnetic + centred))) == 4


def test_modulated_structures_are_refused():
    assert "modulated" in refused(cif(*CSCL, before="_cell_modulation_dimension 1\n"))


@cache
def table_of_cod():
    folder = Path(pymatgen.symmetry.__file__).parent
    return json.loads((folder / "symm_ops.json").read_text())


def test_settings_agree_with_the_tables_of_cod():
    """All settings have the operations that another table has for their Hall symbols, and the names that it has."""
    seen, named = set(), 0
    for row in table_of_cod():
        (hall,) = operations._by_hall().get(operations._spaced(row["hall"]), [None])
        if hall is None:
            continue
        seen.add(hall)
        theirs = [SymmOp.from_xyz_str(text) for text in row["symops"]]
        rotations = np.array([operation.rotation_matrix for operation in theirs])
        translations = np.array([operation.translation_vector % 1 for operation in theirs])
        listed = operations.Operations("listed", rotations, translations)
        assert operations._operation_codes(operations._of_setting(hall)) == operations._operation_codes(listed)
        for name in (row["hermann_mauguin"], row["universal_h_m"]):
            found = operations._by_symbol().get(operations._simplified(name))
            assert found is None or hall in found, (name, hall)
            named += found is not None
    assert len(seen) > 520
    assert named > 1000


@pytest.mark.parametrize("symbol", ["P 2(1)/c", "P2(1)/c", "P 21/c", "P 1 21/c 1", "P12(1)/c1"])
def test_screw_axes_with_parentheses_are_read(symbol):
    cell = CELL.format(5.1, 5.2, 5.3, 90, 99, 90)
    found = only(cif("Zr1 Zr 0.275 0.04 0.208 1", cell=cell, before=f"_symmetry_space_group_name_H-M '{symbol}'\n"))
    assert len(found) == 4


def test_symbols_of_space_groups_are_unambiguous():
    for symbol, halls in operations._by_symbol().items():
        assert len({operations._types()[hall].number for hall in halls}) == 1, symbol


@pytest.mark.parametrize("number", [2, 14, 15, 62, 136, 148, 166, 194, 205, 225, 227])
@pytest.mark.parametrize("digits", [3, 5])
def test_symmetry_agrees_with_crystals_built_by_ase(number, digits):
    """A site in general position, in the standard setting of ASE, written with few digits."""
    cells = {
        2: (5, 6, 7, 80, 95, 100),
        14: (5, 6, 7, 90, 105, 90),
        15: (7, 6, 8, 90, 105, 90),
        62: (6, 7, 8, 90, 90, 90),
        136: (7, 7, 5, 90, 90, 90),
        205: (9, 9, 9, 90, 90, 90),
        225: (14, 14, 14, 90, 90, 90),
        227: (15, 15, 15, 90, 90, 90),
    }
    cell = cells.get(number, (9, 9, 12, 90, 90, 120))
    place = (0.171, 0.052, 0.328)
    made = crystal("O", [place], spacegroup=number, cellpar=cell)
    group = f"_space_group_IT_number {number}\n"
    if number == 227:
        group = "_space_group_name_H-M_alt 'F d -3 m:1'\n"
    text = cif("O1 O " + " ".join(f"{x:.{digits}f}" for x in place) + " 1", cell=CELL.format(*cell), before=group)
    assert StructureMatcher(primitive_cell=False, scale=False).fit(to_pymatgen(only(text)), to_pymatgen(made))


SAMPLE = range(0, len(AFLOW_PROTOTYPE_LIBRARY), 24)


@pytest.mark.parametrize("digits", [3, 4, 5])
@pytest.mark.parametrize("which", SAMPLE)
def test_cifs_written_by_pymatgen_are_read_back(which, digits):
    structure = AFLOW_PROTOTYPE_LIBRARY[which]["snl"].structure
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        text = str(CifWriter(structure, symprec=0.01, significant_figures=digits))
    matcher = StructureMatcher(ltol=0.05, stol=0.1, angle_tol=3)
    found = only(text)
    assert matcher.fit(to_pymatgen(found), structure)
    # Exactly on the special positions: the symmetry is there at a tolerance far below the rounding.
    assert spacegroup(found, 1e-4) == spacegroup(structure.to_ase_atoms(), 0.01)


@settings(max_examples=15, deadline=None)
@given(a=st.floats(3, 9), c=st.floats(3, 9), u=st.floats(0.28, 0.33))
def test_cifs_written_by_ase_are_read_back(a, c, u):
    atoms = rutile(a, c, u)
    stream = io.BytesIO()
    ase.io.write(stream, [atoms, atoms * (1, 1, 2)], format="cif")
    first, second = read(stream.getvalue().decode())
    assert same_structure(first.atoms, atoms)
    assert len(second.atoms) == 12


def test_damaged_texts_raise_no_other_errors():
    whole = str(CifWriter(to_pymatgen(rutile()), symprec=0.01))
    rng = np.random.default_rng(0)
    pieces = [
        "\n",
        " ",
        ";",
        "'",
        '"',
        "loop_",
        "_",
        "data_x",
        "#",
        "nan",
        "1e999",
        "7" * 400,
        "\x00",
        "²",
        "?",
        "/0",
        ",",
    ]
    for _ in range(400):
        at, end = sorted(rng.integers(len(whole), size=2))
        end = min(end, at + int(rng.integers(40)))
        for found in read(whole[:at] + str(rng.choice(pieces)) + whole[end:]):
            assert isinstance(found, CifCrystal) or re.search(r"\w", found[1])
