"""Fisher matrices, their products, the systems they make, and the length of steps, in double precision."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jumar.lab import gradients, tabular
from jumar.lab.families import softmax
from jumar.lab.precision import compiled_in_double
from jumar.lab.tabular import TabularMDP
from jumar.policies.distributions import Bernoulli, Categorical, DiagGaussian, MultiCategorical, SquashedGaussian
from jumar.solvers import Boundary, ConjugateGradient, Dense, MeanKL, Step
from jumar.solvers import fisher as curvature
from jumar.verification import enumeration
from jumar.verification.compare import gap, relative_gap
from jumar.verification.exact_batches import SIZE, exact_problem, family, parameters, process, unravel
from jumar.verification.registry import check

NUDGE = 1e-5
"""Of central differences; what they leave of a smooth function is some 1e-10."""
DELTAS = np.array([1e-3, 1e-5, 1e-7])
DAMPING = 0.1


@functools.cache
def _told() -> dict[str, Any]:
    """Return everything about the curvature of one policy, by one program."""

    @compiled_in_double
    def told(mdp: TabularMDP, flat: Any, vector: Any) -> dict[str, Any]:
        exact = exact_problem(mdp, flat)
        problem, batch, policies = exact.problem, exact.batch, family()

        def divergence(new: Any) -> Any:
            return problem.distance(flat, new, batch)[0]

        def at_rows(x: Any) -> Any:
            return problem.distribution(x, batch)

        product = curvature.fisher_product(at_rows, flat, batch.weights)
        gradient = jax.grad(lambda x: problem.policy_objective(x, batch)[0])(flat)
        nudges = NUDGE * jnp.eye(SIZE)
        slopes = [jax.vmap(jax.grad(divergence))(flat + sign * nudges) for sign in (1.0, -1.0)]
        scores = curvature.scores(lambda x: policies(x).log_probs, flat)

        def stepped(delta: Any, damping: float) -> Any:
            mover = Step(MeanKL(ConjugateGradient(60), damping), Boundary(delta))
            key = jnp.zeros(2, jnp.uint32)
            moved = mover.move(problem, flat, unravel, batch, (), jnp.ones(()), key)
            return moved.flat - flat, divergence(moved.flat), moved.about["predicted_improvement"]

        damped = curvature.damped(product, DAMPING)
        return {
            "product": product(vector),
            "form": curvature.fisher_form(at_rows, flat, vector, batch.weights),
            "matrix": curvature.dense(product, flat),
            "hessian": (slopes[0] - slopes[1]) / (2.0 * NUDGE),
            "scores": scores,
            "probs": policies(flat).probs,
            "states": exact.states,
            "gradient": gradient,
            "truncated": curvature.conjugate_gradient(damped, gradient, 4),
            "solved": curvature.conjugate_gradient(damped, gradient, 60),
            "dense": Dense().solve(product, gradient),
            "steps": jax.lax.map(lambda delta: stepped(delta, 0.0), jnp.asarray(DELTAS)),
            "damped step": stepped(1e-3, DAMPING),
        }

    return told(process(), parameters(), np.random.default_rng(8).normal(size=SIZE))


def _explicit() -> np.ndarray:
    """Return the Fisher matrix as the mean of outer products of scores over states and actions."""
    told = _told()
    return np.einsum("s,sa,sai,saj->ij", told["states"], told["probs"], told["scores"], told["scores"])


@check("curvature/fisher-matrix", "the matrix by columns against the mean outer product of scores", 1e-12)
def fisher_matrix() -> float:
    return gap(_told()["matrix"], _explicit())


@check("curvature/fisher-product", "products with a vector, and the form, against those with that matrix", 1e-11)
def fisher_product() -> float:
    told, vector = _told(), np.random.default_rng(8).normal(size=SIZE)
    return max(gap(told["product"], _explicit() @ vector), abs(float(told["form"] - vector @ _explicit() @ vector)))


@check(
    "curvature/fisher-hessian", "the matrix against the second differences of the mean KL(old || new) per step", 1e-8
)
def fisher_hessian() -> float:
    return gap(_told()["matrix"], _told()["hessian"])


@check("curvature/conjugate-gradient", "the solution of the damped system against that of NumPy", 1e-8)
def conjugate_gradient() -> float:
    told = _told()
    return relative_gap(told["solved"].x, np.linalg.solve(_explicit() + DAMPING * np.eye(SIZE), told["gradient"]))


@check(
    "curvature/residual",
    "the reported residual after four iterations, compared with the residual of the returned solution",
    1e-10,
)
def residual() -> float:
    told = _told()
    left = told["gradient"] - (_explicit() + DAMPING * np.eye(SIZE)) @ told["truncated"].x
    size = float(np.linalg.norm(left) / np.linalg.norm(told["gradient"]))
    return abs(float(told["truncated"].residual) - size)


@check("curvature/dense", "the solution of least norm against the pseudo-inverse of NumPy", 1e-7)
def dense() -> float:
    told = _told()
    return relative_gap(told["dense"].x, np.linalg.pinv(_explicit(), rcond=1e-12) @ told["gradient"])


@check(
    "curvature/step-length", "half of d'Fd with the undamped F over delta, of steps by a damped system, from 1", 1e-10
)
def step_length() -> float:
    step, _, _ = _told()["damped step"]
    return abs(0.5 * step @ _explicit() @ step / 1e-3 - 1.0)


@check(
    "curvature/divergence-order", "order in delta at which KL / delta of natural steps comes near 1, below 1/2", 0.05
)
def divergence_order() -> float:
    _, divergences, _ = _told()["steps"]
    gaps = np.abs(divergences / DELTAS - 1.0)
    if gaps[-1] > 1e-2:
        raise ValueError(f"the divergence of a small step is {divergences[-1] / DELTAS[-1]:.3g} times delta")
    return 0.5 - float(np.log(gaps[0] / gaps[-1]) / np.log(DELTAS[0] / DELTAS[-1]))


@check("curvature/promise", "the gain that a natural step promises against sqrt(2 delta g' F^-1 g)", 1e-7)
def promise() -> float:
    told = _told()
    wanted = np.sqrt(2.0 * DELTAS * (told["gradient"] @ np.linalg.pinv(_explicit(), rcond=1e-12) @ told["gradient"]))
    return relative_gap(told["steps"][2], wanted)


@functools.cache
def _closed_forms() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return each distribution's Fisher product in closed form, and that of differences of its divergence."""

    @compiled_in_double
    def told(logits: Any, mean: Any, log_std: Any, vector: Any) -> Any:
        cases: dict[str, Any] = {
            "categorical": (lambda x: Categorical(x[:6].reshape(2, 3)), jnp.ravel(logits)[:6]),
            "multi-categorical": (lambda x: MultiCategorical(x[:6].reshape(2, 3)), jnp.ravel(logits)[:6]),
            "bernoulli": (lambda x: Bernoulli(x[:4]), jnp.ravel(logits)[:4]),
            "gaussian": (lambda x: DiagGaussian(x[:2], x[2:4]), jnp.concatenate([mean, log_std])),
            "squashed": (
                lambda x: SquashedGaussian(DiagGaussian(x[:2], x[2:4]), (1.0, 3.0)),
                jnp.concatenate([mean, log_std]),
            ),
        }
        found = {}
        for name, (made, flat) in cases.items():
            tangent = vector[: flat.size]

            def slope(x: Any, made: Any = made, flat: Any = flat) -> Any:
                return jax.grad(lambda x: jnp.sum(made(flat).kl(made(x))))(x)

            exact = made(flat).fisher_product(made(tangent))
            flattened = jnp.concatenate([jnp.ravel(x) for x in jax.tree.leaves(exact)])
            differences = (slope(flat + NUDGE * tangent) - slope(flat - NUDGE * tangent)) / (2.0 * NUDGE)
            found[name] = flattened, differences
        return found

    draw = np.random.default_rng(9)
    return told(draw.normal(size=(2, 3)), draw.normal(size=2), 0.5 * draw.normal(size=2), draw.normal(size=6))


@check("curvature/closed-forms", "each distribution's Fisher product against differences of its KL's slope", 1e-7)
def closed_forms() -> float:
    return max(gap(*pair) for pair in _closed_forms().values())


@functools.cache
def _of_trajectories() -> dict[str, Any]:
    """Return sampled Fisher matrices of all trajectories of the small process, and the exact ones."""
    all_of = enumeration.everything()

    @compiled_in_double
    def told(mdp: TabularMDP, flat: Any, vector: Any) -> dict[str, Any]:
        policies = softmax(mdp)

        def log_prob(x: Any) -> Any:
            return policies(x).log_probs[jnp.asarray(all_of.states.T), jnp.asarray(all_of.actions.T)]

        scores, ones = curvature.scores(log_prob, flat), jnp.ones(all_of.states.T.shape)
        trajectory = jnp.broadcast_to(jnp.arange(ones.shape[0])[:, None], ones.shape)
        occupied = jnp.mean(jnp.asarray(tabular.occupancies(mdp, policies(flat), enumeration.LENGTH)), 0)
        return {
            "step": curvature.step_fisher(scores, ones),
            "trajectory": curvature.trajectory_fisher(scores, ones),
            "step product": curvature.step_fisher_product(log_prob, flat, ones)(vector),
            "trajectory product": curvature.trajectory_fisher_product(log_prob, flat, ones, trajectory, len(ones))(
                vector
            ),
            "exact step": gradients.step_fisher(policies, flat, occupied),
            "exact trajectory": gradients.trajectory_fisher(mdp, policies, flat, enumeration.LENGTH),
        }

    size = enumeration.STATES * enumeration.ACTIONS
    return told(enumeration.process(), np.log(enumeration.ACTED).reshape(-1), np.arange(size) / size)


@check(
    "curvature/sampled-steps",
    "mean over all trajectories of sampled Fisher matrices per step against the exact one",
    1e-12,
)
def sampled_steps() -> float:
    told = _of_trajectories()
    return max(gap(told["step"], told["exact step"]), gap(told["step product"], told["exact step"] @ _vector()))


@check("curvature/sampled-trajectories", "the same of whole trajectories", 1e-12)
def sampled_trajectories() -> float:
    told = _of_trajectories()
    exact = told["exact trajectory"]
    return max(gap(told["trajectory"], exact), gap(told["trajectory product"], exact @ _vector()))


def _vector() -> np.ndarray:
    size = enumeration.STATES * enumeration.ACTIONS
    return np.arange(size) / size
