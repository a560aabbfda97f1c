"""Format of CrySPY: results in ``data/opt_POSCARS`` with ``data/cryspy_rslt``, and seeds in a pickle for its start.

CrySPY reads initial structures only from the pickle ``data/pkl_data/init_struc_data.pkl``. It is written here but never
read, since reading a pickle can run code.
"""

from __future__ import annotations

import configparser
import pickle
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from ase import Atoms

from hybridcsp.errors import InputError
from hybridcsp.io.element_symbols import by_electronegativity, group_by_element
from hybridcsp.io.formats.base import Generational, Record, SeedSettings
from hybridcsp.io.frames import ReadFailure
from hybridcsp.io.poscar import Block, read_poscars, write_poscar
from hybridcsp.io.text_files import KeyedStream, Lines, finite, parse_count, parse_float, yields_failures
from hybridcsp.structure.conversion import to_pymatgen
from hybridcsp.utils.files import atomic_write, make_folder

_Row = Mapping[str, str]


class Cryspy(Generational):
    """The files of CrySPY."""

    name = "cryspy"

    def recognises(self, path: Path) -> bool:
        """Return whether this is a folder that CrySPY ran in, its data folder, or a file of its POSCARs."""
        if path.is_file():
            return path.name in ("opt_POSCARS", "init_POSCARS")
        return _data(path) is not None

    def read(self, path: Path) -> Iterator[Record | ReadFailure]:
        """Yield relaxed structures in the order in which they were relaxed, then failed ones, then waiting ones."""
        if path.is_file():
            yield from _poscars_only(path)
            return
        data = _data(path)
        if data is None:
            return
        if not any((data / name).is_file() for name in ("opt_POSCARS", "cryspy_rslt")):
            yield from _poscars_only(data / "init_POSCARS")
            return
        yield from _read(data)

    def write(self, records: Iterable[Record], path: Path, settings: SeedSettings) -> str:
        """Write ``data/pkl_data/init_struc_data.pkl``, and the same structures as ``data/init_POSCARS``."""
        setup = _setup(path)
        elements = settings.elements or self.elements(path)
        data = path / "data"
        if (path / "cryspy.stat").exists():
            raise InputError(
                "output", path, "a folder where CrySPY has not been started; it reads seeds only at its start"
            )
        structures = {}
        contents: Counter[str] = Counter()
        make_folder(data / "pkl_data", key="output")
        with atomic_write(data / "init_POSCARS") as stream:
            for number, record in enumerate(records):
                elements = elements or tuple(by_electronegativity(set(record.atoms.symbols)))
                _, counts, rows = group_by_element(record.atoms, elements)
                contents[" ".join(map(str, counts))] += 1
                structures[number] = to_pymatgen(record.atoms[rows])
                stream.write(write_poscar(record.atoms, f"ID_{number}", elements))
            if not structures:
                raise InputError("structures", 0, reason="there is no structure to write")
            if "nat" in setup and set(contents) != {nat := " ".join(setup["nat"].split())}:
                found = ", ".join(f"{n} of {one}" for one, n in contents.items())
                raise InputError(
                    "structures", found, f"the contents nat = {nat} of {' '.join(elements)}, as cryspy.in says"
                )
        target = data / "pkl_data" / "init_struc_data.pkl"
        with atomic_write(target, "wb") as binary:
            pickle.dump(structures, binary)
        n = len(structures)
        return (
            f"{n} structures in {target}. In cryspy.in: [option] load_struc_flag = True; [EA] n_pop, or [basic] "
            f"tot_struc with other algorithms, at least {n} (CrySPY 1.5 adds random structures up to that number, "
            f"older ones want {n}); [structure] atype = {' '.join(elements)}, nat = {' or '.join(contents)}"
            f"{' (more than one composition: algo = EA-vc only)' if len(contents) > 1 else ''}."
        )

    def elements(self, path: Path) -> tuple[str, ...]:
        """Return the elements in ``atype`` of the input file."""
        return tuple(_setup(path).get("atype", "").split())

    def finished_generations(self, path: Path) -> int:
        """Return the generation in cryspy.stat if none of its structures wait, or else the one before."""
        stat = _ini(path / "cryspy.stat", "status")
        generation = parse_count(stat.get("generation"))
        if not generation:
            return 0
        idle = not stat.get("id_queueing") and not stat.get("id_running")
        return generation - (0 if idle else 1)


def _data(path: Path) -> Path | None:
    for folder in (path, path / "data"):
        if (folder / "opt_POSCARS").is_file() or (folder / "init_POSCARS").is_file():
            return folder
    return None


@yields_failures
def _read(data: Path) -> Iterator[Record | ReadFailure]:
    setup = _setup(data.parent)
    calculator = setup.get("calc_code", "")
    results = KeyedStream(_rows(data / "cryspy_rslt", "Spg_num"))
    starts = KeyedStream(_initial(data / "init_POSCARS"))
    origins = KeyedStream(_rows(data / "ea_origin", "Operation", index="Struc_ID"))
    relaxed = data / "opt_POSCARS"
    for block in read_poscars(relaxed) if relaxed.is_file() else ():
        if isinstance(block, ReadFailure):
            yield block
            continue
        number = _id(block)
        row, origin = results.pop(number) or {}, origins.pop(number) or {}
        per_atom = _float(row.get("E_eV_atom"))
        yield Record(
            atoms=block.atoms,
            energy=None if per_atom is None else per_atom * len(block.atoms),
            id=number,
            origin=origin.get("Operation", ""),
            generation=_generation(row),
            calculator=calculator,
            start=starts.pop(number),
            converged=row.get("Opt") != "not_yet",
            file=relaxed,
            line=block.line,
        )
        for lookup in (results, starts, origins):
            yield from lookup.new_failures()
    for number, row in results.rest():
        start = starts.pop(number)
        if _float(row.get("E_eV_atom")) is None and start is not None:
            yield Record(
                atoms=start,
                id=number,
                origin=(origins.pop(number) or {}).get("Operation", ""),
                generation=_generation(row),
                calculator=calculator,
                failure="no energy in cryspy_rslt",
                file=data / "cryspy_rslt",
            )
    for number, start in starts.rest():
        yield Record(atoms=start, id=number, file=data / "init_POSCARS")
    for lookup in (results, starts, origins):
        yield from lookup.new_failures()


@yields_failures
def _poscars_only(file: Path) -> Iterator[Record | ReadFailure]:
    for block in read_poscars(file):
        if isinstance(block, ReadFailure):
            yield block
        else:
            yield Record(atoms=block.atoms, id=_id(block), file=file, line=block.line)


def _id(block: Block) -> str:
    return block.title.removeprefix("ID_").strip()


@yields_failures
def _initial(file: Path) -> Iterator[tuple[str, Atoms] | ReadFailure]:
    for block in read_poscars(file) if file.is_file() else ():
        yield block if isinstance(block, ReadFailure) else (_id(block), block.atoms)


@yields_failures
def _rows(file: Path, heading: str, index: str = "") -> Iterator[tuple[str, _Row] | ReadFailure]:
    """Yield the rows of a table printed by pandas, keyed by the index of the table or by a column."""
    if not file.is_file():
        return
    names: list[str] = []
    with Lines(file) as lines:
        while head := lines.peek(1):
            tokens = head[0].split()
            if heading in tokens and (not index or index in tokens):
                names = tokens if index else ["", *tokens]
            elif tokens and names:
                # The last column, the parents, may contain spaces: "(3, 7)".
                if len(tokens) < len(names):
                    yield lines.failure(f"a row of {len(tokens)} columns, where {len(names)} were expected")
                else:
                    row = dict(zip(names, tokens, strict=False))
                    yield row[index], row
            lines.skip(1)


def _generation(row: _Row) -> int | None:
    return parse_count(row.get("Gen"))


def _float(text: str | None) -> float | None:
    return None if text is None else finite(parse_float(text))


def _setup(folder: Path) -> dict[str, str]:
    return _ini(folder / "cryspy.in", "basic") | _ini(folder / "cryspy.in", "structure")


def _ini(file: Path, section: str) -> dict[str, str]:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read(file, encoding="utf-8")
        return dict(parser[section]) if section in parser else {}
    except (configparser.Error, UnicodeDecodeError):
        return {}
