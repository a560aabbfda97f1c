"""Tables, files, plots and notebooks of a search whose minima other calculators have relaxed again."""

import csv
import json
import re
from io import StringIO
from itertools import pairwise
from pathlib import Path

import ase.io
import pytest
from archives import record_follow_up
from ase.build import bulk
from ase.calculators.singlepoint import SinglePointCalculator
from crystals import ListSource, rutile
from pymatgen.io.cif import CifFile
from rich.console import Console
from typer.testing import CliRunner

from hybridcsp import Search
from hybridcsp.analysis import plots
from hybridcsp.analysis.follow_ups import calculator_name, calculator_names, follow_up_totals
from hybridcsp.analysis.minima_report import minima_rows, minima_table
from hybridcsp.analysis.plots import plot_search
from hybridcsp.cli.app import app
from hybridcsp.io.export import export, records_of

SPEC = "sevennet:l3i5"


def crystals():
    """Return four different structures of TiO2."""
    made = [rutile(), rutile(a=4.4, c=3.4), rutile(a=5.4, c=2.6, u=0.27)]
    cube = bulk("TiO", "rocksalt", a=4.5, cubic=True)
    return [*made, cube[[0, 1, 3]]]


@pytest.fixture
def search(tmp_path):
    """A search with four minima, 30, 60 and 90 meV/atom above the best, by a calculator named test."""
    run = tmp_path / "run"
    with Search("TiO2", calculator=None, directory=run, sources=[ListSource([])]) as made:
        for height, atoms in enumerate(crystals()):
            atoms.calc = SinglePointCalculator(atoms, energy=(-8 + 0.03 * height) * len(atoms))
            made.add(atoms)
        assert len(made.minima()) == 4
        yield made


@pytest.fixture
def followed_up(search):
    """The search, three of whose minima SevenNet has relaxed: the second is its best, the third became another."""
    archive = search.archive
    record_follow_up(archive, 1, -9.0, spec=SPEC)
    record_follow_up(archive, 2, -9.05, spec=SPEC)
    record_follow_up(archive, 3, -8.9, bulk("Cu").repeat((3, 1, 1)), spec=SPEC)
    record_follow_up(archive, 4, None, spec=SPEC)
    return search


def printed(what, width=80):
    console = Console(width=width, record=True, file=StringIO())
    console.print(what)
    return console.export_text()


def table(search, width=80):
    return printed(minima_table(search.minima(), search.archive), width)


def cells(text, rank):
    """Return the words of the line of a minimum."""
    return next(line.split() for line in text.splitlines() if line.split()[:1] == [str(rank)])


@pytest.mark.parametrize("width", [80, 100, 120])
def test_a_table_shows_heights_and_ranks_by_both_calculators(followed_up, width):
    text = table(followed_up, width)
    assert max(map(len, text.splitlines())) <= width
    energy = ["-9.0500"] if width > 80 else []
    assert cells(text, 1)[: 4 + len(energy)] == ["1", *energy, "0.0", "30.0", "2"]
    assert cells(text, 4)[: 4 + len(energy)] == ["4", *(["-"] if energy else []), "-", "90.0", "4"]
    words = " ".join(text.split())
    assert "The ranking that counts is by sevennet:l3i5" in words
    assert "Minima without a result of sevennet:l3i5 (-) follow" in words


def test_marks_of_disagreement_are_explained_only_if_they_occur(followed_up):
    text = table(followed_up, 120)
    marks = {cells(text, rank)[2]: cells(text, rank)[5] for rank in (1, 2, 3)}
    assert marks == {"0.0": "!", "50.0": "!", "150.0": "!*"}
    assert "differ by more than 20." in text
    assert "ended in another structure" in text
    only = printed(minima_table(followed_up.minima()[-1:], followed_up.archive), 120)
    assert "!" not in only
    assert "another structure" not in only


def test_agreement_has_no_marks(search):
    for id_ in (1, 2):
        record_follow_up(search.archive, id_, -9.0 + 0.031 * id_, spec=SPEC)
    text = table(search, 120)
    assert "differ by more" not in text
    assert "another structure" not in text


def test_without_follow_ups_nothing_changes(search):
    text = table(search)
    assert "eV/atom" in text
    assert "meV/atom above the best" in text
    assert not [key for key in minima_rows(search.minima(), search.archive)[0] if "follow" in key or "search" in key]
    assert follow_up_totals(search.archive) == []
    assert "search_rank" not in search.minima()[0].atoms.info


def test_a_third_calculator_adds_a_column(followed_up):
    record_follow_up(followed_up.archive, 1, -20.0, spec="dft/pbe.toml", number=2)
    text = table(followed_up, 120)
    assert cells(text, 1)[:5] == ["1", "-20.0000", "0.0", "50.0", "2"]
    assert cells(text, 2)[:5] == ["2", "-", "-", "0.0", "1"]
    assert "pbe" in text
    assert max(map(len, table(followed_up, 80).splitlines())) <= 80


def test_minima_that_became_the_same_are_counted(search):
    first = crystals()[0]
    record_follow_up(search.archive, 1, -9.0, first, spec=SPEC)
    record_follow_up(search.archive, 2, -9.0, first, spec=SPEC)
    assert len(search.minima()) == 3
    assert "1 more minimum of the search became the same as one of these" in table(search, 120)


def test_rows_keep_the_energies_of_calculators_apart(followed_up):
    best, second, third, last = minima_rows(followed_up.minima(), followed_up.archive)
    assert [row["rank"] for row in (best, second, third, last)] == [1, 2, 3, 4]
    assert (best["search_rank"], best["follow_up_1_rank"]) == (2, 1)
    assert (best["enthalpy_ev_per_atom"], best["follow_up_1_enthalpy_ev_per_atom"]) == pytest.approx((-7.97, -9.05))
    assert (second["above_best_mev_per_atom"], second["follow_up_1_above_best_mev_per_atom"]) == pytest.approx((0, 50))
    assert third["follow_up_1_same_structure"] is False
    assert third["spacegroup"] != third["follow_up_1_spacegroup"]
    assert [row["disagrees"] for row in (best, second, third, last)] == [True, True, True, False]
    assert last["follow_up_1_enthalpy_ev_per_atom"] is None
    assert best.keys() == last.keys()
    assert all(value is None or isinstance(value, str | int | float) for value in [*third.values(), *last.values()])


def test_totals_count_follow_ups_apart_and_explain_failures(followed_up):
    (total,) = follow_up_totals(followed_up.archive)
    assert total == (
        "Follow-up with sevennet:l3i5: 3 minima relaxed, 1 failed, 20 force calls, 4 s of computing time; last "
        "failure: calculator: no potential for Ti"
    )


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("sevennet:l3i5", "sevennet:l3i5"),
        ("CHGNet (chgnet 0.4.2)", "CHGNet"),
        ("mace:/home/me/models/my.model", "mace:my.model"),
        ("dft/pbe.toml", "pbe"),
        ("my_module:factory", "my_module:factory"),
        ("sevenn.calculator:SevenNetCalculator", "SevenNetCalculator"),
        ("ase.calculators.emt.EMT", "EMT"),
        ("chgnet 0.3.0 (chgnet 0.4.2)", "chgnet 0.3.0"),
        ("x" * 90, "x" * 23 + "…"),
        ("evil\x1b[2J\nname", r"evil\x1b[2J\nname"),
    ],
)
def test_names_of_calculators_are_short(text, name):
    assert calculator_name(text) == name


def test_calculators_with_the_same_short_name_are_numbered(search):
    record_follow_up(search.archive, 1, -9.0, spec="a/pbe.toml")
    record_follow_up(search.archive, 1, -9.0, spec="b/pbe.toml", number=2)
    assert calculator_names(search.archive)[1:] == ["pbe#1", "pbe#2"]


def test_files_hold_the_final_structure_and_say_whose_energy_it_is(followed_up, tmp_path):
    (path,) = export(followed_up.minima(), tmp_path / "m.extxyz")
    best, _, third, last = ase.io.read(path, ":")
    assert best.get_potential_energy() / len(best) == pytest.approx(-9.05)
    assert best.info["rank"] == 1
    assert best.info["search_rank"] == 2
    assert best.info["enthalpy_per_atom"] == best.info["follow_up_1_enthalpy_per_atom"] == pytest.approx(-9.05)
    assert best.info["search_enthalpy_per_atom"] == pytest.approx(-7.97)
    assert best.info["calculator"] == best.info["follow_up_1_calculator"] == f"{SPEC} 1.0 (test)"
    assert best.info["search_calculator"] == last.info["calculator"] == last.info["search_calculator"] != SPEC
    assert best.info["disagrees"]
    assert set(third.symbols) == {"Cu"}
    assert last.get_potential_energy() / len(last) == pytest.approx(-7.91)
    assert "disagrees" not in last.info
    (path,) = export(followed_up.minima(), tmp_path / "m.extxyz", disagreement=0.2)
    assert [atoms.info.get("disagrees") for atoms in ase.io.read(path, ":")] == [False, False, True, None]
    (path,) = export(followed_up.minima(1), tmp_path / "m.cif")
    (block,) = CifFile.from_file(path).data.values()
    assert float(block["_hybridcsp_search_enthalpy_ev_per_atom"]) == pytest.approx(-7.97)
    assert float(block["_hybridcsp_follow_up_1_enthalpy_ev_per_atom"]) == pytest.approx(-9.05)


def test_the_documentation_names_the_keys_of_exported_files(followed_up):
    page = Path(__file__).parents[2] / "docs" / "user" / "follow-ups.md"
    table = page.read_text().partition("| key | value |")[2].partition("\n\n")[0]
    named = {key for row in table.splitlines()[2:] for key in re.findall(r"`(\w+)`", row.split("|")[1])}
    plain = {"candidate", "spacegroup", "source", "operator", "relaxation", "force_calls", "multiplicity"}
    assert named == {"rank", *followed_up.minima()[0].atoms.info} - plain


def test_seeds_for_other_codes_carry_the_last_calculator(followed_up):
    records = records_of(followed_up.minima())
    assert [record.calculator for record in records[:3]] == [f"{SPEC} 1.0 (test)"] * 3
    assert records[0].enthalpy / len(records[0].atoms) == pytest.approx(-9.05)
    assert records[3].enthalpy / len(records[3].atoms) == pytest.approx(-7.91)


def test_notebooks_show_both_calculators_and_escape_their_names(followed_up):
    best = followed_up.minima()[0]
    for text in (repr(best), best._repr_html_()):
        assert "-7.9700 eV/atom" in text
        assert "-9.0500 eV/atom (rank 1, 0.0 meV/atom above its best)" in text
    assert "-9.0500 by sevennet:l3i5" in repr(followed_up)
    shown = followed_up._repr_html_()
    assert "<th>ΔmeV sevennet:l3i5</th>" in shown
    assert "The ranking that counts is by sevennet:l3i5" in shown
    record_follow_up(followed_up.archive, 1, -9.0, spec="<script>x</script>", number=2, label="<script>")
    assert "<script>" not in followed_up._repr_html_() + followed_up.minima()[0]._repr_html_()


def test_the_plot_has_a_panel_for_each_follow_up_calculator(followed_up, tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(plots, "save_figure", lambda figure, output: figures.append(figure))
    plot_search(followed_up.archive, tmp_path / "p.png", "TiO2")
    _, _, panel = figures[0].axes
    assert panel.get_xlabel().startswith("above the best by")
    assert panel.get_ylabel() == "above the best by sevennet:l3i5 (meV/atom)"
    assert [text.get_text().partition(":")[0] for text in panel.texts] == ["1", "2", "3"]
    points = sorted(tuple(point) for group in panel.collections[1:] for point in group.get_offsets())
    assert [tuple(map(round, point)) for point in points] == [(0, 50), (30, 0), (60, 150)]


def test_the_plot_of_a_search_whose_follow_ups_all_failed_has_no_panel_for_them(search, tmp_path, monkeypatch):
    record_follow_up(search.archive, 1, None, spec=SPEC)
    figures = []
    monkeypatch.setattr(plots, "save_figure", lambda figure, output: figures.append(figure))
    plot_search(search.archive, tmp_path / "p.png", "TiO2")
    assert len(figures[0].axes) == 2
    assert "-9" not in table(search)
    assert "0 minima relaxed, 1 failed" in follow_up_totals(search.archive)[0]


@pytest.mark.parametrize("points", [1, 2, 500])
@pytest.mark.parametrize("height", [1.0, 1e5])
def test_any_number_of_minima_and_any_disagreement_can_be_plotted(tmp_path, points, height):
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure()
    canvas = FigureCanvasAgg(figure)
    compared = [
        plots._ComparedMinimum(
            first=float(n), second=height * n, name=f"{n}: P1", disagrees=n % 2 == 0, changed=n % 3 == 0
        )
        for n in range(points)
    ]
    axes = figure.subplots()
    plots._draw_agreement(axes, compared, ("chgnet", "a $strange_name"), 20)
    canvas.draw()
    assert sum(len(group.get_offsets()) for group in axes.collections[1:]) == points
    assert axes.get_xlim()[1] > max(point.second for point in compared)
    labels = [label.get_window_extent() for label in axes.get_xticklabels() if label.get_text()]
    inside = [box for box in labels if axes.bbox.x0 <= (box.x0 + box.x1) / 2 <= axes.bbox.x1]
    assert not [1 for left, right in pairwise(inside) if left.overlaps(right)]


def test_show_prints_either_ranking(followed_up):
    directory = str(followed_up.directory)
    followed_up.close()
    run = CliRunner().invoke
    both = json.loads(run(app, ["show", directory, "--json"]).stdout)
    assert both["follow_ups"] == [
        {
            "calculator": SPEC,
            "label": f"{SPEC} 1.0 (test)",
            "relaxed": 3,
            "given_up": 0,
            "unconverged": 0,
            "failed": 1,
            "last_failure": "calculator: no potential for Ti",
            "force_calls": 20,
            "seconds": 4.0,
        }
    ]
    assert [row["search_rank"] for row in both["minima"]] == [2, 1, 3, 4]
    own = json.loads(run(app, ["show", directory, "--json", "--level", "search"]).stdout)["minima"]
    assert [row["enthalpy_ev_per_atom"] for row in own] == pytest.approx([-8, -7.97, -7.94, -7.91])
    (first, *_) = csv.DictReader(StringIO(run(app, ["show", directory, "--csv"]).stdout))
    assert float(first["follow_up_1_enthalpy_ev_per_atom"]) == pytest.approx(-9.05)
    assert "sevennet" not in run(app, ["show", directory, "--level", "search"]).stdout.partition("Follow-up")[0]
    wrong = run(app, ["show", directory, "--level", "ranks"])
    assert wrong.exit_code != 0
