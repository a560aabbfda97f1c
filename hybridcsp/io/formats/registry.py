"""Names of the formats of other codes, and reading and writing by name."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ase import Atoms

from hybridcsp.core.registry import Entry, Registry
from hybridcsp.errors import InputError
from hybridcsp.io.formats.base import Format, Record, Settings

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
    methods=("name", "recognises", "read", "write"),
)


def load(name: str) -> Format:
    """Return a format by name.

    Raises
    ------
    UnknownNameError
        If there is none of that name.
    RegistrationError
        If another package registers it, and wrongly.
    """
    built: Format = FORMATS[name].build()
    return built


def recognise(path: Path) -> Format:
    """Return the format of a file or folder.

    Raises
    ------
    InputError
        If there is nothing there, or it is of no known format.
    """
    if not path.exists():
        raise InputError("path", str(path), "no such file or folder")
    if (path / "search.db").exists():
        raise InputError("path", str(path), f"results of another code; this is a search of ours: {path}/minima.extxyz")
    for name in FORMATS.entries():
        found = load(name)
        if found.recognises(path):
            return found
    known = ", ".join(FORMATS.entries())
    raise InputError(
        "path", str(path), f"results of a known code, or structure files; say which with --format: {known}"
    )


def results_of(path: Path) -> Format | None:
    """Return the search code whose results are at a path, ``None`` where these are structure files of any kind."""
    for name in FORMATS.entries():
        if (found := load(name)).recognises(path):
            # Ours come first, plain files last of these: other packages are only loaded for what is none of them.
            return None if name == "plain" else found
    return None


def write(structures: Iterable[Record | Atoms], path: Path, format: str, *, settings: Settings | None = None) -> str:
    """Write structures as a code's seeds.

    Parameters
    ----------
    structures
        Records, or bare structures.
    path
        The folder that the code runs in; for "plain" a file.
    format
        A name in :data:`FORMATS`.
    settings
        See :class:`Settings`.

    Returns
    -------
    str
        What was written, and what to set in the code's own input.

    Raises
    ------
    InputError
        If there is no such format, nothing to write, or it cannot be written there.
    """
    records = (item if isinstance(item, Record) else Record(atoms=item) for item in structures)
    try:
        return load(format).write(records, path, settings or Settings())
    except OSError as error:
        raise InputError("output", str(path), f"a place that can be written ({error.strerror})") from error
