import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pymatgen.analysis.phase_diagram import PDEntry, PhaseDiagram
from pymatgen.core import Composition, Element

from hybridcsp.core.hull import Hull
from hybridcsp.errors import InputError

SYSTEM = ("Cu", "Au", "Ni", "O")


@st.composite
def histories(draw):
    """Draw a system of 1 to 4 elements and a sequence of phases; one that occurs again replaces the one before."""
    elements = SYSTEM[: draw(st.integers(1, 4))]
    counts = st.lists(st.integers(0, 6), min_size=len(elements), max_size=len(elements)).filter(any)
    # Multiples of 1/8 eV, so that several phases often lie on one tie line or plane.
    enthalpies = st.integers(-40, 0).map(lambda eighths: eighths / 8) | st.floats(-5, 0)
    puts = draw(st.lists(st.tuples(counts, enthalpies), max_size=15))
    ends = [([int(i == j) for j in range(len(elements))], draw(enthalpies)) for i in range(len(elements))]
    return elements, ends + puts


def formula_of(elements, counts):
    return "".join(f"{element}{n}" for element, n in zip(elements, counts, strict=True) if n)


def reference(elements, enthalpies):
    entries = [PDEntry(Composition(formula), e * Composition(formula).num_atoms) for formula, e in enthalpies.items()]
    return PhaseDiagram(entries, [Element(element) for element in elements])


def check(hull, elements, enthalpies):
    diagram = reference(elements, enthalpies)
    for entry in diagram.all_entries:
        formula = entry.composition.formula.replace(" ", "")
        height = hull.height(formula, entry.energy_per_atom)
        assert height == pytest.approx(diagram.get_e_above_hull(entry), abs=1e-7)
        assert height >= 0
        formation = hull.formation(formula, entry.energy_per_atom)
        assert formation == pytest.approx(diagram.get_form_energy_per_atom(entry), abs=1e-7)
        parts = hull.decomposition(formula)
        assert sum(parts.values()) == pytest.approx(1)
        assert set(parts) <= set(hull.stable)
        together = sum(fraction * enthalpies[hull_name(part)] for part, fraction in parts.items())
        assert together == pytest.approx(hull.energy(formula), abs=1e-6)
    for formula in hull.stable:
        assert hull.height(formula, enthalpies[hull_name(formula)]) == 0


def hull_name(formula):
    return Composition(formula).reduced_composition.formula.replace(" ", "")


@settings(deadline=None, max_examples=60)
@given(histories())
def test_a_hull_equals_that_of_pymatgen_after_every_change(history):
    elements, puts = history
    hull = Hull(elements)
    enthalpies = {}
    for k, (counts, enthalpy) in enumerate(puts):
        hull.put(formula_of(elements, counts), enthalpy)
        enthalpies[hull_name(formula_of(elements, counts))] = enthalpy
        if hull.is_complete and k % 3 == 0:
            check(hull, elements, enthalpies)
    check(hull, elements, enthalpies)
    for formula in [f for f in enthalpies if len(Composition(f)) > 1][:2]:
        hull.remove(formula)
        del enthalpies[formula]
    check(hull, elements, enthalpies)


@settings(deadline=None, max_examples=30)
@given(histories())
def test_heights_do_not_depend_on_when_they_were_asked_for(history):
    elements, puts = history
    asked, silent = Hull(elements), Hull(elements)
    for counts, enthalpy in puts:
        for hull in (asked, silent):
            hull.put(formula_of(elements, counts), enthalpy)
        asked.height(formula_of(elements, counts), enthalpy)
    assert asked.stable == silent.stable
    for counts, enthalpy in puts:
        formula = formula_of(elements, counts)
        assert asked.height(formula, enthalpy) == silent.height(formula, enthalpy)


def binary():
    hull = Hull(["Cu", "Au"])
    for formula, enthalpy in {"Cu": -3.5, "Au": -3.2, "CuAu": -3.45, "Cu3Au": -3.3}.items():
        hull.put(formula, enthalpy)
    return hull


def test_a_phase_above_the_hull_decomposes_into_its_neighbours():
    hull = binary()
    assert hull.stable == ("Cu", "CuAu", "Au")
    assert hull.height("Cu3Au", -3.3) == pytest.approx(0.175)
    assert hull.formation("Cu3Au", -3.3) == pytest.approx(0.125)
    assert hull.decomposition("Cu3Au") == pytest.approx({"Cu": 0.5, "CuAu": 0.5})
    assert hull.decomposition("CuAu") == {"CuAu": 1.0}
    assert hull.height("CuAu", -3.5) == pytest.approx(-0.05)
    assert hull.facets() == [("Cu", "CuAu"), ("CuAu", "Au")]


def test_multiples_of_a_formula_are_one_composition():
    hull = binary()
    hull.put("Au2Cu2", -3.6)
    assert hull.energy("CuAu") == hull.energy("Cu3Au3") == -3.6
    assert len(hull) == 4


def test_a_phase_that_rises_or_is_removed_gives_way_to_what_it_hid():
    hull = binary()
    hull.put("CuAu3", -3.3)
    assert hull.stable == ("Cu", "CuAu", "Au")
    hull.put("CuAu", -3.3)
    assert hull.stable == ("Cu", "CuAu3", "Au")
    hull.remove("CuAu3")
    assert hull.stable == ("Cu", "Au")
    hull.remove("CuAu3")
    hull.remove("Au")
    assert not hull.is_complete


def test_nothing_is_above_a_hull_that_is_not_complete():
    hull = Hull(["Cu", "Au", "O"])
    for formula, enthalpy in {"Cu": -3.5, "Au": -3.2, "CuAu": -3.45}.items():
        hull.put(formula, enthalpy)
    assert not hull.is_complete
    assert hull.energy("CuAu") is hull.height("CuAu", -3.4) is hull.formation("CuO", -3.4) is None
    assert hull.decomposition("CuAu") == {}
    assert hull.stable == ()
    assert hull.facets() == []
    assert hull.formation("CuAu", -3.45) == pytest.approx(-0.1)


def test_a_copy_changes_alone():
    hull = binary()
    other = hull.copy()
    other.put("Cu3Au", -4.0)
    assert other.stable == ("Cu", "Cu3Au", "Au")
    assert hull.stable == ("Cu", "CuAu", "Au")


@pytest.mark.parametrize("formula", ["CuNi", "", "copper", "Cu0"])
def test_formulas_outside_of_the_system_are_rejected(formula):
    with pytest.raises(InputError, match="elements of the system Cu-Au"):
        binary().energy(formula)


@pytest.mark.parametrize("elements", [[], ["Cu", "Cu"], ["Cu", "Xy"], ["X"]])
def test_elements_exist_and_differ(elements):
    with pytest.raises(InputError, match="elements"):
        Hull(elements)


def test_enthalpies_are_finite():
    with pytest.raises(InputError, match="finite"):
        binary().put("CuAu", math.nan)


def test_many_phases_take_little_time():
    """300 compositions of four elements, most of them near the hull, so that it moves often."""
    rng = np.random.default_rng(0)
    hull = Hull(SYSTEM)
    lowest = dict.fromkeys(SYSTEM, 0.0)
    while len(lowest) < 300:
        counts = rng.integers(0, 9, 4)
        if np.count_nonzero(counts) > 1:
            lowest[formula_of(SYSTEM, counts // np.gcd.reduce(counts))] = -1.0 + max(counts) / sum(counts)
    for element in SYSTEM:
        hull.put(element, 0.0)
    hull.energy("Cu")  # imports pymatgen
    formulas = list(lowest)[4:]
    times = []
    for k in range(150):
        formula = formulas[rng.integers(len(formulas))]
        enthalpy = lowest[formula] - abs(rng.normal()) * 0.2 / (1 + 10 * k)
        lowest[formula] = enthalpy
        start = time.process_time()
        hull.put(formula, enthalpy)
        hull.height(formula, enthalpy)
        times.append(time.process_time() - start)
    assert np.mean(times) < 0.02
    assert np.quantile(times, 0.99) < 0.05
