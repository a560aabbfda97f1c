"""Tests of the similarity of structures to a measured pattern."""

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, make_supercell
from ase.spacegroup import crystal
from crystals import anatase, quartz, random_crystal, rutile
from diffraction import measured
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from hybridcsp.errors import InputError
from hybridcsp.powder import PatternSimilarity, PowderPattern
from hybridcsp.powder.correlation import WeightedCorrelation
from hybridcsp.powder.pattern import make_profile
from hybridcsp.powder.reflections import compute_reflections
from hybridcsp.powder.strains import symmetric_strains
from hybridcsp.structure.conversion import to_pymatgen
from hybridcsp.structure.symmetry import conventional, spacegroup

CU = 1.54184


def marcasite():
    cell = [4.44, 5.42, 3.39, 90, 90, 90]
    return crystal(["Fe", "S"], [(0, 0, 0), (0.2, 0.378, 0)], spacegroup=58, cellpar=cell)


def tenorite():
    cell = [4.68, 3.42, 5.13, 90, 99.5, 90]
    return crystal(["Cu", "O"], [(0.25, 0.25, 0), (0, 0.418, 0.25)], spacegroup=15, cellpar=cell)


CRYSTALS = {
    "cubic": lambda: bulk("NaCl", "rocksalt", a=5.64),
    "hexagonal": quartz,
    "tetragonal": anatase,
    "orthorhombic": marcasite,
    "monoclinic": tenorite,
    "triclinic": lambda: random_crystal("Na2O2Cl", 14, np.random.default_rng(3)),
}


@pytest.fixture(scope="module")
def similarity():
    return PatternSimilarity(measured(rutile()))


@pytest.mark.parametrize("name", CRYSTALS)
@pytest.mark.parametrize("size", [-0.02, 0.025])
def test_lattice_error_does_not_hide_the_structure(name, size):
    atoms = CRYSTALS[name]()
    similarity = PatternSimilarity(measured(atoms, size=size, shape=0.006))
    match = similarity.match(atoms)
    assert match.similarity > 0.95
    assert match.unadjusted < 0.8
    assert match.volume_change == pytest.approx((1 + size) ** 3 - 1, abs=0.004)
    assert match.atoms.get_volume() / len(match.atoms) == pytest.approx(
        (1 + match.volume_change) * atoms.get_volume() / len(atoms)
    )


def test_other_polymorph_is_less_similar(similarity):
    assert similarity.similarity(rutile(4.69, 3.02)) > 0.95
    assert similarity.similarity(anatase()) < 0.7


@settings(deadline=None, max_examples=10, database=None, phases=[Phase.generate])
@given(st.data())
def test_similarity_does_not_depend_on_the_setting(data):
    name = data.draw(st.sampled_from([*CRYSTALS]))
    atoms = CRYSTALS[name]()
    pattern = measured(CRYSTALS["hexagonal"](), counts=1000)
    similarity = PatternSimilarity(pattern)
    expected = similarity.match(atoms)
    matrix = np.array(
        data.draw(
            st.sampled_from(
                [
                    [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
                    [[1, 1, 0], [0, 1, 0], [0, -1, 1]],
                    [[2, 0, 0], [0, 1, 0], [0, 0, 1]],
                    [[1, 1, 0], [-1, 1, 0], [0, 0, 2]],
                    [[0, 1, 0], [0, 0, 1], [1, 0, 0]],
                ]
            )
        )
    )
    changed = make_supercell(atoms, matrix)
    changed.rotate(data.draw(st.floats(0, 180)), (1, 2, 3), rotate_cell=True)
    changed.positions += data.draw(st.floats(-3, 3))
    changed = changed[data.draw(st.permutations(range(len(changed))))]
    found = similarity.match(changed)
    assert found.unadjusted == pytest.approx(expected.unadjusted, abs=2e-3)
    assert found.similarity == pytest.approx(expected.similarity, abs=5e-3)
    assert similarity.match(conventional(atoms)).similarity == pytest.approx(expected.similarity, abs=5e-3)


def test_magnetic_moments_do_not_matter(similarity):
    atoms = make_supercell(rutile(), np.diag([1, 1, 2]))
    atoms.set_initial_magnetic_moments([1.0, -1.0] + [0.0] * (len(atoms) - 2))
    assert similarity.similarity(atoms) == pytest.approx(similarity.similarity(rutile()), abs=1e-6)


def test_scale_of_the_intensities_does_not_matter():
    pattern = measured(quartz())
    scaled = PowderPattern(
        two_theta=pattern.two_theta, intensity=1e-4 * pattern.intensity, wavelength=pattern.wavelength
    )
    first, second = (PatternSimilarity(one).match(anatase()) for one in (pattern, scaled))
    assert first.unadjusted == pytest.approx(second.unadjusted, abs=1e-9)
    assert first.similarity == pytest.approx(second.similarity, abs=2e-3)  # where the adjustment stops


def test_same_structure_measured_with_other_radiation_has_nearly_the_same_similarity():
    atoms, other = rutile(), anatase()
    copper = PatternSimilarity(measured(atoms))
    molybdenum = PatternSimilarity(
        measured(atoms, wavelength=0.71073, span=(4.6, 38.0), step=0.01, width=0.07), cell_change=0.03
    )
    assert molybdenum.similarity(atoms) > 0.95
    assert molybdenum.similarity(other) == pytest.approx(copper.similarity(other), abs=0.15)


def test_without_adjustment_the_cell_stays(similarity):
    fixed = PatternSimilarity(measured(rutile(), size=0.02), cell_change=0)
    match = fixed.match(rutile())
    assert match.similarity == match.unadjusted < 0.8
    assert match.volume_change == 0


def test_adjustment_never_lowers_the_similarity(similarity):
    rng = np.random.default_rng(7)
    for _ in range(3):
        match = similarity.match(random_crystal("Ti2O4", 10, rng))
        assert 0 <= match.unadjusted <= match.similarity <= 1


def test_adjustment_stays_within_its_limit():
    similarity = PatternSimilarity(measured(rutile(), size=0.06), cell_change=0.03)
    match = similarity.match(rutile())
    assert np.abs(np.linalg.eigvalsh(match.strain)).max() <= 0.03 * 1.6 + 1e-9


def test_simulated_pattern_lies_on_the_measured_one(similarity):
    match = similarity.match(rutile())
    difference = similarity.profile.intensity - match.simulated
    assert np.sum(difference**2) < 0.1 * np.sum(similarity.profile.intensity**2)


def test_crystal_without_a_reflection_in_the_range_has_similarity_0():
    pattern = measured(rutile(), span=(26.0, 29.0), step=0.01)
    tiny = Atoms("H", cell=np.eye(3), pbc=True)
    assert PatternSimilarity(pattern).similarity(tiny) == 0


def test_elements_without_scattering_factor_and_molecules_are_refused(similarity):
    with pytest.raises(InputError, match="no X-ray scattering factor of Og"):
        similarity.similarity(Atoms("Og", cell=4 * np.eye(3), pbc=True))
    with pytest.raises(InputError, match="a crystal"):
        similarity.similarity(Atoms("Ti", positions=[(0, 0, 0)]))


@pytest.mark.parametrize(("name", "value"), [("cell_change", -0.1), ("cell_change", 0.5), ("tolerance", 0)])
def test_parameters_out_of_range_are_refused(name, value):
    with pytest.raises(InputError, match=name):
        PatternSimilarity(measured(rutile()), **{name: value})


def test_correlation_is_that_of_de_gelder():
    """The integral over shifts with the triangular weight, evaluated directly."""
    pattern = measured(rutile())
    profile, tolerance = make_profile(pattern), 0.6
    correlation = WeightedCorrelation(profile, tolerance)
    angles, intensities = np.array([25.0, 36.3, 41.02, 70.5]), np.array([1.0, 0.4, 0.7, 2.0])
    simulated = correlation.simulate(angles, intensities)
    shifts = np.arange(-round(tolerance / profile.step) + 1, round(tolerance / profile.step))
    weights = 1 - np.abs(shifts) * profile.step / tolerance

    def weighted(f, g):
        padded = np.pad(g, len(weights))
        shifted = (padded[len(weights) + shift : len(weights) + shift + len(f)] for shift in shifts)
        return sum(weight * float(f @ other) for weight, other in zip(weights, shifted, strict=True))

    expected = weighted(profile.intensity, simulated) / np.sqrt(
        weighted(profile.intensity, profile.intensity) * weighted(simulated, simulated)
    )
    assert correlation.similarity(angles, intensities) == pytest.approx(expected, abs=2e-3)


@pytest.mark.parametrize(("name", "number"), list(zip(CRYSTALS, [1, 2, 2, 3, 4, 6], strict=True)))
def test_strains_keep_the_symmetry(name, number):
    atoms = CRYSTALS[name]()
    strains = symmetric_strains(atoms)
    assert len(strains) == number
    assert np.allclose(strains[0], np.eye(3))
    assert np.allclose(np.trace(strains[1:], axis1=1, axis2=2), 0)
    strained = atoms.copy()
    strained.set_cell(
        atoms.cell.array @ (np.eye(3) + np.tensordot(0.01 * np.arange(1, number + 1), strains, 1)), scale_atoms=True
    )
    assert spacegroup(strained) == spacegroup(atoms)


def test_reflections_of_a_strained_cell_are_those_of_pymatgen():
    from pymatgen.analysis.diffraction.xrd import XRDCalculator

    atoms = CRYSTALS["monoclinic"]()
    strains = symmetric_strains(atoms)
    strain = np.tensordot([0.02, 0.003, -0.01, 0.006], strains, 1)
    strained = atoms.copy()
    strained.set_cell(atoms.cell.array @ (np.eye(3) + strain), scale_atoms=True)
    expected = XRDCalculator("CuKa").get_pattern(to_pymatgen(strained), two_theta_range=(0, 70))
    found = compute_reflections(atoms, CU, (0, 75))
    angles = np.sort(found.angles(strain))
    for angle, height in zip(expected.x, expected.y, strict=True):
        if height > 1:
            assert np.abs(angles - angle).min() < 1e-3


@pytest.mark.parametrize("width", [0.1, 0.4])
def test_width_of_the_peaks_is_estimated(width):
    profile = make_profile(measured(rutile(), width=width))
    assert profile.peak_width == pytest.approx(width, rel=0.35)


def test_background_is_subtracted_and_peaks_are_kept():
    x = np.arange(10, 90, 0.02)
    peaks = sum(h * np.exp(-(((x - c) / 0.1) ** 2)) for h, c in [(100, 25), (60, 40), (60, 40.5), (30, 75)])
    hump = 40 * np.exp(-(((x - 22) / 9) ** 2)) + 20 - 0.1 * x
    profile = make_profile(PowderPattern(two_theta=x, intensity=peaks + hump, wavelength=CU))
    assert np.abs(profile.intensity - np.interp(profile.two_theta, x, peaks) / 100).max() < 0.03
    assert np.abs(profile.background - np.interp(profile.two_theta, x, hump) / 100).max() < 0.03


def test_pattern_without_a_peak_is_refused():
    x = np.arange(10, 90, 0.02)
    with pytest.raises(InputError, match="no peak above its background"):
        make_profile(PowderPattern(two_theta=x, intensity=1 + 0.5 * x, wavelength=CU))


def test_uneven_and_fine_steps_are_averaged():
    pattern = measured(rutile(), step=0.003)
    kept = np.random.default_rng(1).random(len(pattern.two_theta)) < 0.7
    uneven = PowderPattern(two_theta=pattern.two_theta[kept], intensity=pattern.intensity[kept], wavelength=CU)
    values = [PatternSimilarity(one).similarity(anatase()) for one in (pattern, uneven)]
    assert values[0] == pytest.approx(values[1], abs=0.01)
