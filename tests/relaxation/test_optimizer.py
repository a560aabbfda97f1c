"""Optimiser and cell filter: agreement with ASE, and the differences from it."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.emt import EMT
from ase.filters import UnitCellFilter
from ase.optimize import BFGS

from hybridcsp.relaxation.optimizer import MAX_CURVATURE, CellAndPositions, ResettingBFGS


class Counted(EMT):
    calls = 0

    def calculate(self, *args, **kwargs):
        self.calls += 1
        super().calculate(*args, **kwargs)


def copper(rattle=0.05):
    atoms = bulk("Cu", cubic=True)
    atoms.rattle(rattle, seed=6)
    atoms.calc = Counted()
    return atoms


@pytest.mark.parametrize("pressure", [0.0, 0.1])
def test_forces_and_variables_agree_with_ase(pressure):
    atoms = copper()
    ours = CellAndPositions(atoms, pressure)
    theirs = UnitCellFilter(atoms, cell_factor=2.0, scalar_pressure=pressure)
    for _ in range(2):
        np.testing.assert_array_equal(ours.get_forces(), theirs.get_forces())
        np.testing.assert_array_equal(ours.get_positions(), theirs.get_positions())
        ours.set_positions(ours.get_positions() + 0.01 * ours.get_forces())


def test_returned_forces_are_copies():
    target = CellAndPositions(copper(), 0.0)
    before = target.get_forces()
    target.get_forces()[:] = 0.0
    np.testing.assert_array_equal(target.get_forces(), before)


def test_cell_variables_do_not_depend_on_the_size_of_the_cell():
    def curvature(n):
        atoms = bulk("Cu", cubic=True) * (n, 1, 1)
        atoms.calc = EMT()
        target = CellAndPositions(atoms, 0.0)
        start, step = target.get_positions(), np.zeros((len(target), 3))
        step[-3, 0] = 0.01
        forces = []
        for sign in (1, -1):
            target.set_positions(start + sign * step)
            forces.append(target.get_forces()[-3, 0])
        return (forces[1] - forces[0]) / 0.02

    assert curvature(3) == pytest.approx(curvature(1), rel=1e-3)


def test_ordinary_relaxation_agrees_with_ase_step_by_step():
    paths = []
    for method in (BFGS, ResettingBFGS):
        target = CellAndPositions(copper(), 0.0)
        optimizer = method(target, logfile=None)
        optimizer.run(fmax=0.01, steps=50)
        paths.append((optimizer.nsteps, target.atoms.calc.calls, target.get_positions()))
    assert paths[0][:2] == paths[1][:2]
    np.testing.assert_array_equal(paths[0][2], paths[1][2])


def test_only_unphysical_curvature_resets_the_hessian():
    atoms = copper()
    optimizer = ResettingBFGS(atoms, logfile=None)
    n = 3 * len(atoms)
    position, force = np.zeros(n), np.zeros(n)
    optimizer.update(position, force, None, None)
    step, change = np.zeros(n), np.zeros(n)
    step[0], change[0] = 0.1, -3.0  # 30 eV/Å²
    optimizer.update(step, change, position, force)
    np.testing.assert_allclose(np.linalg.eigvalsh(optimizer.H), [30.0, *[70.0] * (n - 1)])
    noise = change.copy()
    noise[1] = 0.5  # a force that changed across the step and not along it
    optimizer.update(step + 1e-3 * np.eye(n)[2], noise, step, change)
    np.testing.assert_array_equal(optimizer.H, 70.0 * np.eye(n))
    plain = BFGS(copper(), logfile=None)
    plain.update(position, force, None, None)
    with np.errstate(divide="ignore", invalid="ignore"):
        plain.update(step + 1e-3 * np.eye(n)[2], noise + 1e-9, step, change)
    assert not np.abs(plain.H).max() < MAX_CURVATURE
