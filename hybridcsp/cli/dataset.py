"""Provide ``hybridcsp dataset`` with the commands ``substitute`` and ``augment``, which make crystals from crystals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hybridcsp.cli.app import App, CommandGroup, app
from hybridcsp.cli.console import errors
from hybridcsp.cli.generators import SEED, check_exists
from hybridcsp.cli.progress import busy, counter
from hybridcsp.cli.values import read_fraction, read_number
from hybridcsp.errors import CommandLineError, InputError
from hybridcsp.utils.files import check_writable, is_stream, make_folder

if TYPE_CHECKING:
    from hybridcsp.datasets import Crystals
    from hybridcsp.prototypes import Template

dataset_app = App(
    cls=CommandGroup,
    no_args_is_help=True,
    help="Make, relax, convert and describe data sets for training.\n\n"
    "A data set is an extended XYZ file with the properties of each crystal, which ase gui opens, and a card beside it "
    "(NAME.card.json and NAME.card.txt), which states where the crystals come from.",
    epilog="Examples:\n\n"
    "  hybridcsp dataset substitute V-O --output vo.extxyz\n\n"
    "  hybridcsp dataset relax vo.extxyz --output vo_relaxed\n\n"
    "  hybridcsp dataset augment vo_relaxed --per-composition 500 --output vo_500.extxyz\n\n"
    "  hybridcsp dataset card vo_500.extxyz",
)
app.add_typer(dataset_app, name="dataset")

CRYSTALS = Annotated[
    list[Path],
    typer.Argument(
        metavar="PATH",
        help="Structure files (.extxyz, .csv with a column of CIFs, .json, .cif, ...), folders of them, or folders of "
        "hybridcsp dataset relax.",
    ),
]
OUTPUT = Annotated[
    Path, typer.Option("--output", metavar="FILE", help="File to write, with the ending .extxyz or .extxyz.gz.")
]
HELD_IN = Annotated[
    bool, typer.Option("--held-in", help="Leave out the tenth of all formulas that trainings hold out.")
]

# Options whose names are not those of their parameters.
_OPTIONS = {"target": "TARGET", "operation": "--operation", "operations": "--operation"}

#: Number of unreadable structures that are named.
_SHOWN = 5


@dataset_app.command(
    epilog="Examples:\n\n"
    "  hybridcsp dataset substitute V-O --output vo.extxyz     all AFLOW prototypes of two elements\n\n"
    "  hybridcsp dataset substitute Mg-Mn-O --library mp20.extxyz --count 2000 --max-edge 10 --output mgmno.extxyz\n\n"
    "  hybridcsp dataset substitute Bi-Se --subsystems --library aflow --library my_cifs/ --output bise.extxyz\n\n"
    "  hybridcsp dataset substitute any --library mp20.extxyz --count 20000 --held-in --new-formulas "
    "--output new.extxyz",
)
def substitute(
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="Chemical system (V-O), formula (TiO2), or any: elements are then replaced by similar ones at random.",
        ),
    ],
    output: OUTPUT,
    library: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Templates: aflow (the AFLOW prototypes), or a path of structure files. Repeatable.",
            show_default="aflow",
        ),
    ] = None,
    count: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Number of crystals, those with the most similar elements.", min=1, show_default="all"
        ),
    ] = None,
    min_atoms: Annotated[int, typer.Option(metavar="N", help="Smallest number of atoms.", min=1)] = 1,
    max_atoms: Annotated[
        int, typer.Option(metavar="N", help="Largest number of atoms in the primitive cell.", min=1)
    ] = 20,
    max_edge: Annotated[
        str | None,
        typer.Option(metavar="Å", help="Longest edge of the Niggli-reduced cell in Å.", show_default="no limit"),
    ] = None,
    min_similarity: Annotated[
        str, typer.Option(metavar="X", help="Smallest similarity of the elements, from 0 to 1.")
    ] = "0",
    per_formula: Annotated[
        int | None,
        typer.Option(metavar="N", help="Most crystals of one reduced formula.", min=1, show_default="no limit"),
    ] = None,
    per_template: Annotated[
        int | None, typer.Option(metavar="N", help="Most crystals of one template.", min=1, show_default="no limit")
    ] = None,
    subsystems: Annotated[
        bool, typer.Option("--subsystems", help="Make crystals of fewer elements than the system, too.")
    ] = False,
    exclude: Annotated[
        list[Path] | None,
        typer.Option(metavar="PATH", help="Leave out crystals of these files. Repeatable.", show_default="none"),
    ] = None,
    held_in: HELD_IN = False,
    new_formulas: Annotated[
        bool, typer.Option("--new-formulas", help="Leave out formulas of the library and of --exclude.")
    ] = False,
    seed: SEED = 0,
) -> None:
    """Substitute the elements of known crystals.

    All inequivalent assignments of the elements of a chemical system are made and ranked by the similarity of the
    elements to those that they replace, from radii, electronegativities, oxidation states and places in the periodic
    table. Cells are scaled to the expected volume, and equal crystals are folded. The crystals are not relaxed:
    hybridcsp dataset relax does that.
    """
    import numpy as np

    from hybridcsp.datasets.reading import Crystals, aflow_templates, read_crystals, templates_of
    from hybridcsp.datasets.substitution import SubstitutionLimits, substitute_into, substitute_similar
    from hybridcsp.datasets.targets import Target
    from hybridcsp.datasets.writing import write_dataset
    from hybridcsp.prototypes.library import AFLOW

    try:
        wanted = Target.of(target)
        limits = SubstitutionLimits(
            min_atoms=min_atoms,
            max_atoms=max_atoms,
            max_edge=None if max_edge is None else read_number("--max-edge", max_edge, "a length in Å above 0"),
            min_similarity=read_fraction("--min-similarity", min_similarity),
            per_formula=per_formula,
            per_template=per_template,
            held_in=held_in,
            new_formulas=new_formulas,
        )
    except InputError as error:
        raise error.renamed(_option(error.key)) from None
    if not wanted.elements and count is None:
        raise InputError("--count", None, "the number of crystals, when the target is any")
    if not wanted.elements and subsystems:
        raise CommandLineError("--subsystems needs a chemical system as target; any has none.")
    libraries = library or [AFLOW]
    for name in libraries:
        if name != AFLOW:
            check_exists("--library", Path(name))
    for path in exclude or []:
        check_exists("--exclude", path)
    prepare_output(output)
    read = Crystals()
    templates: list[Template] = []
    for name in libraries:
        with busy(f"reading the templates of {name}"):
            if name == AFLOW:
                templates += (prototypes := aflow_templates())
                read.inputs.append({"name": "AFLOW prototypes in pymatgen", "crystals": len(prototypes)})
            else:
                found = read_crystals([Path(name)], key="--library")
                templates += templates_of(found)
                read.inputs += found.inputs
                read.left_out += found.left_out
                read.failures += found.failures
    known = read_crystals(exclude, key="--exclude").atoms if exclude else []
    with counter("substitutions tried" if wanted.elements else "crystals") as show:
        if wanted.elements:
            made = substitute_into(
                wanted, templates, limits=limits, count=count, subsystems=subsystems, exclude=known, progress=show
            )
        else:
            assert count is not None  # checked above
            rng = np.random.default_rng(seed)
            made = substitute_similar(templates, count, rng, limits=limits, exclude=known, progress=show)
    left_out = read.left_out + made.left_out
    print_unreadable(read)
    if not made.crystals:
        raise InputError("TARGET", target, reason=f"no crystal is left ({_reasons(left_out) or 'no template fits'})")
    settings = {
        "target": target,
        "library": libraries,
        "count": count,
        "subsystems": subsystems,
        "exclude": [path.name for path in exclude or []],
        **vars(limits),
        **({} if wanted.elements else {"seed": seed}),
    }
    card = write_dataset(
        made.crystals,
        output,
        "substitute",
        settings=settings,
        inputs=read.inputs,
        left_out=left_out,
        key="--output",
        templates=len(templates),
        tried=made.tried,
    )
    print_written(card, output)


@dataset_app.command(
    epilog="Examples:\n\n"
    "  hybridcsp dataset augment vo.extxyz --per-composition 1000 --output vo_1000.extxyz\n\n"
    "  hybridcsp dataset augment mgmno.extxyz --per-composition 1000 --max-atoms 28 --operation supercells "
    "--operation axes --operation translations --operation permutations --output images.extxyz",
)
def augment(
    paths: CRYSTALS,
    per_composition: Annotated[
        int, typer.Option(metavar="N", help="Crystals of each reduced formula, copies included.", min=1)
    ],
    output: OUTPUT,
    operation: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="axes, rotations, translations, permutations or supercells. Repeatable.",
            show_default="all but supercells",
        ),
    ] = None,
    max_atoms: Annotated[int, typer.Option(metavar="N", help="Most atoms of a supercell.", min=1)] = 20,
    seed: SEED = 0,
) -> None:
    """Fill every composition with other descriptions of its crystals.

    Lattice vectors are exchanged and reversed, the crystal is rotated, the origin moved, atoms of one element are
    permuted, and supercells are made, all at random. The crystals stay the same, and so do their properties.
    Generators that choose their own descriptions, such as wyckoff and flow, do not need this.
    """
    import numpy as np

    from hybridcsp.datasets.augmentation import DEFAULT
    from hybridcsp.datasets.augmentation import augment as copies
    from hybridcsp.datasets.writing import write_dataset

    chosen = list(operation or DEFAULT)
    try:
        copies([], per_composition, np.random.default_rng(seed), operations=chosen, max_atoms=max_atoms)
    except InputError as error:
        raise error.renamed(_option(error.key)) from None
    prepare_output(output)
    found = read_paths(paths)
    made = copies(found.atoms, per_composition, np.random.default_rng(seed), operations=chosen, max_atoms=max_atoms)
    with busy("augmenting the crystals"):
        card = write_dataset(
            made,
            output,
            "augment",
            settings={
                "per_composition": per_composition,
                "operations": chosen,
                "max_atoms": max_atoms,
                "seed": seed,
            },
            inputs=found.inputs,
            left_out=found.left_out,
            key="--output",
        )
    print_written(card, output)


def read_paths(paths: Sequence[Path]) -> Crystals:
    """Read the crystals of the paths of a command, and name those that cannot be read."""
    from hybridcsp.datasets.reading import read_crystals

    for path in paths:
        check_exists("PATH", path)
    with counter("crystals read") as show:
        found = read_crystals(paths, key="PATH", progress=show)
    print_unreadable(found)
    return found


def prepare_output(output: Path) -> None:
    """Check before the computation that a data set can be written."""
    from hybridcsp.datasets.writing import check_output

    check_output(output, "--output")
    if not is_stream(output):
        make_folder(output.parent, key="--output")
        check_writable(output, key="--output", follow=True)


def print_unreadable(found: Crystals) -> None:
    """Print which structures could not be read, and why."""
    n = sum(count for reason, count in found.left_out.items() if reason.startswith("not readable"))
    if n:
        _message(f"{n} structure{'s' * (n != 1)} could not be read:")
        for failure in found.failures[:_SHOWN]:
            _message(f"  {failure}")
        if n > _SHOWN:
            _message(f"  and {n - _SHOWN} more")


def print_written(card: Mapping[str, Any], output: Path) -> None:
    """Print what a data set holds, what was left out, and where it is."""
    from hybridcsp.datasets.cards import card_path

    for reason, n in card["left_out"].items():
        _message(f"left out {n}: {reason}")
    place = "" if is_stream(output) else f" to {output}, and their card to {card_path(output)}"
    _message(f"Wrote {card['crystals']} crystals of {card['formulas']} formulas{place}")


def _message(text: str) -> None:
    errors.print(text, highlight=False, soft_wrap=True, markup=False)


def _reasons(left_out: Mapping[str, int]) -> str:
    return "; ".join(f"{n} times: {reason}" for reason, n in left_out.items())


def _option(key: str) -> str:
    """Return the option for the name of a parameter."""
    if key in _OPTIONS:
        return _OPTIONS[key]
    return key if key.startswith("-") else f"--{key.replace('_', '-')}"
