"""Calculators that cannot do everything, in a module that worker processes can import."""

from ase.calculators.calculator import Calculator, all_changes
from ase.calculators.lj import LennardJones


class OnlySilicon(LennardJones):
    """A potential of one element, which refuses others like EMT does."""

    def __init__(self):
        super().__init__(epsilon=0.1, sigma=2.0, rc=6.0, smooth=True)

    def calculate(self, atoms=None, properties=None, system_changes=all_changes):
        if set(atoms.symbols) != {"Si"}:
            raise NotImplementedError(f"no parameters for {atoms.symbols}")
        super().calculate(atoms, properties, system_changes)


class Failing(Calculator):
    implemented_properties = ("energy", "forces", "stress")

    def __init__(self, act):
        super().__init__()
        self.act = act

    def calculate(self, atoms=None, properties=None, system_changes=all_changes):
        self.act()


def raising():
    raise RuntimeError("the device is lost")
