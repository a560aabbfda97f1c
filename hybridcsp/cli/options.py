"""Define the options that set keys of the configuration: names, help texts, panels and readers."""

from __future__ import annotations

from hybridcsp.cli.problem_options import PROBLEM_SETTINGS
from hybridcsp.cli.setting import FOLLOW_UP, OBJECTIVES, OUTPUT, POWDER, RELAXATION, SEARCH, STOPPING, Setting
from hybridcsp.cli.values import all_texts

#: All options that set keys of the configuration, in the order of ``--help``.
SETTINGS = (
    *PROBLEM_SETTINGS,
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
        flag="--executor",
        key="search.executor",
        metavar="NAME",
        help="Where relaxations run (see hybridcsp executors): local, dask:ADDRESS, dask-jobqueue:FILE, parsl:FILE, "
        "executorlib:FILE or mpi. On a cluster, --workers limits the relaxations at once.",
        panel=SEARCH,
    ),
    Setting(
        flag="--batch",
        key="search.batch",
        metavar="N",
        help="Number of candidates that each worker relaxes at the same time with a batch calculator (chgnet, mace), "
        "or auto.",
        panel=SEARCH,
        unset="one",
    ),
    Setting(
        flag="--one-shot",
        key="search.one_shot",
        metavar="N",
        help="Evaluate N samples of a generator per job and relax the most promising.",
        panel=SEARCH,
    ),
    Setting(
        flag="--keep-evaluations",
        key="search.keep_evaluations",
        metavar="",
        help="Keep all evaluated structures with energies, forces and stresses, to train potentials on them.",
        panel=SEARCH,
        switch=True,
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
        flag="--xrd",
        key="xrd.pattern",
        metavar="FILE",
        help="Measured powder pattern (.xy, .xye, .csv: angle and intensity) to which minima shall be similar; the "
        "similarity from 0 to 1 is an objective named xrd.",
        panel=POWDER,
        unset="none",
    ),
    Setting(
        flag="--wavelength",
        key="xrd.wavelength",
        metavar="NAME|Å",
        help="Wavelength of the pattern: CuKa, CuKa1, MoKa, CoKa, ... or a number in Å.",
        panel=POWDER,
    ),
    Setting(
        flag="--xrd-axis",
        key="xrd.axis",
        metavar="NAME",
        help="First column of the pattern: two-theta (degrees), q (Å⁻¹) or d (Å).",
        panel=POWDER,
    ),
    Setting(
        flag="--xrd-at-least",
        key="xrd.at_least",
        metavar="X",
        help="Rank by enthalpy alone, and make only minima of at least this similarity parents of evolution and "
        "lessons: a condition in place of an objective.",
        panel=POWDER,
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
