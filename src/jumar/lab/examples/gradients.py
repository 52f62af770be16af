"""Forms of the policy gradient: which ones are right, shown by sums over all trajectories of a small process."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from jumar.lab import gradients, tabular, worked
from jumar.lab.arguments import ArrayLike
from jumar.lab.examples.example import Example, Findings
from jumar.lab.examples.processes import EPISODE, EVEN, NEW, OLD, PATIENCE, by_action, policy, softmax_data, tables
from jumar.lab.families import linear_softmax, softmax
from jumar.lab.precision import compiled_in_double
from jumar.lab.rollouts import discounts, sampled_gradient
from jumar.lab.tabular import TabularMDP
from jumar.lab.texts import LECTURE, NOTES, TRPO_SLIDES
from jumar.lab.trajectories import every_trajectory, log_ratios, probabilities
from jumar.policies.distributions import DiagGaussian
from jumar.solvers.fisher import scores

ETA, DELTA, STEPS = 0.01, 0.01, 5


def _find_bernoulli() -> Findings:
    thetas = np.array([-5.0, 0.0, 5.0])
    mdp, family = worked.BERNOULLI, worked.bernoulli

    def local(theta: Array) -> tuple[Array, Array, Array, Array]:
        flat = theta[None]
        gradient, fisher = (
            gradients.policy_gradient(mdp, family, flat),
            gradients.step_fisher(family, flat, jnp.ones(1)),
        )
        step = gradients.natural_step(fisher, gradient, DELTA)
        return gradient[0], fisher[0, 0], gradients.natural_gradient(mdp, family, flat)[0], step[0]

    def climbed() -> tuple[Array, Array, Array]:
        def further(at: Array, _: None) -> tuple[Array, Array]:
            steps = [local(theta) for theta in at]
            new = jnp.stack([at[0] + ETA * steps[0][0], at[1] + ETA * steps[1][2], at[2] + steps[2][3]])
            return new, new

        _, path = jax.lax.scan(further, jnp.zeros(3), None, length=STEPS)
        return path[:, 0], path[:, 1], path[:, 2]

    gradient, fisher, natural, step = compiled_in_double(jax.vmap(local))(thetas)
    plain, constant, normalised = compiled_in_double(climbed)()
    exponential = np.exp(thetas)
    return Findings(
        {
            "pi(1) at theta": "1 / (1 + e^-theta)",
            "reward of actions 0, 1": [1, 100],
            "theta": thetas,
            "eta": ETA,
            "delta": DELTA,
        },
        {
            "step of length sqrt(2 delta / g^T F^-1 g)": step,
            "theta of plain ascent, eta g": plain,
            "theta of natural ascent, eta F^-1 g": constant,
            "theta of normalised natural steps": normalised,
        },
        {
            "gradient, 99 e^theta / (1 + e^theta)^2": 99.0 * exponential / (1.0 + exponential) ** 2,
            "F, e^theta / (1 + e^theta)^2": exponential / (1.0 + exponential) ** 2,
            "natural gradient, 99": np.full(3, 99.0),
            "steps of natural ascent, 99 eta": np.full(STEPS, 99.0 * ETA),
        },
        {
            "gradient, 99 e^theta / (1 + e^theta)^2": gradient,
            "F, e^theta / (1 + e^theta)^2": fisher,
            "natural gradient, 99": natural,
            "steps of natural ascent, 99 eta": np.diff(constant, prepend=0.0),
        },
    )


# -- sums over all trajectories ----------------------------------------------------------------------------------------


def _expected(mdp: TabularMDP, flat: np.ndarray, signals: ArrayLike, weights: ArrayLike | float = 1.0) -> np.ndarray:
    """Return the expectation of the sum over steps of weight, signal and score, [S, A], of a tabular softmax policy."""
    family, every = softmax(mdp), every_trajectory(mdp)

    def expectation(flat: Array) -> Array:
        each = scores(lambda flat: family(flat).log_probs, flat)[every.states, every.actions]
        # A mean over trajectories that are weighted by their probabilities is an expectation.
        exact = probabilities(mdp, family(flat), every) * len(every.states)
        return sampled_gradient(each, jnp.asarray(signals) * exact[:, None], jnp.asarray(weights))

    return by_action(compiled_in_double(expectation)(flat))


def _exact(mdp: TabularMDP, flat: np.ndarray) -> np.ndarray:
    return by_action(compiled_in_double(lambda flat: gradients.policy_gradient(mdp, softmax(mdp), flat))(flat))


def _off(found: np.ndarray, exact: np.ndarray) -> float:
    """Return how far an expectation is from the gradient, as a share of its length."""
    return float(np.linalg.norm(found - exact) / np.linalg.norm(exact))


DATA = {**tables(EPISODE), "policy": "softmax of theta[s, a]", **softmax_data(theta=OLD)}


def _find_discounted() -> Findings:
    every = every_trajectory(EPISODE)
    to_go, whole = np.asarray(every.reward_to_go(EPISODE.gamma)), np.asarray(every.returns(EPISODE.gamma))
    weights = np.asarray(discounts(EPISODE.gamma, EPISODE.horizon or 0))
    exact, without = _exact(EPISODE, OLD), _expected(EPISODE, OLD, to_go)
    return Findings(
        DATA,
        {
            "gradient of J": exact,
            "E[sum_t score_t R(tau)]": _expected(EPISODE, OLD, whole),
            "E[sum_t gamma^t score_t G_t]": _expected(EPISODE, OLD, to_go, weights),
            "E[sum_t score_t G_t]": without,
            "bias of the last one, share of the gradient": _off(without, exact),
        },
        {"gradient of discounted rewards": without, "of each term": "score_t G_t"},
        {
            "gradient of discounted rewards": _expected(EPISODE, OLD, to_go, weights),
            "of each term": "gamma^t score_t G_t",
        },
    )


def _find_immediate() -> Findings:
    every, horizon = every_trajectory(PATIENCE), PATIENCE.horizon or 0
    weights = np.asarray(discounts(PATIENCE.gamma, horizon))
    now = _expected(PATIENCE, EVEN, np.asarray(every.rewards), weights)
    values = compiled_in_double(lambda flat: tabular.action_values(PATIENCE, softmax(PATIENCE)(flat)))(EVEN)
    judged = np.asarray(values)[np.arange(horizon), every.states, every.actions]
    exact, right = _exact(PATIENCE, EVEN), _expected(PATIENCE, EVEN, judged, weights)
    cosine = np.sum(now * exact) / np.linalg.norm(now) / np.linalg.norm(exact)
    return Findings(
        {**tables(PATIENCE), "policy": "softmax of theta[s, a]", **softmax_data(theta=EVEN)},
        {
            "gradient of J": exact,
            "E[sum_t gamma^t score_t r_t]": now,
            "E[sum_t gamma^t score_t Q(s_t, a_t)]": right,
            "cosine of the first and the second": cosine,
        },
        {"gradient of J": now, "what judges an action": "r(s, a)"},
        {"gradient of J": right, "what judges an action": "Q(s, a)"},
    )


def _find_importance() -> Findings:
    every = every_trajectory(EPISODE)

    def worths() -> tuple[Array, Array, Array, Array]:
        old, new = policy(OLD), policy(NEW)
        probs, logs = probabilities(EPISODE, old, every), log_ratios(new, old, every.states, every.actions)
        rewards = discounts(EPISODE.gamma, logs.shape[1]) * every.rewards
        steps = jnp.arange(1, logs.shape[1] + 1)
        right, printed = jnp.exp(jnp.cumsum(logs, 1)), jnp.exp(steps * logs)
        sums = [jnp.sum(probs[:, None] * weights * rewards) for weights in (right, printed)]
        return tabular.performance(EPISODE, old), tabular.performance(EPISODE, new), sums[0], sums[1]

    old, new, right, printed = compiled_in_double(worths)()
    return Findings(
        {
            **tables(EPISODE),
            "policy": "softmax of theta[s, a]",
            **softmax_data(**{"theta that acted": OLD, "theta": NEW}),
        },
        {"J of the policy that acted": old, "J of the policy": new},
        {"weight of step t": "prod_{i<=t} ratio(a_t, s_t)", "J by importance sampling": printed},
        {"weight of step t": "prod_{i<=t} ratio(a_i, s_i)", "J by importance sampling": right},
    )


# -- scores ------------------------------------------------------------------------------------------------------------


def _find_gaussian_score() -> Findings:
    features, theta, action, sigma = (
        np.array([1.0, -2.0, 0.5]),
        np.array([[0.2, 0.1], [0.3, -0.4], [-0.6, 0.8]]),
        np.array([0.5, -1.0]),
        0.5,
    )

    def log_prob(theta: Array) -> Array:
        mean = features @ theta
        return DiagGaussian(jnp.asarray(mean), jnp.full_like(mean, jnp.log(sigma))).log_prob(jnp.asarray(action))

    by_derivative = compiled_in_double(jax.grad(log_prob))(theta)
    mean = features @ theta
    formula = np.outer(features, action - mean) / sigma**2
    return Findings(
        {"phi(s)": features, "theta": theta, "sigma": sigma, "action": action},
        {"mu = theta^T phi(s)": mean, "derivative of log pi(a|s)": by_derivative},
        {"score, phi (a - mu)^T / sigma^2": formula},
        {"score, phi (a - mu)^T / sigma^2": by_derivative},
    )


FEATURES = np.array([[[1.0, 0.0], [0.0, 1.0]], [[0.5, -1.0], [1.0, 0.5]], [[-1.0, 1.0], [0.3, 0.2]]])


def _find_linear_score() -> Findings:
    theta, family = np.array([0.4, -0.3]), linear_softmax(FEATURES)

    def forms(flat: Array) -> tuple[Array, Array, Array, Array]:
        policy = family(flat)
        each = scores(lambda flat: family(flat).log_probs, flat)
        formula = jnp.asarray(FEATURES) - jnp.einsum("sa,sad->sd", policy.probs, FEATURES)[:, None]
        visits = tabular.visitation(EPISODE, policy)[..., None] * policy.probs * tabular.advantages(EPISODE, policy)
        return (
            each,
            formula,
            jnp.einsum("tsa,sad->d", visits, FEATURES),
            gradients.policy_gradient(EPISODE, family, flat),
        )

    each, formula, expectation, exact = compiled_in_double(forms)(theta)
    return Findings(
        {
            **tables(EPISODE),
            "phi(s=0, a)": FEATURES[0],
            "phi(s=1, a)": FEATURES[1],
            "phi(s=2, a)": FEATURES[2],
            "theta": theta,
        },
        {"derivative of log pi(a | s=0), by action": each[0], "gradient of J": exact},
        {"score at s=0, phi - E[phi]": formula[0], "gradient, E[sum_t gamma^t phi A]": expectation},
        {"score at s=0, phi - E[phi]": each[0], "gradient, E[sum_t gamma^t phi A]": exact},
    )


def _find_softmax() -> Findings:
    theta = OLD.reshape(3, 2)
    right = compiled_in_double(lambda flat: softmax(EPISODE)(flat).probs)(OLD)
    printed = np.exp(theta) / np.sum(np.exp(theta))
    return Findings(
        {"theta[s, a]": theta},
        {"sums over actions, as printed": printed.sum(-1), "sums over actions": right.sum(-1)},
        {"denominator": "sum_{s, a'} exp theta[s, a']", "pi(a|s)": printed},
        {"denominator": "sum_{a'} exp theta[s, a']", "pi(a|s)": right},
    )


EXAMPLES = (
    Example(
        "example-4.6.1",
        "the natural gradient of a Bernoulli policy",
        f"{NOTES}, Example 4.6.1",
        "One decision, whose action 1 is worth 100 and whose action 0 is worth 1. What are the gradient, the Fisher "
        "matrix and the natural gradient, and how do three kinds of ascent from theta = 0 go?",
        "Right. The natural gradient is 99 everywhere, where the plain one vanishes on both sides. That is so with a "
        "fixed eta: a step normalised to the divergence delta is sqrt(2 delta / F), which grows without bound with "
        "|theta|.",
        _find_bernoulli,
    ),
    Example(
        "discounted-gradient",
        "the reward-to-go gradient of a discounted return",
        f"{NOTES}, exercise on equation 4.3; the weights are missing in the sample objective of {TRPO_SLIDES}",
        "How does equation 4.3 change where rewards are discounted? Shown on a small process, by sums over all of its "
        "trajectories.",
        "Wrong if only the reward-to-go is discounted. Of the discounted J each term of equation 4.3 has the weight "
        "gamma^t beside the discounted reward-to-go; the whole return needs none, as it carries its discounts. Training "
        "leaves gamma^t out on purpose.",
        _find_discounted,
    ),
    Example(
        "immediate-reward",
        "the immediate reward in the policy gradient",
        f"{LECTURE}, gradient of the first slides",
        "May an action be judged by its immediate reward? Shown on a small process, by sums over all of its trajectories.",
        "Wrong: with the immediate reward, what an action leads to does not count. Q(s, a), the reward-to-go or the whole "
        "return of the trajectory belong in its place.",
        _find_immediate,
    ),
    Example(
        "importance-weights",
        "the weight of a step under another policy",
        f"{LECTURE}, off-policy gradient",
        "A policy is judged by what another one did. Which ratios of probabilities weigh the reward of step t?",
        "Wrong in an index. The product goes over the steps up to t, each with the ratio of its own action. As printed it "
        "is the ratio of step t to the power t + 1, and the expectation over the other policy is not J.",
        _find_importance,
    ),
    Example(
        "gaussian-score",
        "the score of a linear Gaussian policy",
        f"{NOTES}, exercise of section 4.5.3",
        "What is the score of the policy N(theta^T phi(s), sigma^2 I)?",
        "Right: the answer to the exercise, the score of a Gaussian policy whose mean is linear in features.",
        _find_gaussian_score,
    ),
    Example(
        "linear-softmax-score",
        "the score of a softmax policy with features",
        f"{NOTES}, section 4.5.1",
        "What is the score of a policy proportional to exp(theta^T phi(s, a)), and what becomes of the policy gradient?",
        "Right: the score is phi minus its mean under the policy, and the mean drops out of the gradient, as E_a[A] = 0.",
        _find_linear_score,
    ),
    Example(
        "softmax-denominator",
        "what a softmax policy is divided by",
        f"{NOTES}, section 4.5",
        "What are the probabilities of a tabular softmax policy divided by?",
        "Wrong: with a sum over all states the probabilities of a state do not sum to 1. The sum is over the actions of "
        "the state.",
        _find_softmax,
    ),
)
"""The examples of this module."""
