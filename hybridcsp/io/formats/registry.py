"""Registry of formats, recognition of files, and writing of seeds by the name of the format."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ase import Atoms

from hybridcsp.core.registry import Entry, Registry
from hybridcsp.errors import InputError
from hybridcsp.io.formats.base import Format, Record, SeedSettings

FORMATS = Registry(
    "format",
    (
        Entry(
            name="uspex",
            target="hybridcsp.io.formats.uspex:Uspex",
            summary="USPEX: Seeds/POSCARS_<generation>; results1/gatheredPOSCARS with Individuals",
        ),
        Entry(
            name="calypso",
            target="hybridcsp.io.formats.calypso:Calypso",
            summary="CALYPSO: numbered POSCARs of split mode; results/pso_ini_* and pso_opt_*",
        ),
        Entry(
            name="airss",
            target="hybridcsp.io.formats.airss:Airss",
            summary="AIRSS: .res files, one or many structures each",
        ),
        Entry(
            name="xtalopt",
            target="hybridcsp.io.formats.xtalopt:XtalOpt",
            summary="XtalOpt: seed list with POSCARs; structure.state files",
        ),
        Entry(
            name="cryspy",
            target="hybridcsp.io.formats.cryspy:Cryspy",
            summary="CrySPY: init_POSCARS and init_struc_data.pkl; data/opt_POSCARS with its results table",
        ),
        Entry(
            name="plain",
            target="hybridcsp.io.formats.plain:Plain",
            summary="extended XYZ (written); CIF, POSCAR, extxyz, ASE database, pymatgen JSON (read)",
        ),
    ),
    methods=("name",),
    base="hybridcsp.io.formats.base:Format",
)


def load(name: str) -> Format:
    """Return a format by name.

    Raises
    ------
    UnknownNameError
        If no format has that name.
    RegistrationError
        If another package registers it and it cannot be used.
    """
    built: Format = FORMATS[name].build()
    return built


def recognise(path: Path) -> Format:
    """Return the format of a file or folder.

    Raises
    ------
    InputError
        If the path does not exist, is a run directory of hybridcsp, or has no known format.
    """
    _check_is_foreign(path)
    for name in FORMATS.entries():
        found = load(name)
        if found.recognises(path):
            return found
    known = ", ".join(FORMATS.entries())
    raise InputError(
        "path", path, f"a folder of a known code or of structure files; name the format with --format ({known})"
    )


def check_folder(path: Path, code: Format) -> None:
    """Check that a file or folder may hold results of a code, now or later.

    Parameters
    ----------
    path
        The file or folder; one without any results passes.
    code
        Format of the code that the user named.

    Raises
    ------
    InputError
        If the path does not exist, is a run directory of hybridcsp, or holds results of another code.
    """
    _check_is_foreign(path)
    if code.name == "plain" or code.recognises(path):
        return
    other = results_of(path)
    if other is not None:
        raise InputError("path", path, reason=f"it holds results of {other.name} and not of {code.name}")


def _check_is_foreign(path: Path) -> None:
    if not path.exists():
        raise InputError("path", path, reason="there is no such file or folder")
    if (path / "search.db").exists():
        reason = f"it is a run directory of hybridcsp; its minima are in {path / 'minima.extxyz'}"
        raise InputError("path", path, reason=reason)


def results_of(path: Path) -> Format | None:
    """Return the format of the search code whose results are at a path; ``None`` for plain structure files."""
    for name in FORMATS.entries():
        if (found := load(name)).recognises(path):
            # Plain files are the last built-in format, so formats of other packages are loaded only if none matches.
            return None if name == "plain" else found
    return None


def write(
    structures: Iterable[Record | Atoms], path: Path, format: str, *, settings: SeedSettings | None = None
) -> str:
    """Write structures as seeds for a code.

    Parameters
    ----------
    structures
        Records or ``Atoms``.
    path
        The folder that the code runs in; a file for "plain".
    format
        A name in :data:`FORMATS`.
    settings
        The order of elements, and the generation to seed.

    Returns
    -------
    str
        A message about what was written, and about settings that the code's own input needs.

    Raises
    ------
    InputError
        If the format is unknown, there is no structure, or the files cannot be written.
    """
    records = (item if isinstance(item, Record) else Record(atoms=item) for item in structures)
    try:
        return load(format).write(records, path, settings or SeedSettings())
    except OSError as error:
        raise InputError("output", path, reason=f"it cannot be written ({error.strerror})") from error
