"""Define the options that set keys of the configuration: names, help texts, panels and readers."""

from __future__ import annotations

from dataclasses import dataclass

from hybridcsp.cli.values import (
    Reader,
    all_texts,
    cell_parameters,
    comma_separated,
    formula_units,
    last_text,
    spacegroup_numbers,
    span,
    table,
)

#: Panels of ``--help``.
PROBLEM = "Problem"
SEARCH = "Search options"
RELAXATION = "Relaxations"
FOLLOW_UP = "Follow-ups with other calculators"
OBJECTIVES = "Several objectives"
STOPPING = "Stopping criteria"
OUTPUT = "Output"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """An option and the key of the configuration that it sets.

    Attributes
    ----------
    flag, key
        The option, such as ``--workers``, and the key with its table, such as ``search.workers``.
    metavar, help, panel
        Placeholder, description and panel in ``--help``.
    read
        Function that returns the value of the key, given the option and the texts after it. By default the last text,
        which the configuration reads.
    many
        Whether the option may be repeated.
    switch
        Whether the option has no value; it sets the key to true.
    unset
        Description of the default if the key has none in the configuration.
    default
        Description of the default that replaces the default of the configuration.
    """

    flag: str
    key: str
    metavar: str
    help: str
    panel: str
    read: Reader = last_text
    many: bool = False
    switch: bool = False
    unset: str = ""
    default: str = ""

    @property
    def name(self) -> str:
        """The name of the parameter of a command."""
        return self.flag.removeprefix("--").replace("-", "_")


#: All options that set keys of the configuration, in the order of ``--help``.
SETTINGS = (
    Setting(
        flag="--formula-units",
        key="problem.formula_units",
        metavar="N|LOW-HIGH",
        help="Number of formula units in the primitive cell, such as 2 or 1-4.",
        panel=PROBLEM,
        read=formula_units,
    ),
    Setting(
        flag="--max-atoms",
        key="problem.max_atoms",
        metavar="N",
        help="Largest number of atoms in the primitive cell; in a chemical system 12 if not given.",
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
        help="External pressure in GPa, or with a unit: 500kbar.",
        panel=PROBLEM,
    ),
    Setting(
        flag="--spacegroup",
        key="problem.spacegroups",
        metavar="NUMBER",
        help="Space groups of the proposed structures: 136, 136,141 or 195-230. Repeatable.",
        panel=PROBLEM,
        read=spacegroup_numbers,
        many=True,
        unset="all",
    ),
    Setting(
        flag="--compositions",
        key="problem.compositions",
        metavar="FORMULA,…",
        help="Compositions of a chemical system to search, such as V2O5,VO2; the elements always belong to them.",
        panel=PROBLEM,
        read=comma_separated,
        many=True,
        unset="all of the grid",
    ),
    Setting(
        flag="--composition-grid",
        key="problem.composition_grid",
        metavar="N",
        help="All compositions of a chemical system with at most N atoms in the formula unit.",
        panel=PROBLEM,
        unset="10 for two elements, 8 for three, 6 for four",
    ),
    Setting(
        flag="--charge-neutral",
        key="problem.charge_neutral",
        metavar="",
        help="Leave out compositions of a chemical system whose charges cannot cancel.",
        panel=PROBLEM,
        switch=True,
    ),
    Setting(
        flag="--reference",
        key="search.references",
        metavar="FILE",
        help="File or folder of known phases of a chemical system, relaxed first and part of the hull. Repeatable.",
        panel=PROBLEM,
        read=all_texts,
        many=True,
        unset="none",
    ),
    Setting(
        flag="--volume-per-atom",
        key="problem.volume_per_atom",
        metavar="LOW-HIGH",
        help="Bounds of the volume of proposed structures in Å³/atom, such as 9-14.",
        panel=PROBLEM,
        read=span("Å^3"),
        unset="0.4 to 2.5 times the expected volume",
    ),
    Setting(
        flag="--min-distance",
        key="problem.min_distances",
        metavar="A-B=Å",
        help="Minimum distance between two elements in Å, such as Ti-O=1.7. Repeatable.",
        panel=PROBLEM,
        read=table("Å", "Ti-O=1.7"),
        many=True,
        unset="from --distance-fraction",
    ),
    Setting(
        flag="--distance-fraction",
        key="problem.distance_fraction",
        metavar="X",
        help="Minimum distance between all other elements, as a fraction of the sum of their covalent radii.",
        panel=PROBLEM,
    ),
    Setting(
        flag="--cell",
        key="problem.cell",
        metavar="A,B,C,α,β,γ",
        help="Fixed cell in Å and degrees, which is not relaxed.",
        panel=PROBLEM,
        read=cell_parameters,
        unset="variable",
    ),
    Setting(
        flag="--lengths",
        key="problem.length_bounds",
        metavar="LOW-HIGH",
        help="Bounds of the cell lengths of proposed structures (reduced cell) in Å.",
        panel=PROBLEM,
        read=span("Å"),
        unset="none",
    ),
    Setting(
        flag="--angles",
        key="problem.angle_bounds",
        metavar="LOW-HIGH",
        help="Bounds of the cell angles of proposed structures (reduced cell) in degrees.",
        panel=PROBLEM,
        read=span("degrees"),
        unset="none",
    ),
    Setting(
        flag="--magmom",
        key="problem.initial_magmoms",
        metavar="EL=μ_B",
        help="Initial magnetic moment of an element in μ_B, such as Fe=5. Repeatable.",
        panel=PROBLEM,
        read=table("μ_B", "Fe=5"),
        many=True,
        unset="none",
    ),
    Setting(
        flag="--charge",
        key="problem.initial_charges",
        metavar="EL=E",
        help="Initial charge of an element in e, such as Ti=4. Repeatable.",
        panel=PROBLEM,
        read=table("e", "Ti=4"),
        many=True,
        unset="none",
    ),
    Setting(
        flag="--calculator",
        key="search.calculator",
        metavar="NAME",
        help="Calculator: a name (see hybridcsp calculators), sevennet:l3i5, mace:PATH_OR_NAME, module:factory "
        "for any other ASE calculator, or a calculator file such as vasp.toml.",
        panel=SEARCH,
    ),
    Setting(
        flag="--python",
        key="search.python",
        metavar="PATH",
        help="Python interpreter of another environment, in which the calculator is built.",
        panel=SEARCH,
        unset="that of the calculator's environment, or of hybridcsp",
    ),
    Setting(
        flag="--device",
        key="search.device",
        metavar="NAME",
        help="Device on which the calculator computes, such as cuda.",
        panel=SEARCH,
        unset="the calculator's own",
    ),
    Setting(
        flag="--precision",
        key="search.precision",
        metavar="NAME",
        help="Precision in which the calculator computes: float32 or float64.",
        panel=SEARCH,
        unset="the calculator's own",
    ),
    Setting(
        flag="--source",
        key="search.sources",
        metavar="NAME",
        help="Source of candidates (see hybridcsp sources), with options after a colon: seeds:PATH, "
        "evolution:heredity,strain. Repeatable.",
        panel=SEARCH,
        read=all_texts,
        many=True,
    ),
    Setting(
        flag="--allocation",
        key="search.allocation",
        metavar="NAME",
        help="Allocation of relaxations to sources: earnings (by expected success per force call) or equal.",
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
        help="Evaluate N samples of a generator per job and relax the most promising.",
        panel=SEARCH,
    ),
    Setting(
        flag="--retrain",
        key="retraining.new_minima",
        metavar="N",
        help="Retrain the networks of generators after N new minima.",
        panel=SEARCH,
        unset="20 for generators that begin untrained, never for others",
    ),
    Setting(
        flag="--then",
        key="then.calculators",
        metavar="NAME",
        help="Relax the best minima again with this calculator, whose energies then decide the ranking. Repeatable: "
        "each relaxes the best by the one before. A calculator file (NAME.toml) gives it an interpreter of its own.",
        panel=FOLLOW_UP,
        read=all_texts,
        many=True,
        unset="none",
    ),
    Setting(
        flag="--then-best",
        key="then.best",
        metavar="N",
        help="Number of best minima that are relaxed with each of these calculators; of similar ones only the lowest.",
        panel=FOLLOW_UP,
    ),
    Setting(
        flag="--then-window",
        key="then.window",
        metavar="EV/ATOM",
        help="Energy above the best minimum in eV/atom within which all further minima are relaxed as well.",
        panel=FOLLOW_UP,
    ),
    Setting(
        flag="--then-every",
        key="then.every",
        metavar="N",
        help="Relax the best minima with these calculators after every N relaxations; 0: only after the search.",
        panel=FOLLOW_UP,
    ),
    Setting(
        flag="--then-counts",
        key="then.counts",
        metavar="",
        help="Let stopping criteria and the success of sources count the minima of the last of these calculators.",
        panel=FOLLOW_UP,
        switch=True,
    ),
    Setting(
        flag="--objective",
        key="search.objectives",
        metavar="NAME:GOAL",
        help="Objective beside a low enthalpy (see hybridcsp objectives), or a function of Atoms as module:function or "
        "file.py:function; the goal is min, max, a value, or report: density:max, my.py:gap:1.4. Repeatable.",
        panel=OBJECTIVES,
        read=all_texts,
        many=True,
        unset="none",
    ),
    Setting(
        flag="--where",
        key="search.where",
        metavar="CONDITION",
        help='Condition on minima, such as "density > 4 and height < 0.2" (height: eV/atom above the lowest). Others '
        "are recorded, but no parents of evolution, no lessons, and not on the Pareto front.",
        panel=OBJECTIVES,
        unset="none",
    ),
    Setting(
        flag="--fmax",
        key="relaxation.max_force",
        metavar="EV/Å",
        help="Convergence criterion: largest force in eV/Å.",
        panel=RELAXATION,
    ),
    Setting(
        flag="--smax",
        key="relaxation.max_stress_gpa",
        metavar="GPA",
        help="Convergence criterion: largest component of stress plus pressure in GPa.",
        panel=RELAXATION,
    ),
    Setting(
        flag="--max-steps",
        key="limits.force_calls",
        metavar="N",
        help="Largest number of force calls of one relaxation.",
        panel=RELAXATION,
    ),
    Setting(
        flag="--time-limit",
        key="limits.seconds",
        metavar="SECONDS",
        help="Time limit of one relaxation in seconds, or with a unit: 10min.",
        panel=RELAXATION,
    ),
    Setting(
        flag="--memory-limit",
        key="limits.memory",
        metavar="BYTES",
        help="Memory limit of a worker process in bytes, or with a unit: 4GiB.",
        panel=RELAXATION,
    ),
    Setting(
        flag="--relaxations",
        key="budget.relaxations",
        metavar="N",
        help="Stop after N relaxations, failures included.",
        panel=STOPPING,
        unset="none",
    ),
    Setting(
        flag="--force-calls",
        key="budget.force_calls",
        metavar="N",
        help="Stop after N force calls in all relaxations together.",
        panel=STOPPING,
        unset="no limit",
    ),
    Setting(
        flag="--hours",
        key="budget.hours",
        metavar="HOURS",
        help="Stop after this time in hours, or with a unit: 30min.",
        panel=STOPPING,
        unset="no limit",
    ),
    Setting(
        flag="--stop-after-unchanged",
        key="budget.stop_after_unchanged",
        metavar="N",
        help="Stop after N successive relaxations that did not lower the best enthalpy by 1 meV/atom.",
        panel=STOPPING,
        unset="no limit",
    ),
    Setting(
        flag="--stop-at",
        key="budget.stop_at",
        metavar="FILE|EV/ATOM",
        help="Stop when a minimum matches the structure in FILE, or reaches this enthalpy in eV/atom.",
        panel=STOPPING,
        unset="none",
    ),
    Setting(
        flag="--stop-after-failures",
        key="budget.stop_after_failures",
        metavar="N",
        help="Stop after N successive failures for the same reason before the first success; 0 disables this check.",
        panel=STOPPING,
    ),
    Setting(
        flag="--refine",
        key="budget.refine",
        metavar="N",
        help="Number of best minima to refine after the search.",
        panel=STOPPING,
    ),
    Setting(
        flag="--directory",
        key="search.directory",
        metavar="PATH",
        help="Run directory.",
        panel=OUTPUT,
        unset="the formula",
    ),
)

#: The settings by option.
BY_FLAG = {setting.flag: setting for setting in SETTINGS}

#: The options by key.
OPTIONS = {setting.key: setting.flag for setting in SETTINGS}
