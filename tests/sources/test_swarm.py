"""The particle swarm: how particles fly, what they fly to, who flies when, and that a search resumes exactly."""

from types import SimpleNamespace

import numpy as np
import pytest
from ase.build import bulk
from crystals import InlineBackend, archive_of, random_crystal, relaxed, rutile, what_happened

from hybridcsp import Problem, Search
from hybridcsp.core.outcomes import Failed, FailureReason, Rejected, RejectionReason
from hybridcsp.core.records import LOWEST, REFINE, Candidate, Proposal
from hybridcsp.errors import InputError
from hybridcsp.sources.base import Context, SourceStatus
from hybridcsp.sources.registry import SOURCES
from hybridcsp.sources.swarm import DRAWS, GlobalBest, LocalBest, SwarmSource
from hybridcsp.sources.swarm_particles import (
    HORIZON,
    MAX_DISPLACEMENT,
    MAX_STRAIN,
    PSO_RATIO,
    TROUBLES,
    Velocity,
)
from hybridcsp.structure.mapping import match
from hybridcsp.structure.validity import shortest_violation

TITANIA = Problem("TiO2", formula_units=2)


class Flight:
    """A swarm and the search around it: proposals become candidates, and outcomes are what a test says."""

    def __init__(self, problem=TITANIA, argument=None, seed=0):
        self.source = SwarmSource(problem, argument)
        self.problem = problem
        self.minima = []
        self.rng = np.random.default_rng(seed)
        self.ids = 0

    def propose(self):
        context = Context(problem=self.problem, archive=archive_of(self.minima), rng=self.rng)
        proposals = self.source.propose(1, context)
        assert len(proposals) == 1
        self.ids += 1
        candidate = Candidate(proposal=proposals[0], id=self.ids, source="swarm")
        self.source.proposed([candidate])
        return candidate

    def relax(self, candidate, energy, atoms=None, **changes):
        outcome = relaxed(candidate, energy, atoms, **changes)
        if outcome.converged:
            self.minima.append(SimpleNamespace(best=outcome, enthalpy_per_atom=energy, niche=len(self.minima)))
        self.source.observe([outcome])

    def found_by_another(self, energy, number, atoms=None, **changes):
        """A minimum of another source, with this number."""
        atoms = rutile(a=4.5 + 0.05 * number) if atoms is None else atoms
        candidate = Candidate(proposal=Proposal(atoms=atoms, operator="test"), id=1000 + number, source="test")
        outcome = relaxed(candidate, energy, minimum=number, is_new_minimum=True, **changes)
        self.minima.append(SimpleNamespace(best=outcome, enthalpy_per_atom=energy, niche=len(self.minima)))
        self.source.observe([outcome])
        return outcome

    def fill(self, units=2, energy=lambda k: -1.0 - 0.01 * k):
        swarm = self.source.swarms[units]
        for k in range(swarm.size):
            self.relax(self.propose(), energy(k))
        return swarm


def minimum(atoms, energy, id_):
    candidate = Candidate(proposal=Proposal(atoms=atoms, operator="test"), id=id_, source="test")
    return SimpleNamespace(best=relaxed(candidate, energy), enthalpy_per_atom=energy, niche=id(candidate))


def moves(flight, n):
    for _ in range(n):
        candidate = flight.propose()
        if candidate.operator == "swarm":
            yield candidate
        flight.relax(candidate, -1.0 - 0.001 * flight.ids)


def at_rest(atoms):
    return Velocity(np.zeros((len(atoms), 3)), np.zeros((3, 3)))


class TestVelocities:
    def test_a_particle_at_rest_at_its_attractor_does_not_move(self):
        flight = Flight()
        swarm = flight.fill()
        for particle in swarm.particles.values():
            particle.start, particle.velocity = rutile(), at_rest(rutile())
            particle.best = relaxed(particle.best.candidate, -9.0, rutile())
        flight.minima = [minimum(rutile(), -9.0, 99)]
        candidate = flight.propose()
        assert candidate.operator == "swarm"
        assert candidate.atoms.get_scaled_positions() == pytest.approx(rutile().get_scaled_positions(), abs=1e-6)
        assert candidate.atoms.cell.array == pytest.approx(rutile().cell.array, abs=1e-6)

    def test_a_particle_flies_to_its_attractor(self):
        start = rutile()
        start.rattle(0.1, seed=1)
        flight = Flight()
        swarm = flight.fill()
        for particle in swarm.particles.values():
            particle.start, particle.velocity = start, at_rest(start)
            particle.best = relaxed(particle.best.candidate, -9.0, rutile())
        flight.minima = [minimum(rutile(), -9.0, 99)]
        candidate = flight.propose()
        first, second = candidate.proposal.tag["weights"]
        # Twice the sum of both weights times the way: more than 1 flies past it.
        expected = abs(1 - 2 * (first + second)) * match(start, rutile()).distance
        assert match(candidate.atoms, rutile()).distance == pytest.approx(expected, rel=1e-3)

    def test_velocities_keep_their_caps(self):
        flight = Flight(seed=2)
        flight.fill()
        seen = 0
        for candidate in moves(flight, 20):
            particle = flight.source.swarms[2].particles[candidate.proposal.tag["particle"]]
            before = particle.start
            velocity = Velocity.from_tag(candidate.proposal.tag["velocity"])
            limit = MAX_DISPLACEMENT * (before.get_volume() / 6) ** (1 / 3) * np.exp(MAX_STRAIN)
            assert np.linalg.norm(velocity.positions @ candidate.atoms.cell.array, axis=1).max() <= limit * (1 + 1e-9)
            assert np.abs(np.linalg.eigvalsh(velocity.strain)).max() <= MAX_STRAIN * (1 + 1e-9)
            seen += 1
        assert seen > 8

    def test_the_last_velocity_is_kept_with_the_inertia(self):
        flight = Flight()
        swarm = flight.fill()
        for particle in swarm.particles.values():
            speed = Velocity(np.full((6, 3), 0.01) * np.array([[1], [-1]] * 3), np.eye(3) * 0.01)
            particle.start, particle.velocity = rutile(), speed
            particle.best = relaxed(particle.best.candidate, -9.0, rutile())
        flight.minima = [minimum(rutile(), -9.0, 99)]
        tag = flight.propose().proposal.tag
        assert tag["inertia"] == swarm.inertia < 0.9
        assert np.array(tag["velocity"]["positions"]) == pytest.approx(swarm.inertia * speed.positions, abs=1e-6)
        assert np.array(tag["velocity"]["strain"]) == pytest.approx(swarm.inertia * speed.strain, abs=1e-6)

    def test_inertia_falls_with_outcomes_to_its_end(self):
        flight = Flight()
        swarm = flight.source.swarms[2]
        assert swarm.inertia == 0.9
        flight.fill()
        assert swarm.inertia == pytest.approx(0.9 - 0.5 / HORIZON)
        swarm.outcomes = HORIZON * swarm.size
        assert swarm.inertia == pytest.approx(0.4)
        swarm.outcomes *= 3
        assert swarm.inertia == pytest.approx(0.4)

    def test_contents_distances_and_volumes_are_kept(self):
        flight = Flight(seed=4)
        flight.fill()
        low, high = TITANIA.volume_bounds
        for candidate in moves(flight, 20):
            assert TITANIA.units_of(candidate.atoms.numbers) == 2
            assert shortest_violation(candidate.atoms, TITANIA.distance_table) is None
            assert low <= candidate.atoms.get_volume() / 6 <= high

    def test_particle_without_a_possible_move_is_replaced(self, monkeypatch):
        flight = Flight()
        swarm = flight.fill()
        tries = []
        monkeypatch.setattr("hybridcsp.operators.common.finish", lambda *args: tries.append(args))
        candidate = flight.propose()
        assert len(tries) == DRAWS
        assert candidate.operator == "random"
        assert candidate.proposal.tag["replaces"] not in swarm.particles
        assert candidate.proposal.tag["particle"] in swarm.particles

    def test_a_fixed_cell_stays(self):
        problem = Problem("TiO2", formula_units=2, cell=(4.6, 4.6, 2.96, 90, 90, 90))
        flight = Flight(problem)
        flight.fill()
        cells = [candidate.atoms.cell.cellpar() for candidate in moves(flight, 12)]
        assert cells
        for cell in cells:
            assert sorted(cell[:3]) == pytest.approx([2.96, 4.6, 4.6])
            assert cell[3:] == pytest.approx(90)


class TestBests:
    def test_the_personal_best_persists(self):
        flight = Flight()
        swarm = flight.fill()
        candidate = next(moves(flight, 10))
        particle = swarm.particles[candidate.proposal.tag["particle"]]
        best = particle.best
        flight.relax(candidate, best.enthalpy_per_atom + 0.5)
        assert particle.best is best
        assert particle.start == candidate.atoms
        assert particle.generation == 1

    def test_a_better_end_becomes_the_personal_best(self):
        flight = Flight()
        swarm = flight.fill()
        candidate = next(moves(flight, 10))
        end = random_crystal("Ti2O4", 11, np.random.default_rng(8))
        flight.relax(candidate, -5.0, end)
        best = swarm.particles[candidate.proposal.tag["particle"]].best
        assert best.enthalpy_per_atom == -5.0
        assert best.atoms == end

    def test_global_is_the_best_of_all(self):
        minima = [minimum(bulk("Cu"), energy, k) for k, energy in enumerate((-3.0, -2.0, -1.0))]
        assert GlobalBest().choose(bulk("Cu"), minima) is minima[0]

    def test_local_is_the_best_of_those_that_are_alike(self):
        fcc = [minimum(bulk("Cu", "fcc", a=3.6 + 0.02 * k), -2.0 + 0.1 * k, k) for k in range(4)]
        bcc = [minimum(bulk("Cu", "bcc", a=2.9 + 0.02 * k), -3.0 + 0.1 * k, 10 + k) for k in range(8)]
        minima = sorted(fcc + bcc, key=lambda m: m.enthalpy_per_atom)
        local = LocalBest()
        assert local.choose(bulk("Cu", "fcc", a=3.61), minima) is fcc[0]
        assert local.choose(bulk("Cu", "bcc", a=2.91), minima) is bcc[0]
        assert local.choose(bulk("Cu", "fcc", a=3.61), minima[:1]) is minima[0]

    def test_minima_of_other_sources_attract_particles(self):
        flight = Flight(argument="global")
        flight.fill()
        flight.minima.append(minimum(rutile(), -50.0, 777))
        assert 777 in next(moves(flight, 5)).proposal.parents

    def test_modes_are_named(self):
        assert isinstance(SwarmSource(TITANIA).attractor, LocalBest)
        assert isinstance(SwarmSource(TITANIA, "local").attractor, LocalBest)
        assert isinstance(SwarmSource(TITANIA, "global").attractor, GlobalBest)
        assert SOURCES["swarm"].load() is SwarmSource
        with pytest.raises(InputError, match="global"):
            SwarmSource(TITANIA, "globel")


class TestWhoFlies:
    def test_a_swarm_begins_with_random_structures(self):
        flight = Flight()
        swarm = flight.source.swarms[2]
        operators = [flight.propose().operator for _ in range(swarm.size)]
        assert operators == ["random"] * swarm.size
        assert len(swarm.particles) == swarm.size

    def test_new_particles_begin_at_the_lowest_minima_that_others_found(self):
        flight = Flight()
        assert flight.source.status() is SourceStatus.WAITING
        others = [flight.found_by_another(energy, k) for k, energy in enumerate((-1.0, -3.0, -2.0, -0.5, -0.6))]
        assert flight.source.status() is SourceStatus.READY
        swarm = flight.source.swarms[2]
        for best in (others[1], others[2], others[0]):
            candidate = flight.propose()
            tag = candidate.proposal.tag
            assert candidate.operator == "swarm"
            assert candidate.proposal.parents[0] == best.candidate.id
            assert (tag["minimum"], tag["replaces"], tag["generation"]) == (best.minimum, None, 1)
            particle = swarm.particles[tag["particle"]]
            assert (particle.best, particle.start, particle.waiting) == (best, best.candidate.atoms, True)
            assert particle.velocity.to_tag() == tag["leaves"]

    def test_a_new_particle_that_is_rejected_stays_where_it_began(self):
        flight = Flight()
        best = flight.found_by_another(-2.0, 0)
        candidate = flight.propose()
        flight.source.observe([Rejected(candidate=candidate, reason=RejectionReason.DUPLICATE)])
        particle = flight.source.swarms[2].particles[candidate.proposal.tag["particle"]]
        assert (particle.best, particle.start, particle.troubles) == (best, best.candidate.atoms, 1)
        assert not particle.waiting

    def test_where_a_job_chose_among_structures_the_particle_begins_at_its_end(self):
        flight = Flight()
        first, other, end = (rutile(a=a) for a in (4.4, 4.8, 4.6))
        proposal = Proposal(atoms=first, operator="test", alternatives=(other,), level=LOWEST)
        found = relaxed(Candidate(proposal=proposal, id=1000, source="test"), -2.0, end, minimum=1, is_new_minimum=True)
        flight.minima.append(SimpleNamespace(best=found, enthalpy_per_atom=-2.0, niche=0))
        flight.source.observe([found])
        candidate = flight.propose()
        flight.source.observe([Rejected(candidate=candidate, reason=RejectionReason.DUPLICATE)])
        particle = flight.source.swarms[2].particles[candidate.proposal.tag["particle"]]
        assert (particle.best, particle.start) == (found, end)

    def test_no_particle_begins_where_one_has_been(self):
        flight = Flight()
        found = flight.found_by_another(-2.0, 0)
        assert flight.propose().operator == "swarm"
        assert flight.propose().operator == "random"
        again = flight.propose()
        flight.source.observe([relaxed(again, -2.0, found.atoms, minimum=7, is_new_minimum=True)])
        assert flight.propose().operator == "random"

    def test_minimum_that_becomes_suspect_later_is_no_beginning(self):
        flight = Flight()
        hole = flight.found_by_another(-9.0, 1)
        flight.found_by_another(-2.0, 2, suspects=(hole.minimum,))
        assert flight.propose().proposal.tag["minimum"] == 2
        assert flight.propose().operator == "random"

    def test_particle_whose_best_becomes_suspect_is_replaced(self):
        flight = Flight()
        swarm = flight.fill(energy=lambda k: -1.0 - 0.01 * k)
        hole = next(iter(swarm.particles))
        swarm.particles[hole].best = relaxed(swarm.particles[hole].best.candidate, -9.0, minimum=77)
        assert swarm.to_replace() != hole
        flight.found_by_another(-0.5, 78, suspects=(77,))
        assert swarm.to_replace() == hole

    def test_minima_of_other_contents_and_refinements_are_passed_over(self):
        flight = Flight()
        flight.found_by_another(-2.0, 0, atoms=rutile().repeat((1, 1, 2)))
        flight.found_by_another(-2.0, 1, level=REFINE)
        assert flight.propose().operator == "random"

    def test_two_of_five_proposals_are_fresh_and_take_the_place_of_the_worst(self):
        flight = Flight()
        swarm = flight.fill()
        fresh, stuck = [], []
        for _ in range(50):
            ranked = sorted(swarm.particles, key=lambda p: swarm.particles[p].best.enthalpy_per_atom)
            candidate = flight.propose()
            best = ranked[: round(PSO_RATIO * swarm.size)]
            if candidate.operator != "random":
                assert candidate.proposal.tag["particle"] in best
            elif (replaced := candidate.proposal.tag["replaces"]) == ranked[-1]:
                fresh.append(candidate)
            else:  # a particle whose moves all come too close
                assert replaced in best
                stuck.append(candidate)
            assert len(swarm.particles) == swarm.size
            flight.relax(candidate, -1.0 + 0.01 * (flight.ids % 7))
        assert len(fresh) + len(stuck) == 20
        assert len(stuck) <= 3

    def test_a_particle_waits_for_its_own_outcome_only(self):
        flight = Flight()
        swarm = flight.fill()
        running = [flight.propose() for _ in range(6)]
        particles = [candidate.proposal.tag["particle"] for candidate in running]
        assert len(set(particles)) == 6
        flight.relax(running[3], -0.5)
        assert [p for p in particles if not swarm.particles[p].waiting] == [particles[3]]

    def test_it_never_starves_a_backend_of_many_workers(self):
        flight = Flight()
        swarm = flight.fill()
        running = [flight.propose() for _ in range(3 * swarm.size)]
        particles = [candidate.proposal.tag["particle"] for candidate in running]
        assert len(set(particles)) == len(running)

    def test_failures_and_rejections_leave_the_particle_where_it_was(self):
        flight = Flight()
        swarm = flight.fill()
        candidate = next(moves(flight, 10))
        particle = swarm.particles[candidate.proposal.tag["particle"]]
        before, moved = (particle.start, particle.best), swarm.moved
        flight.source.observe([Rejected(candidate=candidate, reason=RejectionReason.DUPLICATE)])
        assert (particle.start, particle.best, particle.generation) == (*before, 0)
        assert not particle.waiting
        assert swarm.moved == moved - 1

    @pytest.mark.parametrize("kind", ["rejected", "failed", "unconverged"])
    def test_after_some_troubles_in_a_row_a_particle_begins_anew(self, kind):
        flight = Flight()
        swarm = flight.fill()
        troubles = dict.fromkeys(swarm.particles, 0)
        for _ in range(60):
            candidate = flight.propose()
            replaces = candidate.proposal.tag.get("replaces")
            if troubles.get(replaces, 0) == TROUBLES:
                return
            if candidate.operator == "random":
                flight.relax(candidate, -1.0)
                continue
            particle = candidate.proposal.tag["particle"]
            assert troubles.setdefault(particle, 0) < TROUBLES
            troubles[particle] += 1
            if kind == "rejected":
                flight.source.observe([Rejected(candidate=candidate, reason=RejectionReason.DUPLICATE)])
            elif kind == "failed":
                flight.source.observe([Failed(candidate=candidate, reason=FailureReason.OVERLAP)])
            else:
                flight.relax(candidate, -1.0, converged=False)
        pytest.fail("no particle began anew")

    def test_a_start_that_failed_is_made_up_for_first(self):
        flight = Flight()
        candidate = flight.propose()
        flight.source.observe([Failed(candidate=candidate, reason=FailureReason.OVERLAP)])
        for _ in range(flight.source.swarms[2].size - 1):
            flight.relax(flight.propose(), -1.0)
        assert flight.propose().proposal.tag["replaces"] == candidate.proposal.tag["particle"]

    def test_sub_swarms_take_turns_and_never_mix(self):
        problem = Problem("Cu", formula_units=(2, 4))
        flight = Flight(problem)
        seen = {2: 0, 3: 0, 4: 0}
        moved = 0
        for _ in range(36):
            candidate = flight.propose()
            units = candidate.proposal.tag["units"]
            assert len(candidate.atoms) == units
            swarm = flight.source.swarms[units]
            assert candidate.proposal.tag["particle"] in swarm.particles
            starts = {len(p.start) for p in swarm.particles.values() if p.start is not None}
            assert starts <= {units}
            moved += candidate.operator == "swarm"
            flight.relax(candidate, -1.0 - 0.001 * flight.ids)
            seen[units] += 1
        assert seen == {2: 12, 3: 12, 4: 12}
        assert moved >= 8

    def test_cell_contents_that_no_allowed_group_holds_are_left_out(self):
        # The diamond structure needs two atoms in the primitive cell.
        assert list(SwarmSource(Problem("C", formula_units=(1, 2), spacegroups=(227,))).swarms) == [2]
        with pytest.raises(InputError, match="spacegroups"):
            SwarmSource(Problem("C", formula_units=1, spacegroups=(227,)))


def somewhere(job):
    """Relax to a place near the start that depends on the start alone."""
    atoms = job.atoms.copy()
    atoms.rattle(0.1, seed=job.candidate.id)
    shape = np.linalg.norm(atoms.cell.array @ atoms.cell.array.T) + np.abs(atoms.get_scaled_positions()).sum()
    return relaxed(job.candidate, -3.0 - 1.0 / shape, atoms, level=job.level)


class TestSearch:
    @staticmethod
    def search(directory, sources, runner=somewhere):
        return Search(
            "Cu3Au",
            formula_units=1,
            calculator=None,
            directory=directory,
            sources=sources,
            allocation="equal",
            seed=3,
            backend=InlineBackend(runner),
        )

    @pytest.mark.parametrize("sources", [["swarm:local"], ["swarm:global"], ["swarm", "random"]])
    def test_interrupted_search_equals_uninterrupted_search(self, tmp_path, sources):
        def jobs(n):
            left = iter(range(n))

            def interrupted(job):
                if next(left, None) is None:
                    raise KeyboardInterrupt
                return somewhere(job)

            return interrupted

        with self.search(tmp_path / "whole", sources) as whole:
            whole.run(relaxations=22, refine=0)
        for n in (3, 9, 6):
            with self.search(tmp_path / "pieces", sources, jobs(n)) as pieces, pytest.raises(KeyboardInterrupt):
                pieces.run(relaxations=22, refine=0)
        with self.search(tmp_path / "pieces", sources) as pieces:
            pieces.run(relaxations=22, refine=0)
        happened = what_happened(tmp_path / "whole")
        assert sum(data.get("operator") == "swarm" for kind, data, _ in happened if kind == "relaxed") >= 6
        assert any("minimum" in data.get("tag", {}) for _, data, _ in happened) == ("random" in sources)
        assert what_happened(tmp_path / "pieces") == happened
