"""Where updates need care: steps at the edges, limits of the gradient, and when a line search accepts a step or gives up."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jumar.lab import worked
from jumar.lab.examples.example import Example, Findings
from jumar.lab.examples.trust_region import ROLLOUTS, updated
from jumar.lab.gradients import natural_step, solve
from jumar.lab.local_models import Known, Sampled
from jumar.lab.precision import compiled_in_double
from jumar.lab.rollouts import sampled_gradient
from jumar.lab.textbook import RestrictedPolicyGradient, TrustRegionUpdate
from jumar.lab.texts import BOOK, NATURAL_SLIDES
from jumar.lab.worked import EXAMPLE_12_1, OneState
from jumar.solvers.ascent import clip_gradient, scale_gradient
from jumar.solvers.fisher import trajectory_fisher


def _find_degenerate() -> Findings:
    update, nothing = updated(), np.zeros(2)
    one = EXAMPLE_12_1._replace(actions=EXAMPLE_12_1.actions[:1])

    def of_one() -> tuple[jax.Array, ...]:
        each = worked.action_scores(one)
        fisher = trajectory_fisher(each, jnp.ones((1, 3)))
        gradient = sampled_gradient(each, worked.rollouts(one).returns(one.gamma), jnp.ones(3))
        natural = natural_step(jnp.asarray(update.fisher), jnp.asarray(nothing), EXAMPLE_12_1.epsilon)
        flat = RestrictedPolicyGradient(Known(lambda theta, _: jnp.zeros_like(theta)), EXAMPLE_12_1.epsilon)
        restricted = flat.update(jnp.asarray(nothing), jax.random.PRNGKey(0)).theta
        return fisher, gradient, solve(fisher, gradient), natural, restricted, scale_gradient(jnp.asarray(nothing), 1.0)

    fisher, gradient, direction, natural, restricted, scaled = compiled_in_double(of_one)()
    with np.errstate(divide="ignore", invalid="ignore"):
        printed = nothing * np.sqrt(2.0 * EXAMPLE_12_1.epsilon / (nothing @ nothing))
    return Findings(
        {**ROLLOUTS, "rollouts that are used": "tau1 alone"},
        {
            "F(tau1), of one rollout": fisher,
            "its eigenvalues": np.linalg.eigvalsh(fisher),
            "gradient of one rollout": gradient,
            "direction u of least norm with F u = g": direction,
            "F u": fisher @ direction,
            "gradient 0, scaled to norm 1": scaled,
            "natural step for gradient 0": natural,
        },
        {"step u sqrt(2 eps / u^T u) for u = 0": printed, "F^-1 with fewer rollouts than parameters": "inverse of F"},
        {
            "step u sqrt(2 eps / u^T u) for u = 0": restricted,
            "F^-1 with fewer rollouts than parameters": "pseudo-inverse of F",
        },
    )


def _find_search_end() -> Findings:
    def search() -> tuple[jax.Array, ...]:
        theta = jnp.asarray(EXAMPLE_12_1.theta)
        model = Sampled(OneState(), len(EXAMPLE_12_1.actions))
        local = model.of_rollouts(theta, worked.rollouts(EXAMPLE_12_1))
        found = TrustRegionUpdate(model, EXAMPLE_12_1.epsilon).step(theta, local._replace(gradient=-local.gradient))
        halves = jnp.asarray([0, 10, 30, 60])
        tried = [local.objective(theta + (found.whole - theta) * 0.5**n) for n in halves]
        ended = (found.shrinks + 1 == TrustRegionUpdate.most) & ~found.accepted
        return found.whole, jnp.stack(tried), ended, found.theta, local.objective(theta)

    whole, tried, ended, theta, before = compiled_in_double(search)()
    return Findings(
        {**ROLLOUTS, "direction": "the wrong way: that of minus the gradient", "alpha": 0.5},
        {
            "theta' of the whole step": whole,
            "f at theta": before,
            "f after 0, 10, 30 and 60 halvings": tried,
        },
        {"the search ends": False, "theta after it": "none"},
        {"the search ends": bool(ended), "theta after it": theta},
    )


def _find_search() -> Findings:
    update = updated()
    backward = compiled_in_double(lambda new: worked.surrogate_objective(EXAMPLE_12_1, new))(
        2 * EXAMPLE_12_1.theta - update.theta
    )
    return Findings(
        ROLLOUTS,
        {
            "f at theta": update.objective_before,
            "f after the step": update.objective,
            "f after the same step backward": backward,
        },
        {"rule": "f >= 0", "accepts the step backward": bool(backward >= 0.0)},
        {"rule": "f >= f(theta)", "accepts the step backward": bool(backward >= update.objective_before)},
    )


GRADIENT, MAX_NORM, BOUNDS = np.array([1024.0, -4.0]), 1.0, (-1.0, 1.0)


def _find_limits() -> Findings:
    def limited(gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
        return scale_gradient(gradient, MAX_NORM), clip_gradient(gradient, BOUNDS[1], BOUNDS[0])

    scaled, clipped = compiled_in_double(limited)(GRADIENT)
    cosines = [GRADIENT @ new / np.linalg.norm(GRADIENT) / np.linalg.norm(new) for new in (scaled, clipped)]
    return Findings(
        {"gradient": GRADIENT, "largest norm": MAX_NORM, "bounds of each entry": BOUNDS},
        {"scaled": scaled, "clipped": clipped, "cosines with the gradient": cosines},
        {"scaling keeps the direction": True, "clipping keeps the direction": False},
        {
            "scaling keeps the direction": bool(cosines[0] > 1.0 - 1e-12),
            "clipping keeps the direction": bool(cosines[1] > 1.0 - 1e-12),
        },
    )


EXAMPLES = (
    Example(
        "degenerate-steps",
        "steps where the gradient is 0 or F is singular",
        f"{BOOK}, Algorithms 12.2 to 12.4",
        "What do the steps give for a gradient of 0, and where there are fewer rollouts than parameters?",
        "Wrong at the edges. With a gradient of 0 equations 12.6 and 12.12 are 0 times infinity; no step is right. With "
        "fewer rollouts than parameters F is singular. Its pseudo-inverse serves, as the gradient of the same rollouts "
        "lies in the range of F; so do damping and conjugate gradient.",
        _find_degenerate,
    ),
    Example(
        "line-search-end",
        "when a line search gives up",
        f"{BOOK}, Algorithm 12.5",
        "What does the line search do if no step along the direction makes the surrogate objective larger?",
        "Wrong where no step is good: the loop of Algorithm 12.5 has no end if f(theta') > f(theta) never comes true. It "
        "can happen, as the direction is that of whole returns and f is of rewards-to-go, or with a gradient of 0 or one "
        "that is not finite. Jumar tries a given number of steps and then keeps theta.",
        _find_search_end,
    ),
    Example(
        "line-search-rule",
        "when a line search accepts a step",
        f"{NATURAL_SLIDES}, Algorithm 2; likewise Yang's slides on TRPO",
        "A step is accepted if the surrogate objective is at least 0. Is that enough, with the objective of Example 12.1?",
        "Wrong where the signals are not centred. The rule assumes that the objective is 0 at the old parameters. With "
        "rewards-to-go, or with sampled advantages, it is not, and a step that makes it worse can pass. Compare with its "
        "value at theta.",
        _find_search,
    ),
    Example(
        "scaling-and-clipping",
        "two limits of a gradient",
        f"{BOOK}, section 12.1 and Algorithm 12.2",
        "Where rewards differ by orders of magnitude, so do gradients. What do scaling to a norm and clipping of each "
        "entry make of one?",
        "Right: both limit how far a step goes, and scaling alone keeps the direction.",
        _find_limits,
    ),
)
"""The examples of this module."""
