"""Symmetry operations of a CIF, listed there or given by the space group that it names.

The 530 settings of space groups and their operations are taken from spglib. A CIF that only names its group may leave
the origin, the axes or the cell open; these follow from the metric of the cell and from the sites.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from hybridcsp.io.cif.syntax import DataBlock
from hybridcsp.io.frames import StructureError

Floats = NDArray[np.float64]

_OPERATIONS = (
    "_space_group_symop_operation_xyz",
    "_symmetry_equiv_pos_as_xyz",
    "_space_group_symop_magn_operation_xyz",
)
_CENTRINGS = ("_space_group_symop_magn_centering_xyz",)
_HALL = ("_space_group_name_hall", "_symmetry_space_group_name_hall")
_HERMANN_MAUGUIN = (
    "_space_group_name_h-m_full",
    "_space_group_name_h-m_alt",
    "_symmetry_space_group_name_h-m",
    "_space_group_name_h-m",
    "_symmetry_space_group_name_h_m",
    "_symmetry_space_group_name_h-m_alt",
    "_space_group_magn_name_h-m",
)
_NUMBER = ("_space_group_it_number", "_symmetry_int_tables_number", "_symmetry_space_group_number")

#: Maximum change of the metric of the cell by an operation, relative to the product of two lengths.
_METRIC_TOLERANCE = 0.02

#: Translations of operations are rounded to multiples of 1/24 in space groups, or of 1/120 in some supercells, within
#: these tolerances.
_GRID = 120
_COARSE = 5  # 5/120 = 1/24
_COARSE_TOLERANCE, _FINE_TOLERANCE = 0.004, 0.001

_TERM = re.compile(r"([+-]?)(?:(\d+(?:\.\d*)?|\.\d+)(?:/(\d+(?:\.\d*)?))?)?(\*?[xyz])?")


@dataclass(frozen=True, eq=False, slots=True)
class Operations:
    """Operations on fractional coordinates: ``x' = rotations @ x + translations``.

    Attributes
    ----------
    name
        The name for error messages.
    rotations
        Rotations, shape ``(n, 3, 3)``.
    translations
        Translations from 0 to below 1, shape ``(n, 3)``.
    """

    name: str
    rotations: Floats
    translations: Floats

    def __len__(self) -> int:
        return len(self.rotations)

    def images(self, place: Floats) -> Floats:
        """Return the images of a fractional position, shape ``(n, 3)``."""
        return self.rotations @ place + self.translations

    def preserve(self, metric: Floats) -> bool:
        """Return whether the operations map a lattice with this metric tensor (Å²) onto itself."""
        lengths = np.sqrt(np.diag(metric))
        changed = np.einsum("nji,jk,nkl->nil", self.rotations, metric, self.rotations) - metric
        return bool((np.abs(changed) <= _METRIC_TOLERANCE * np.outer(lengths, lengths)).all())


IDENTITY = Operations("P 1", np.eye(3)[None], np.zeros((1, 3)))


def operations_of(block: DataBlock, metric: Floats) -> list[Operations]:
    """Return the possible symmetries of a data block.

    Parameters
    ----------
    block
        The data block.
    metric
        Metric tensor of its cell in Å², shape ``(3, 3)``.

    Returns
    -------
    list of Operations
        One element, or one for each origin if only a space group with several origins is named. The identity if the
        block states no symmetry.

    Raises
    ------
    StructureError
        If the operations are damaged, incomplete or not symmetries of the lattice, or the named group is unknown.
    """
    number = _number(block)
    symbol = block.value(*_HERMANN_MAUGUIN)
    listed = _listed(block)
    if listed is not None:
        if not listed.preserve(metric):
            raise StructureError(0, "the cell does not have the symmetry of the listed operations")
        _check_completeness(listed, _named(symbol, number))
        return [listed]
    hall = block.value(*_HALL)
    settings = _by_hall().get(_spaced(hall)) if hall else None
    settings = settings or _named(symbol, number)
    if settings is None:
        if symbol or hall or number:
            raise StructureError(
                0, f"the space group {symbol or hall or number} is unknown, and no operations are listed"
            )
        return [IDENTITY]
    return _fitting(settings, metric, symbol or hall or f"number {number}")


def unlisted(block: DataBlock, metric: Floats) -> list[Operations]:
    """Return the settings of a named group, allowed by the cell, whose operations are not listed but the identity.

    Programs that list all atoms of a cell write such files, and so do programs that have lost the operations.
    """
    listed = _listed(block)
    if listed is None or len(listed) > 1:
        return []
    settings = _named(block.value(*_HERMANN_MAUGUIN), _number(block)) or []
    return [group for group in map(_of_setting, settings) if len(group) > 1 and group.preserve(metric)]


def _number(block: DataBlock) -> int | None:
    text = block.value(*_NUMBER)
    if text is None:
        return None
    if not text.isdecimal() or len(text) > 3 or not 1 <= int(text) <= 230:
        raise StructureError(0, f"the space group number {text[:20]!r} is not a number from 1 to 230")
    return int(text)


def _listed(block: DataBlock) -> Operations | None:
    texts = [text for text in block.column(*_OPERATIONS) or [] if text not in ("?", ".", "")]
    if not texts:
        return None
    operations = [_parsed(text) for text in texts]
    centrings = [_parsed(text) for text in block.column(*_CENTRINGS) or ["x,y,z"]]
    found = {}
    for rotation, translation in operations:
        for _, centring in centrings:
            shift = _on_grid(translation + centring)
            found[(rotation.tobytes(), shift.tobytes())] = rotation, shift / _GRID
    rotations, translations = (np.array(part) for part in zip(*found.values(), strict=True))
    result = Operations(f"the {len(found)} listed operations", rotations, translations)
    if not _is_group(result):
        raise StructureError(
            0, f"the {len(found)} listed symmetry operations do not form a group; some are missing or damaged"
        )
    return result


def _parsed(text: str) -> tuple[Floats, Floats]:
    """Parse an operation such as ``-x+1/2, y, z``; a fourth part (time reversal) is ignored.

    pymatgen's ``SymmOp.from_xyz_str`` is not used, since it accepts damaged operations and takes a second to import.

    Raises
    ------
    StructureError
        If the text is not a symmetry operation of a lattice.
    """
    parts = re.sub(r"\s", "", text.lower()).split(",")
    if len(parts) not in (3, 4):
        raise StructureError(0, f"{text[:40]!r} is not a symmetry operation, such as -x+1/2,y,z")
    rotation, translation = np.zeros((3, 3)), np.zeros(3)
    for row, part in enumerate(parts[:3]):
        at = 0
        while at < len(part):
            term = _TERM.match(part, at)
            if term is None or term.end() == at or not (term[2] or term[4]) or (at and not term[1]):
                raise StructureError(0, f"{text[:40]!r} is not a symmetry operation, such as -x+1/2,y,z")
            value = float(term[1] + (term[2] or "1")) / (float(term[3] or 1) or math.nan)
            if term[4]:
                rotation[row, "xyz".index(term[4][-1])] += value
            else:
                translation[row] += value
            at = term.end()
    if not np.isfinite(translation).all():
        raise StructureError(0, f"{text[:40]!r} is not a symmetry operation, such as -x+1/2,y,z")
    if not (np.isin(rotation, (-1.0, 0.0, 1.0)).all() and round(abs(np.linalg.det(rotation)), 6) == 1):
        raise StructureError(0, f"{text[:40]!r} is not a symmetry operation of a lattice")
    return rotation, translation


def _on_grid(translation: Floats) -> Floats:
    """Round a translation to multiples of 1/120; return it in these units, from 0 to below 120."""
    fine = translation * _GRID
    coarse = np.rint(fine / _COARSE) * _COARSE
    shift = np.where(np.abs(fine - coarse) <= _COARSE_TOLERANCE * _GRID, coarse, np.rint(fine))
    if (np.abs(fine - shift)[shift != coarse] > _FINE_TOLERANCE * _GRID).any():
        raise StructureError(
            0, f"the translation {translation.tolist()} of a symmetry operation is not a simple fraction"
        )
    return np.asarray(shift % _GRID)


def _is_group(operations: Operations) -> bool:
    """Return whether all products of two operations are among the operations."""
    rotations = np.rint(operations.rotations).astype(int)
    shifts = np.rint(operations.translations * _GRID).astype(int)
    known = set(_codes(rotations, shifts).tolist())
    if len(known) > 192:  # more than any space group in its conventional cell: a supercell, which is not checked
        return True
    products = np.einsum("aij,bjk->abik", rotations, rotations).reshape(-1, 3, 3)
    moved = (np.einsum("aij,bj->abi", rotations, shifts) + shifts[:, None]).reshape(-1, 3)
    return known >= set(_codes(products, moved).tolist())


def _codes(rotations: NDArray[np.int_], shifts: NDArray[np.int_]) -> NDArray[np.int_]:
    """Return a number for each operation, shape ``(n,)``."""
    digits = (rotations.reshape(len(rotations), 9) + 2) @ (5 ** np.arange(9))
    return np.asarray(digits * _GRID**3 + (shifts % _GRID) @ (_GRID ** np.arange(3)), dtype=int)


def _check_completeness(listed: Operations, settings: list[int] | None) -> None:
    """Check that the listed operations are not only a part of the named group.

    Raises
    ------
    StructureError
        If operations are missing.
    """
    if settings is None or len(listed) == 1:
        return
    codes = _operation_codes(listed)
    for hall in settings:
        group = _of_setting(hall)
        if len(group) > len(listed) and codes < _operation_codes(group):
            raise StructureError(
                0, f"only {len(listed)} of the {len(group)} operations of the space group {group.name} are listed"
            )


def _operation_codes(operations: Operations) -> set[int]:
    shifts = np.rint(operations.translations * _GRID).astype(int)
    return set(_codes(np.rint(operations.rotations).astype(int), shifts).tolist())


def _named(symbol: str | None, number: int | None) -> list[int] | None:
    """Return the Hall numbers of settings with a symbol, or else with a number; ``None`` if unknown."""
    if symbol is not None:
        found = _by_symbol().get(_simplified(symbol))
        if found is not None:
            if number is not None and all(_types()[hall].number != number for hall in found):
                raise StructureError(
                    0, f"the space group symbol {symbol} and the number {number} belong to different groups"
                )
            return found
    return None if number is None else _by_number()[number]


def _fitting(settings: list[int], metric: Floats, name: str) -> list[Operations]:
    """Return the settings allowed by the cell: all origins for the most usual axes.

    Raises
    ------
    StructureError
        If the cell allows none.
    """
    fitting = [hall for hall in settings if _of_setting(hall).preserve(metric)]
    if not fitting:
        raise StructureError(0, f"the cell does not have the symmetry of the space group {name}")
    usual = min(_rank(hall) for hall in fitting)
    return [_of_setting(hall) for hall in fitting if _rank(hall) == usual]


def _rank(hall: int) -> tuple[int, str]:
    """Return a key that sorts settings by axes and cell, with the standard of International Tables first."""
    axes = re.sub(r"^[12](?=$|[a-z-])", "", _types()[hall].choice)  # without the choice of origin
    order = ["", "b", "b1", "H", "R", "c", "c1", "a", "a1"]
    return (order.index(axes), "") if axes in order else (len(order), axes)


@lru_cache(maxsize=64)
def _of_setting(hall: int) -> Operations:
    import spglib

    found = spglib.get_symmetry_from_database(hall)
    kind = _types()[hall]
    name = kind.international.split(" = ")[-1] + (f":{kind.choice}" if kind.choice else "")
    translations = np.rint(found["translations"] * _GRID) % _GRID / _GRID
    return Operations(name, found["rotations"].astype(float), translations)


@lru_cache(maxsize=1)
def _types() -> dict[int, _Type]:
    import spglib

    found = {}
    for hall in range(1, 531):
        kind = spglib.get_spacegroup_type(hall)
        found[hall] = _Type(kind.number, kind.international, kind.international_full, kind.hall_symbol, kind.choice)
    return found


@dataclass(frozen=True, slots=True)
class _Type:
    number: int
    international: str
    full: str
    hall: str
    choice: str


@lru_cache(maxsize=1)
def _by_hall() -> dict[str, list[int]]:
    return {_spaced(kind.hall): [hall] for hall, kind in _types().items()}


@lru_cache(maxsize=1)
def _by_number() -> dict[int, list[int]]:
    found = defaultdict(list)
    for hall, kind in _types().items():
        found[kind.number].append(hall)
    return found


@lru_cache(maxsize=1)
def _by_symbol() -> dict[str, list[int]]:
    """Return the Hall numbers of settings by all their symbols."""
    found: dict[str, list[int]] = {}
    for names in (_symbols, _older_symbols):
        added: dict[str, list[int]] = defaultdict(list)
        for hall, kind in _types().items():
            for name in names(kind):
                if _simplified(name) not in found and hall not in added[_simplified(name)]:
                    added[_simplified(name)].append(hall)
        found |= added
    return found


def _symbols(kind: _Type) -> Iterator[str]:
    """Yield the current short and full symbols, also with the choice of origin or axes."""
    *_, own = kind.international.split(" = ")
    plain = [kind.full, own]
    if 3 <= kind.number <= 15:  # monoclinic: P 1 21/c 1 is P 21/c for short
        plain.append(" ".join(part for part in own.split() if part != "1"))
    for name in plain:
        yield name
        if kind.choice:
            yield f"{name} :{kind.choice}"
        if kind.choice in ("H", "R"):
            yield f"{name} {kind.choice}"
        elif kind.choice[:1] in ("1", "2"):
            yield f"{name} :{kind.choice[0]}"
            yield f"{name} {'SZ'[int(kind.choice[0]) - 1]}"  # ICSD: origin at the highest symmetry, or at the centre


#: Symbols used until 1992 for groups with the glide plane e, for each setting in spglib's order.
_GLIDES = {
    39: ("Abm2", "Bma2", "B2cm", "C2mb", "Cm2a", "Ac2m"),
    41: ("Aba2", "Bba2", "B2cb", "C2cb", "Cc2a", "Ac2a"),
    64: ("Cmca", "Ccmb", "Abma", "Acam", "Bbcm", "Bmab"),
    67: ("Cmma", "Cmmb", "Abmm", "Acmm", "Bmcm", "Bmam"),
    68: ("Ccca", "Ccca", "Cccb", "Cccb", "Abaa", "Abaa", "Acaa", "Acaa", "Bbcb", "Bbcb", "Bbab", "Bbab"),
}


def _older_symbols(kind: _Type) -> Iterator[str]:
    if kind.number in _GLIDES:
        hall = _by_hall()[_spaced(kind.hall)][0]
        name = _GLIDES[kind.number][hall - _by_number()[kind.number][0]]
        yield name
        if kind.choice[:1] in ("1", "2"):
            yield f"{name} :{kind.choice[0]}"
    if kind.number >= 195:  # cubic: F d -3 m was written F d 3 m
        for name in _symbols(kind):
            if "-3" in name:
                yield name.replace("-3", "3")


def _simplified(symbol: str) -> str:
    # SHELX writes the index of a screw axis in parentheses: P2(1)/c.
    return re.sub(r"[\s_]", "", re.sub(r"\((\d)\)", r"\1", symbol)).casefold()


def _spaced(symbol: str) -> str:
    """Return a Hall symbol with single spaces, which matter there: P 32 is not P 3 2."""
    return " ".join(symbol.replace("_", " ").split()).casefold()
