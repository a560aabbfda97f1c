"""Phases of chemical systems: the hull of known ones, tables, pictures, pages and snapshots."""

import json
import re

import numpy as np
import pytest
from matplotlib.text import Text

from hybridcsp.analysis import hull_plots
from hybridcsp.analysis.composition_space import places, seen_from_front, with_subscripts
from hybridcsp.analysis.hull_html import write_hull_page
from hybridcsp.analysis.hull_plots import plot_hull
from hybridcsp.analysis.hull_report import hull_summary, phase_rows, phase_table, snapshot_rows
from hybridcsp.analysis.phases import Phase, Phases, snapshots_of
from hybridcsp.errors import InputError


def phases_of(elements, found, **more):
    """Return phases from tuples of formula and enthalpy, each found one relaxation after the one before."""
    phases = [
        Phase(
            id=n,
            candidate=n,
            formula=formula,
            enthalpy_per_atom=enthalpy,
            spacegroup=225,
            source="random",
            operator="random",
            relaxation=n,
            force_calls=10 * n,
            known="known" in rest,
        )
        for n, (formula, enthalpy, *rest) in enumerate(found, start=1)
    ]
    total = {"relaxations": len(phases), "force_calls": 10 * len(phases), "calculator": "emt (test)"}
    return Phases(elements=elements, phases=tuple(phases), **(total | more))


BINARY = [
    ("Cu", -3.50, "known"),
    ("Au", -3.20, "known"),
    ("CuAu", -3.40, "known"),
    ("Cu3Au", -3.40),
    ("CuAu", -3.45),
    ("Cu3Au", -3.465),
    ("Cu", -3.499),
    ("CuAu3", -3.10),
]


@pytest.fixture
def binary():
    return phases_of(("Cu", "Au"), BINARY)


def simplex(elements):
    """Return phases of a system of three or four elements."""
    pairs = [(f"{a}{b}", -1.0) for a in elements for b in elements if a < b]
    return phases_of(elements, [*((element, 0.0) for element in elements), *pairs, ("".join(elements), -0.2)])


def test_phases_are_listed_from_the_hull_upwards(binary):
    listed = binary.within(0.1)
    assert [(phase.formula, phase.id) for phase in listed] == [
        ("Cu", 1),
        ("CuAu", 5),
        ("Au", 2),
        ("Cu", 7),
        ("Cu3Au", 6),
        ("CuAu", 3),
        ("Cu3Au", 4),
    ]
    assert [phase.id for phase in binary.within(0.1, only_lowest=True)] == [1, 5, 2, 6]
    assert [phase.id for phase in binary.within(0.001)] == [1, 5, 2, 7]
    assert [phase.id for phase in binary.within(0)] == [1, 5, 2]


def test_rows_tell_heights_decompositions_and_what_is_new(binary):
    rows = {row["minimum"]: row for row in phase_rows(binary.phases, binary)}
    above = rows[6]
    assert above["above_hull_mev_per_atom"] == pytest.approx(10)
    assert above["formation_enthalpy_ev_per_atom"] == pytest.approx(-0.04)
    assert above["decomposition"] == pytest.approx({"Cu": 0.5, "CuAu": 0.5})
    assert above["above_known_hull_mev_per_atom"] == pytest.approx(-15)
    assert (above["on_hull"], above["known_phase"], above["stable_by_mev_per_atom"]) == (False, False, None)
    stable = rows[5]
    assert (stable["on_hull"], stable["above_hull_mev_per_atom"], stable["known_phase"]) == (True, 0, False)
    # Without CuAu the hull at 1:1 runs from Cu3Au (-3.465) to Au (-3.20).
    assert stable["stable_by_mev_per_atom"] == pytest.approx(1000 * (3.45 - (2 * 3.465 + 3.20) / 3))
    assert rows[3]["known_phase"]
    assert (rows[3]["new"], stable["new"]) == (False, True)
    assert rows[1]["stable_by_mev_per_atom"] is None


def test_elements_without_a_known_phase_are_not_called_new():
    phases = phases_of(("Cu", "Au"), [("Cu", -3.5), ("Au", -3.2), ("CuAu", -3.45, "known")])
    rows = {row["formula"]: row for row in phase_rows(phases.phases, phases)}
    assert (rows["Cu"]["new"], rows["CuAu"]["new"]) == (None, False)
    words = " ".join(map(str, phase_table([rows["Cu"]], phases, 0.1, 9).rows[0]))
    assert "not given" in words
    assert "new" not in words


def test_without_known_phases_nothing_is_called_new():
    rows = phase_rows((phases := phases_of(("Cu", "Au"), [one[:2] for one in BINARY])).phases, phases)
    assert not {"known_phase", "above_known_hull_mev_per_atom"} & set(rows[0])
    assert len(hull_summary(phases)) == 1


def test_a_known_hull_without_an_element_has_the_one_that_was_found():
    phases = phases_of(("Cu", "Au"), [("Cu", -3.5, "known"), ("CuAu", -3.40, "known"), ("Au", -3.2), ("CuAu", -3.45)])
    assert phases.height_above_known(phases.phases[3]) == pytest.approx(-0.05)


def test_the_summary_names_what_is_below_the_known_phases(binary):
    assert hull_summary(binary) == [
        "On the hull: CuAu and the elements.",
        "Below the hull of the known phases: CuAu by 50.0 meV/atom.",
        "Known phases that were on their hull and are above the one found: CuAu by 50.0 meV/atom.",
    ]
    elements = phases_of(("Cu", "Au"), [("Cu", -3.5), ("Au", -3.2), ("CuAu", -3.0)])
    assert hull_summary(elements) == [
        "No compound is on the hull: at every composition searched the elements are lower."
    ]


def test_the_table_says_which_corrections_are_missing_and_how_many_lines(binary):
    rows = phase_rows(binary.within(0.1), binary)
    table = phase_table(rows, binary, 0.1, most=4)
    assert len(table.rows) == 4
    notes = "\n".join(table.explanations())
    assert "3 more phases" in notes
    assert "emt (test)" in notes
    assert "Corrections of data bases" in notes
    assert [row[3] for row in table.rows] == ["on hull", "on hull", "on hull", "1.0"]


def test_snapshots_begin_with_the_first_hull_and_end_with_the_last(binary):
    moments = snapshots_of(binary, 8)
    assert [one.relaxations for one in moments] == [2, 3, 4, 5, 6, 7, 8]
    rows = snapshot_rows(moments)
    assert rows[0]["on_hull"] == ["Cu", "Au"]
    assert rows[1]["on_hull"] == rows[-1]["on_hull"] == ["Cu", "CuAu", "Au"]
    falls = [row["mean_above_final_mev_per_atom"] for row in rows]
    assert falls == sorted(falls, reverse=True)
    assert falls[1] > falls[3] == falls[-1] == 0
    assert [row["force_calls"] for row in rows] == [20, 30, 40, 50, 60, 70, 80]


def test_compositions_lie_where_the_elements_pull_them():
    assert places([(0.25, 0.75)]).tolist() == [[0.75]]
    corners = np.eye(3)
    triangle = places(corners)
    assert np.allclose([np.linalg.norm(triangle[a] - triangle[b]) for a, b in ((0, 1), (1, 2), (0, 2))], 1)
    tetrahedron = places(np.eye(4))
    sides = [np.linalg.norm(tetrahedron[a] - tetrahedron[b]) for a in range(4) for b in range(a)]
    assert np.allclose(sides, 1)
    shown, depth = seen_from_front(tetrahedron)
    assert np.allclose(np.hypot(np.linalg.norm(shown[0] - shown[1]), depth[0] - depth[1]), 1)
    assert len({tuple(np.round(point, 3)) for point in shown}) == 4


def test_formulas_have_subscripts():
    assert with_subscripts("Cu10Au3") == "Cu₁₀Au₃"


def figure_of(monkeypatch, phases, tmp_path, **more):
    """Return the figure that is drawn."""
    kept = []
    save = hull_plots.save_figure
    monkeypatch.setattr(hull_plots, "save_figure", lambda figure, *rest: (kept.append(figure), save(figure, *rest)))
    plot_hull(phases, tmp_path / "hull.png", **more)
    assert (tmp_path / "hull.png").read_bytes().startswith(b"\x89PNG")
    return kept[0]


def words_of(figure):
    return {text.get_text() for text in figure.findobj(Text)}


def test_a_binary_system_is_drawn_with_all_minima(binary, monkeypatch, tmp_path):
    figure = figure_of(monkeypatch, binary, tmp_path, snapshots=snapshots_of(binary, 4))
    words = words_of(figure)
    assert {"CuAu Fm-3m", "Cu₃Au Fm-3m", "new on the hull", "known, on the hull", "after 2 relaxations"} <= words
    (axes,) = figure.axes
    drawn = [tuple(np.round(point, 6)) for group in axes.collections for point in group.get_offsets()]
    for phase in binary.phases:
        point = (binary.hull.fractions(phase.formula)[1], round(1000 * binary.formation(phase), 6))
        assert any(np.allclose(point, one) for one in drawn)


@pytest.mark.parametrize("elements", [("Al", "Mg", "O"), ("Al", "Mg", "O", "Ti")])
def test_larger_systems_are_drawn_as_triangles_and_tetrahedra(elements, monkeypatch, tmp_path):
    phases = simplex(elements)
    figure = figure_of(monkeypatch, phases, tmp_path)
    assert {*elements, "on the hull", "above the hull", "energy above the hull (meV/atom)"} <= words_of(figure)
    assert len(figure_of(monkeypatch, phases, tmp_path, snapshots=snapshots_of(phases, 2)).axes) == 3


def test_a_system_of_five_elements_is_refused(tmp_path):
    phases = simplex(("Al", "Mg", "O", "Si", "Ti"))
    for draw in (plot_hull, write_hull_page):
        with pytest.raises(InputError, match="systems of two to four can be drawn"):
            draw(phases, tmp_path / "hull.png")


@pytest.mark.parametrize("elements", [("Cu", "Au"), ("Al", "Mg", "O"), ("Al", "Mg", "O", "Ti")])
def test_a_page_needs_nothing_else_and_shows_every_phase(elements, tmp_path):
    phases = phases_of(elements, BINARY) if len(elements) == 2 else simplex(elements)
    write_hull_page(phases, tmp_path / "hull.html", snapshots=snapshots_of(phases, 2))
    page = (tmp_path / "hull.html").read_text()
    assert not re.search(r"<(script|link)[^>]+(src|href)=", page)
    data = page[page.rindex("Plotly.newPlot") :]
    shown = set(re.findall(r"minimum (\d+)", data))
    expected = phases.phases if len(elements) == 2 else phases.lowest.values()
    assert shown == {str(phase.id) for phase in expected}
    assert '"sliders"' in data


def test_missing_plotly_is_explained(binary, monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "plotly.graph_objects", None)
    with pytest.raises(InputError, match="need plotly, which is not installed; run pip install plotly"):
        write_hull_page(binary, tmp_path / "hull.html")


def test_rows_are_plain_data(binary):
    assert json.loads(json.dumps(phase_rows(binary.phases, binary)))[0]["formula"] == "Cu"


def test_phases_of_an_element_that_was_not_given_are_neither_known_nor_new():
    phases = phases_of(("Cu", "Au"), [("Cu", -3.5, "known"), ("Cu", -3.4), ("Au", -3.2), ("CuAu", -3.4)])
    assert [phases.is_new(phase) for phase in phases.phases] == [False, True, None, True]
    assert phases_of(("Cu", "Au"), [("Cu", -3.5)]).is_new(phases.phases[0]) is None
