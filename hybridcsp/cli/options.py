"""The options that stand for keys of a configuration, in one table: how each is called, read and shown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from hybridcsp.cli.app import parse_units
from hybridcsp.errors import InputError
from hybridcsp.utils.quantities import read_quantity

PROBLEM = "Problem"
SEARCH = "Search options"
RELAXATION = "Relaxations"
STOPPING = "Stopping criteria"

Read = Callable[[str, Sequence[str]], Any]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One option and the key of the configuration that it sets.

    Attributes
    ----------
    flag, key
        The option, and the key with its table.
    metavar, help, panel
        As ``--help`` shows them.
    read
        Returns the key's value from the flag and what was typed after it, each time it was given. By default that is
        the text itself, which the configuration reads.
    many
        Whether the option may be repeated.
    unset
        What holds where the key has no default value.
    default
        What to show as default instead of that of the configuration.
    """

    flag: str
    key: str
    metavar: str
    help: str
    panel: str
    read: Read = lambda _, texts: texts[-1]
    many: bool = False
    unset: str = ""
    default: str = ""

    @property
    def name(self) -> str:
        """The name of the parameter of a command."""
        return self.flag.removeprefix("--").replace("-", "_")


def _texts(flag: str, texts: Sequence[str]) -> list[str]:
    return list(texts)


def _span(unit: str) -> Read:
    """Read ``"9-14"``: two numbers with the smaller first."""

    def read(flag: str, texts: Sequence[str]) -> list[float]:
        low, dash, high = texts[-1].strip().partition("-")
        if not (low and dash and high):
            raise InputError(flag, texts[-1], f"two numbers in {unit}, joined by a dash: 9-14")
        return [read_quantity(flag, low, unit), read_quantity(flag, high, unit)]

    return read


def _each(unit: str, example: str) -> Read:
    """Read ``"Ti-O=1.7"``, several joined by commas or in several options, to a number for each name."""

    def read(flag: str, texts: Sequence[str]) -> dict[str, float]:
        found: dict[str, float] = {}
        for text in ",".join(texts).split(","):
            name, equals, value = (part.strip() for part in text.partition("="))
            if not (name and equals and value):
                raise InputError(flag, text, f"a name, = and a number in {unit}, such as {example}")
            if name in found:
                raise InputError(flag, text, f"{name} only once")
            found[name] = read_quantity(f"{flag} {name}", value, unit)
        return found

    return read


def _numbers(flag: str, texts: Sequence[str]) -> list[int]:
    """Read space group numbers: ``"136"``, ``"136,141"``, ``"195-230"``."""
    found: list[int] = []
    for text in ",".join(texts).split(","):
        low, dash, high = (part.strip() for part in text.partition("-"))
        if not low.isdigit() or (dash and not high.isdigit()):
            raise InputError(flag, text, "a space group number from 1 to 230, several as 136,141 or 195-230")
        first, last = int(low), int(high if dash else low)
        if not 1 <= first <= last <= 230:
            raise InputError(flag, text, "numbers from 1 to 230, the smaller first")
        found += range(first, last + 1)
    return sorted(set(found))


def _cell(flag: str, texts: Sequence[str]) -> list[float]:
    """Read ``"4.6,4.6,2.96,90,90,90"``: three lengths and three angles."""
    parts = texts[-1].replace(",", " ").split()
    if len(parts) != 6:
        raise InputError(flag, texts[-1], "six numbers: a,b,c in Å and alpha,beta,gamma in degrees")
    units = ["Å"] * 3 + ["degrees"] * 3
    return [read_quantity(flag, part, unit) for part, unit in zip(parts, units, strict=True)]


def _units(_: str, texts: Sequence[str]) -> list[int]:
    return parse_units(texts[-1])


SETTINGS = (
    Setting(
        flag="--formula-units",
        key="problem.formula_units",
        metavar="N|LOW-HIGH",
        help="Formula units in the primitive cell: 2, or 1-4.",
        panel=PROBLEM,
        read=_units,
    ),
    Setting(
        flag="--max-atoms",
        key="problem.max_atoms",
        metavar="N",
        help="Largest number of atoms in the primitive cell.",
        panel=PROBLEM,
    ),
    Setting(
        flag="--min-atoms",
        key="problem.min_atoms",
        metavar="N",
        help="Smallest number of atoms in the primitive cell.",
        panel=PROBLEM,
    ),
    Setting(
        flag="--pressure",
        key="problem.pressure_gpa",
        metavar="GPA",
        help="External pressure in GPa, or with its unit: 500kbar.",
        panel=PROBLEM,
    ),
    Setting(
        flag="--spacegroup",
        key="problem.spacegroups",
        metavar="NUMBER",
        help="Space groups that proposals may have: 136, 136,141 or 195-230; repeatable.",
        panel=PROBLEM,
        read=_numbers,
        many=True,
        unset="all",
    ),
    Setting(
        flag="--volume-per-atom",
        key="problem.volume_per_atom",
        metavar="LOW-HIGH",
        help="Bounds of a proposal's volume per atom in Å³: 9-14.",
        panel=PROBLEM,
        read=_span("Å^3"),
        unset="around the volume expected for the elements",
    ),
    Setting(
        flag="--min-distance",
        key="problem.min_distances",
        metavar="A-B=Å",
        help="Minimum distance of two elements in Å: Ti-O=1.7; repeatable.",
        panel=PROBLEM,
        read=_each("Å", "Ti-O=1.7"),
        many=True,
        unset="from --distance-fraction",
    ),
    Setting(
        flag="--distance-fraction",
        key="problem.distance_fraction",
        metavar="X",
        help="Minimum distance of the other pairs, as a fraction of their summed covalent radii.",
        panel=PROBLEM,
    ),
    Setting(
        flag="--cell",
        key="problem.cell",
        metavar="A,B,C,α,β,γ",
        help="A fixed cell, in Å and degrees, that is not relaxed.",
        panel=PROBLEM,
        read=_cell,
        unset="drawn and relaxed",
    ),
    Setting(
        flag="--lengths",
        key="problem.length_bounds",
        metavar="LOW-HIGH",
        help="Bounds of the cell lengths of a proposal's reduced cell in Å.",
        panel=PROBLEM,
        read=_span("Å"),
        unset="none",
    ),
    Setting(
        flag="--angles",
        key="problem.angle_bounds",
        metavar="LOW-HIGH",
        help="Bounds of its angles in degrees.",
        panel=PROBLEM,
        read=_span("degrees"),
        unset="none",
    ),
    Setting(
        flag="--magmom",
        key="problem.initial_magmoms",
        metavar="EL=μ_B",
        help="Initial magnetic moment of an element: Fe=5; repeatable.",
        panel=PROBLEM,
        read=_each("μ_B", "Fe=5"),
        many=True,
        unset="none",
    ),
    Setting(
        flag="--charge",
        key="problem.initial_charges",
        metavar="EL=E",
        help="Initial charge of an element: Ti=4; repeatable.",
        panel=PROBLEM,
        read=_each("e", "Ti=4"),
        many=True,
        unset="none",
    ),
    Setting(
        flag="--calculator",
        key="search.calculator",
        metavar="NAME",
        help="A name (hybridcsp calculators), mace:PATH_OR_NAME, or module:factory for any ASE calculator.",
        panel=SEARCH,
    ),
    Setting(
        flag="--source",
        key="search.sources",
        metavar="NAME",
        help="Where candidates come from (hybridcsp sources), some with options after a colon: seeds:PATH, "
        "evolution:heredity,strain; repeatable.",
        panel=SEARCH,
        read=_texts,
        many=True,
    ),
    Setting(
        flag="--allocation",
        key="search.allocation",
        metavar="NAME",
        help="How sources share the relaxations: earnings (by what each earns per force call) or equal.",
        panel=SEARCH,
    ),
    Setting(flag="--seed", key="search.seed", metavar="N", help="Random seed.", panel=SEARCH),
    Setting(
        flag="--workers",
        key="search.workers",
        metavar="N",
        help="Number of worker processes.",
        panel=SEARCH,
        unset="one per core",
    ),
    Setting(
        flag="--one-shot",
        key="search.one_shot",
        metavar="N",
        help="Evaluate N samples of a generator per job and relax the lowest in energy.",
        panel=SEARCH,
    ),
    Setting(
        flag="--retrain",
        key="retraining.new_minima",
        metavar="N",
        help="Retrain generators after N new minima; 0 never does.",
        panel=SEARCH,
    ),
    Setting(
        flag="--directory",
        key="search.directory",
        metavar="PATH",
        help="The run directory.",
        panel=SEARCH,
        unset="the formula",
    ),
    Setting(
        flag="--fmax",
        key="relaxation.max_force",
        metavar="EV/Å",
        help="A relaxation has converged when no force is larger.",
        panel=RELAXATION,
    ),
    Setting(
        flag="--smax",
        key="relaxation.max_stress_gpa",
        metavar="GPA",
        help="The same for the components of stress plus pressure.",
        panel=RELAXATION,
    ),
    Setting(
        flag="--max-steps",
        key="limits.force_calls",
        metavar="N",
        help="Most force calls of one relaxation.",
        panel=RELAXATION,
    ),
    Setting(
        flag="--time-limit",
        key="limits.seconds",
        metavar="SECONDS",
        help="Longest wall time of one relaxation in seconds, or with its unit: 10min.",
        panel=RELAXATION,
    ),
    Setting(
        flag="--memory-limit",
        key="limits.memory",
        metavar="BYTES",
        help="Most memory of a worker in bytes, or with its unit: 4GiB.",
        panel=RELAXATION,
    ),
    Setting(
        flag="--relaxations",
        key="budget.relaxations",
        metavar="N",
        help="Relaxations to start, failures included.",
        panel=STOPPING,
        unset="none",
    ),
    Setting(
        flag="--force-calls",
        key="budget.force_calls",
        metavar="N",
        help="Force calls of the whole search.",
        panel=STOPPING,
        unset="no limit",
    ),
    Setting(
        flag="--hours",
        key="budget.hours",
        metavar="HOURS",
        help="Wall time of this run in hours, or with its unit: 30min.",
        panel=STOPPING,
        unset="no limit",
    ),
    Setting(
        flag="--stop-after-unchanged",
        key="budget.stop_after_unchanged",
        metavar="N",
        help="Relaxations in a row that do not lower the best enthalpy by 1 meV/atom.",
        panel=STOPPING,
        unset="no limit",
    ),
    Setting(
        flag="--stop-at",
        key="budget.stop_at",
        metavar="FILE|EV/ATOM",
        help="A structure file that a minimum matches, or an enthalpy in eV/atom that it reaches.",
        panel=STOPPING,
        unset="none",
    ),
    Setting(
        flag="--stop-after-failures",
        key="budget.stop_after_failures",
        metavar="N",
        help="Failures in a row for one reason before any relaxation has succeeded; 0: never.",
        panel=STOPPING,
    ),
    Setting(
        flag="--refine",
        key="budget.refine",
        metavar="N",
        help="Best minima to relax further at the end.",
        panel=STOPPING,
    ),
)

#: By flag.
BY_FLAG = {setting.flag: setting for setting in SETTINGS}

#: The option of each key that has one.
OPTIONS = {setting.key: setting.flag for setting in SETTINGS}
