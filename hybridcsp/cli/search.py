"""Provide the command ``hybridcsp search``."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from shlex import quote
from typing import Annotated, Any

import typer

from hybridcsp.cli.app import app
from hybridcsp.cli.options import OPTIONS, SETTINGS
from hybridcsp.cli.output import as_argument
from hybridcsp.cli.progress import setting_up
from hybridcsp.cli.running import run_search
from hybridcsp.cli.setting import SEARCH
from hybridcsp.cli.settings_command import SettingsCommand, read_given, with_settings
from hybridcsp.cli.targets import PREDICTOR, TARGET, with_targets_of_search
from hybridcsp.errors import InputError, did_you_mean, with_hint


class _Search(SettingsCommand):
    settings = SETTINGS


@app.command(
    cls=_Search,
    epilog="Examples:\n\n"
    "  hybridcsp search TiO2\n\n"
    "  hybridcsp search TiO2 --executor dask:tcp://head:8786\n\n"
    "  hybridcsp search MgSiO3 --formula-units 2-4 --pressure 25 --relaxations 300\n\n"
    "  hybridcsp search Ti4O8 --formula-units 1 --source random --source seeds:my/\n\n"
    "  hybridcsp search Fe2O3 --magmom Fe=5 --min-distance Fe-O=1.7\n\n"
    "  hybridcsp search TiO2 --spacegroup 136 --templates my_dioxides/\n\n"
    "  hybridcsp search TiO2 --calculator mace:my.model --time-limit 10min\n\n"
    "  hybridcsp search TiO2 --then sevennet:l3i5\n\n"
    "  hybridcsp search TiO2 --target band_gap=3.. --predictor gap/ --source generative:my_wyckoff/ --source random\n\n"
    "  hybridcsp search TiO2 --xrd pattern.xy --wavelength CuKa\n\n"
    "  hybridcsp search V-O --relaxations 400\n\n"
    "  hybridcsp search Mg-Mn-O --compositions MgMn2O4,MgMnO3 --pressure 10\n\n"
    "  hybridcsp search my_search.toml --directory run2 --seed 2",
)
@with_settings(SETTINGS)
def search(
    what: Annotated[
        str,
        typer.Argument(
            metavar="FORMULA|SYSTEM|FILE.toml", help="Formula such as TiO2, chemical system such as V-O, or TOML file."
        ),
    ],
    *,
    templates: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="File or folder of your own structures, used as prototypes in addition to the known ones.",
            show_default="none",
            rich_help_panel=SEARCH,
        ),
    ] = None,
    target: TARGET = None,
    predictor: PREDICTOR = None,
    trust: Annotated[
        bool,
        typer.Option(
            "--trust", help="Allow a TOML file to run the code and programs that it names.", rich_help_panel=SEARCH
        ),
    ] = False,
    **values: Any,
) -> None:
    """Search for stable crystal structures of a composition or a chemical system.

    Options override the settings in a TOML file. The search ends at the first stopping criterion that is met. All
    results are stored in the run directory as they arrive; after an interruption, continue with hybridcsp resume.

    --target adds a condition on a property to --where, and --predictor an objective that is only reported: the property
    that it predicts. Generators that have learned the property sample for the target, and of the samples of all, those
    that are predicted to meet it are relaxed first.
    """
    with ExitStack() as setup:
        setup.enter_context(setting_up(f"setting up the search for {what}"))
        from hybridcsp import config
        from hybridcsp.archive.archive import is_begun
        from hybridcsp.config.errors import Origin, key_lines
        from hybridcsp.utils.formulas import elements_of_system

        given = read_given(SETTINGS, values)
        from_file = what.endswith(".toml")
        if from_file:
            raw = config.read(_existing(what))
            lines = key_lines(Path(what).read_text(encoding="utf-8-sig", errors="replace"))
            origin = Origin(what, given.flags, lines)
        else:
            _refuse_other_files(what)
            raw = {"problem": {"elements" if elements_of_system(what) else "formula": what}}
            named = {"problem.formula": "formula", "problem.elements": "system"}
            origin = Origin("the command line", named, options=OPTIONS)
        raw = given.merged_into(raw)
        if target or predictor:
            raw = {**raw, "search": with_targets_of_search(raw.get("search", {}), target or [], predictor or [])}
        if templates is not None:
            config.parse(raw, origin, given.mistakes)  # reports mistakes in the tables before templates are added
            raw["search"] = {**raw.get("search", {}), "sources": _with_templates(raw, templates)}
            raw = config.with_absolute_paths(raw, Path.cwd())
        configuration = config.parse(raw, origin, given.mistakes)
        if is_begun(configuration.directory):
            raise InputError(
                "directory",
                configuration.directory,
                "a new directory; this one already contains a search: continue it with hybridcsp resume "
                f"{as_argument(configuration.directory)}, or choose another --directory",
            )
        run_search(configuration, setup, trust=trust, trust_commands=trust, named=given.flags)


def _existing(file: str) -> Path:
    """Return the path of a TOML file, after checking that it exists."""
    path = Path(file)
    if not path.exists():
        near = did_you_mean(path.name, [other.name for other in path.parent.glob("*.toml")])
        formula = (
            f"; run hybridcsp search {quote(path.stem)} to search for this formula" if _is_formula(path.stem) else ""
        )
        reason = with_hint(f"there is no such file{formula}", near)
        raise InputError("configuration", path, reason=reason)
    return path


def _refuse_other_files(what: str) -> None:
    """Check that an argument is not a structure file or a run directory, and explain how to use these."""
    path = Path(what)
    try:
        path.lstat()
    except OSError:  # no such file, or not a possible name of a file
        return
    if path.is_file():
        allowed = f"a formula or a TOML file; add --source seeds:{quote(what)} to start from your own structures"
        raise InputError("formula", what, allowed)
    if path.is_dir() and not _is_formula(what):
        allowed = f"a formula or a TOML file, not a folder; run hybridcsp resume {quote(what)} to continue a search"
        raise InputError("formula", what, allowed)


def _is_formula(text: str) -> bool:
    from hybridcsp.core.problem import Problem

    try:
        return bool(Problem(text, max_atoms=10**6).composition)
    except InputError:
        return False


def _with_templates(raw: Mapping[str, Any], templates: Path) -> list[str]:
    """Return the names of the sources, with the path of the templates added to prototypes."""
    from hybridcsp import config

    default = config.model_of(raw).model_fields["search"].default.sources
    sources = list(raw.get("search", {}).get("sources", default))
    if "prototypes" not in sources:
        reason = "it is allowed only with the source prototypes (--source prototypes)"
        raise InputError("--templates", templates, reason=reason)
    return [f"prototypes:{templates}" if source == "prototypes" else source for source in sources]
