"""Steps that must keep something: a divergence, a cost limit, the return; and penalties that adapt."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jumar.lab import improvement, tabular
from jumar.lab.precision import compiled_in_double
from jumar.lab.tabular import TabularMDP
from jumar.policies.distributions import Categorical
from jumar.schedules import Constant
from jumar.solvers import (
    Ascent,
    AverageTrustRegion,
    Boundary,
    ConjugateGradient,
    Joint,
    LineSearch,
    MeanKL,
    MeanOverTrajectories,
    Optimiser,
    Penalty,
    Step,
)
from jumar.solvers.objectives import score
from jumar.solvers.problem import Problem, kl, kl_of_actions, log_ratio_of_actions, mean_over_steps
from jumar.trajectory import Batch, weighted_mean
from jumar.verification import enumeration
from jumar.verification.compare import gap
from jumar.verification.exact_batches import exact_problem, family, parameters, process, unravel
from jumar.verification.registry import check
from jumar.verification.updates import ROOM, improved

DELTA = 0.01
FAR = 4.0
"""How many times too far the step goes that the line search shortens."""
SHRINK, MOST = 0.8, 20
UPDATES = 12


def _mover(far: float = FAR) -> LineSearch:
    return LineSearch(Step(MeanKL(ConjugateGradient(40)), Boundary(far * DELTA)), DELTA, SHRINK, MOST)


@functools.cache
def _trpo() -> dict[str, Any]:
    """Return the course of updates by line search around too long natural steps, all expectations exact."""

    @compiled_in_double
    def told(mdp: TabularMDP, flat: Any) -> dict[str, Any]:
        def update(flat: Any, _: None) -> tuple[Any, dict[str, Any]]:
            exact, policies = exact_problem(mdp, flat), family()
            key = jnp.zeros(2, jnp.uint32)
            moved = _mover().move(exact.problem, flat, unravel, exact.batch, (), jnp.ones(()), key)
            whole = _mover().step.move(exact.problem, flat, unravel, exact.batch, (), jnp.ones(()), key)
            old, new = policies(flat), policies(moved.flat)
            fractions = SHRINK ** jnp.arange(MOST)

            def tried(fraction: Any) -> Any:
                candidate = policies(flat + fraction * (whole.flat - flat))
                return improvement.mean_kl(mdp, old, candidate), improvement.surrogate(mdp, old, candidate)

            return moved.flat, {
                "performance": tabular.performance(mdp, old),
                "gain": tabular.performance(mdp, new) - tabular.performance(mdp, old),
                "divergence": improvement.mean_kl(mdp, old, new),
                "bound": improvement.mean_kl_bound(mdp, old, new),
                "max bound": improvement.max_kl_bound(mdp, old, new),
                "fraction": moved.about["step_fraction"],
                "tried": jax.lax.map(tried, fractions),
            }

        return jax.lax.scan(update, flat, None, length=UPDATES)[1]

    return told(process(), parameters())


@check(
    "trust-regions/trpo-return", "the largest fall of the exact return over 12 updates with exact expectations", 1e-12
)
def trpo_return() -> float:
    told = _trpo()
    if told["performance"][-1] - told["performance"][0] < 0.5:
        raise ValueError("the updates gain next to nothing, so that never to lose says nothing")
    return float(np.max(-told["gain"]))


@check("trust-regions/trpo-divergence", "the largest exact mean KL(old || new) of these updates over delta", 1.0 + 1e-9)
def trpo_divergence() -> float:
    return float(np.max(_trpo()["divergence"])) / DELTA


@check(
    "trust-regions/line-search", "the fraction taken against the first that keeps KL and gains, found by trying", 1e-12
)
def line_search() -> float:
    told = _trpo()
    divergences, gains = told["tried"]
    good = (divergences <= DELTA) & (gains > 0.0)
    first = np.argmax(good, -1)
    if not (first > 0).any():
        raise ValueError("no step had to be shortened")
    return gap(told["fraction"], SHRINK**first)


@check("trust-regions/bounds", "how far the lower bounds of these updates' gains are above the gains", 0.0)
def bounds() -> float:
    told = _trpo()
    return max(0.0, *(float(np.max(told[name] - told["gain"])) for name in ("bound", "max bound")))


@check("trust-regions/restored", "how far parameters moved where no candidate was near enough", 0.0)
def restored() -> float:
    @compiled_in_double
    def told(mdp: TabularMDP, flat: Any) -> Any:
        exact, key = exact_problem(mdp, flat), jnp.zeros(2, jnp.uint32)
        mover = LineSearch(Step(MeanKL(ConjugateGradient(40)), Boundary(1.0)), 1e-12, SHRINK, 5)
        moved = mover.move(exact.problem, flat, unravel, exact.batch, (), jnp.ones(()), key)
        return moved.flat, moved.about["line_search_tries"]

    flat, tries = told(process(), parameters())
    if tries != 5.0:
        raise ValueError(f"{tries:.0f} candidates were tried, not 5")
    return gap(flat, parameters())


@check(
    "trust-regions/minorise-maximise",
    "how far exact gains are below the minorants they maximise, over 20 updates",
    1e-12,
)
def minorise_maximise() -> float:
    """Each update takes the part of the natural step for which L - C max KL is largest."""

    @compiled_in_double
    def told(mdp: TabularMDP, flat: Any) -> Any:
        policies = family()

        def update(flat: Any, _: None) -> Any:
            exact = exact_problem(mdp, flat)
            mover = Step(MeanKL(ConjugateGradient(40)), Boundary(DELTA))
            moved = mover.move(exact.problem, flat, unravel, exact.batch, (), jnp.ones(()), jnp.zeros(2, jnp.uint32))
            old = policies(flat)
            fractions = 0.7 ** jnp.arange(60)
            minorants = jax.lax.map(
                lambda x: improvement.max_kl_bound(mdp, old, policies(flat + x * (moved.flat - flat))), fractions
            )
            best = jnp.argmax(minorants)
            new = flat + fractions[best] * (moved.flat - flat)
            gain = tabular.performance(mdp, policies(new)) - tabular.performance(mdp, old)
            return new, (gain, minorants[best])

        return jax.lax.scan(update, flat, None, length=20)[1]

    gains, minorants = told(process(), parameters())
    if np.min(minorants) <= 0.0:
        raise ValueError(f"a minorant is {np.min(minorants):.3g} at its best, and no gain is guaranteed")
    return float(np.max(minorants - gains))


@check(
    "trust-regions/reported-divergence",
    "the mean KL in the flight record of TRPO against the exact KL(old || new)",
    1e-4,
)
def told_divergence() -> float:
    found = improved("trpo")
    old, new = enumeration.ACTED, found.probs
    states = enumeration.exact().visits.sum(0)
    exact = states @ np.sum(old * np.log(old / new), -1) / states.sum()
    backward = states @ np.sum(new * np.log(new / old), -1) / states.sum()
    if abs(backward / exact - 1.0) < 1e-3:
        raise ValueError("the two directions are too close to be distinguished")
    return abs(found.record["mean_kl"] / exact - 1.0)


@check("trust-regions/cost-limit", "the cost of CPO's new policy, in its surrogate, beyond the limit", 1e-6)
def cost_limit() -> float:
    costs, probs = enumeration.exact(1.0, costs=True), improved("cpo").probs
    gained = np.einsum("ts,sa,tsa->", costs.visits, probs, costs.action_values - costs.values[..., None])
    if gained < 0.2 * ROOM:
        raise ValueError("the limit is far, and to keep it says nothing")
    return float(gained - ROOM)


@check("trust-regions/cost", "the exact cost of that policy beyond the limit", 5e-4)
def cost() -> float:
    before, after = enumeration.exact(1.0, costs=True), enumeration.exact_of(improved("cpo").probs, 1.0, costs=True)
    return float(after.performance - before.performance) - ROOM


@dataclass(frozen=True)
class _Moves:
    """A solver that moves to given parameters."""

    to: Any

    def init(self, parameters: Any) -> tuple[()]:
        """Return no state."""
        return ()

    def solve(self, problem: Problem, parameters: Any, state: Any, remaining: Any, key: Any) -> Any:
        """Return the given parameters."""
        return {"policy": self.to, "critic": {}}, (), {}


@check(
    "trust-regions/penalty", "the coefficient after divergences of 2, 1 and 1/2 times the target: x 2, x 1, x 1/2", 1e-6
)
def penalty() -> float:
    @compiled_in_double
    def told(mdp: TabularMDP, flat: Any) -> Any:
        exact = exact_problem(mdp, flat)
        moved = flat + 0.1
        divergence = exact.problem.distance(flat, moved, exact.batch)[0]
        found = []
        for share in (2.0, 1.0, 0.5):
            solver = Penalty(_Moves(moved), 3.0, divergence / share)  # type: ignore[arg-type]
            start = {"policy": flat, "critic": {}}
            _, state, _ = solver.solve(exact.problem, start, solver.init(start), jnp.ones(()), jnp.zeros(2, jnp.uint32))
            found.append(state["coefficient"] / 3.0)
        return jnp.stack(found)

    return gap(told(process(), parameters()), [2.0, 1.0, 0.5])


@check("trust-regions/average", "ACER's step, bent away from where the divergence from the average policy grows", 1e-10)
def average() -> float:
    r"""By hand: each row's :math:`z = g - \max(0, (k^T g - \delta) / \|k\|^2) k` in its logits."""
    probs, mean_probs, delta = enumeration.ACTED, enumeration.OTHER, 0.05
    states, actions = (x.ravel() for x in np.indices(probs.shape))
    advantages, weights = np.array([1.0, -0.6, 0.8, -2.0, -1.5, 0.4]), np.arange(1.0, 7.0)

    @compiled_in_double
    def told(logits: Any, mean_logits: Any, advantages: Any, weights: Any) -> Any:
        zeros = jnp.zeros_like(weights)
        batch = Batch(
            features=jnp.asarray(states),
            actions=jnp.asarray(actions),
            log_probs=zeros,
            advantages=advantages,
            returns=zeros,
            values=zeros,
            weights=weights,
            action_masks=None,
            episode_start=zeros > 0.0,
            carry=(),
            critic_carry=(),
        )

        def distribution(parameters: Any, rows: Batch) -> Categorical:
            return Categorical(parameters[rows.features])

        def gain(new: Any, rows: Batch) -> Any:
            return weighted_mean(score(new.log_prob(rows.actions), rows.advantages), rows.weights), {}

        problem = Problem(gain, lambda parameters, rows: (jnp.zeros(()), {}), distribution, lambda _: batch)
        inside = Joint(Ascent(Optimiser(Constant(1.0), optax.identity())), 0.0)
        solver = AverageTrustRegion(inside, delta, 0.9)
        start = {"policy": logits, "critic": {}}
        state = {**solver.init(start), "average": mean_logits}
        new, after, about = solver.solve(problem, start, state, jnp.ones(()), jnp.zeros(2, jnp.uint32))
        return new["policy"] - logits, after["average"], about["projected"]

    change, after, projected = told(np.log(probs), np.log(mean_probs), advantages, weights)
    if not 0.1 < projected < 0.9:
        raise ValueError(f"{float(projected):.2f} of the rows are bent, and the check needs both kinds")
    gradients = advantages[:, None] * (np.eye(2)[actions] - probs[states])
    outwards = (probs - mean_probs)[states]
    excess = np.maximum(0.0, np.sum(outwards * gradients, -1) - delta) / np.sum(outwards**2, -1)
    wanted = np.zeros(probs.shape)
    np.add.at(wanted, states, (weights / weights.sum())[:, None] * (gradients - excess[:, None] * outwards))
    follows = 0.9 * np.log(mean_probs) + 0.1 * (np.log(probs) + wanted)
    return max(gap(change, wanted), gap(after, follows))


@check(
    "trust-regions/trajectories",
    "means over all trajectories of KL, its estimate and log(old / new) against the exact",
    1e-12,
)
def trajectories() -> float:
    """All three are the divergence between the distributions of trajectories; the mean over steps is a third of it."""
    all_of, size = enumeration.everything(), enumeration.everything().states.size
    states, actions = all_of.states.T.ravel(), all_of.actions.T.ravel()

    @compiled_in_double
    def told(old_table: Any, new_table: Any) -> Any:
        old, new = (Categorical(table[jnp.asarray(states)]) for table in (old_table, new_table))
        zeros = jnp.zeros(size)
        batch = Batch(
            features=jnp.asarray(states),
            actions=jnp.asarray(actions),
            log_probs=old.log_prob(jnp.asarray(actions)),
            advantages=zeros,
            returns=zeros,
            values=zeros,
            weights=zeros + 1.0,
            action_masks=None,
            episode_start=jnp.arange(size) % enumeration.LENGTH == 0,
            carry=(),
            critic_carry=(),
        )
        mean = MeanOverTrajectories(all_of.shape[1])
        whole = [mean(divergence(old, new, batch), batch) for divergence in (kl, kl_of_actions, log_ratio_of_actions)]
        return jnp.stack(whole), mean_over_steps(kl(old, new, batch), batch)

    old, new = enumeration.ACTED, enumeration.OTHER
    exact = float(enumeration.exact(1.0).visits.sum(0) @ np.sum(old * np.log(old / new), -1))
    whole, steps = told(np.log(old), np.log(new))
    return max(gap(whole, np.full(3, exact)), gap(steps, exact / enumeration.LENGTH))
