"""Policy iteration: what fitted values can lose, and what the advantages of an optimal policy are."""

from __future__ import annotations

import numpy as np
from jax import Array

from jumar.lab.dynamic_programming import optimal_policy
from jumar.lab.examples.example import Example, Findings
from jumar.lab.examples.processes import ENDLESS, OLD, policy, softmax_data, tables
from jumar.lab.fitted_iteration import FORK, FORK_FEATURES, FORK_POLICY, degradation_bound, fitted_step, least_squares
from jumar.lab.precision import compiled_in_double
from jumar.lab.tabular import action_values, advantages, state_values
from jumar.lab.texts import NOTES


def _find_fitted() -> Findings:
    def step() -> tuple[Array, ...]:
        done = fitted_step(FORK, FORK_POLICY, least_squares(FORK_FEATURES))
        values = [state_values(FORK, one) for one in (FORK_POLICY, done.new)]
        bound = degradation_bound(FORK, FORK_POLICY, done.new)
        return (
            done.performance,
            done.worst_advantage,
            done.shift,
            action_values(FORK, FORK_POLICY),
            done.new.probs,
            *values,
            bound,
        )

    (before, after), worst, shift, exact, new, old_values, new_values, bound = compiled_in_double(step)()
    lost = new_values - old_values
    return Findings(
        {
            **{f"P(s' | s={s}, a)": FORK.transitions[s] for s in range(3)},
            "r(s, a)": FORK.rewards,
            "P(s_0)": FORK.initial,
            "gamma": FORK.gamma,
            "steps": FORK.horizon,
            "pi(a|s)": FORK_POLICY.probs,
            "features of (s, a)": "the same for states 1 and 2",
        },
        {
            "Q of pi with 2 steps left": exact[0],
            "Q of pi with 1 step left": exact[1],
            "pi_new, greedy in the fitted values, step 1": new[0],
            "step 2": new[1],
            "J of pi": before,
            "J of pi_new": after,
            "Delta, the worst advantage of pi_new": worst,
            "V_new - V_old with 2 steps left, by state": lost[0],
            "total variation between their states": shift,
        },
        {
            "V_new >= V_old + H Delta": "in some states",
            "it holds in all states and steps": True,
            "lower bound of V_new at the first state": old_values[0, 0] + (FORK.horizon or 0) * worst,
        },
        {
            "V_new >= V_old + H Delta": "in all states",
            "it holds in all states and steps": bool(np.all(new_values >= bound - 1e-12)),
            "lower bound of V_new at the first state": bound[0, 0],
        },
    )


def _find_optimal() -> Findings:
    def tables_of() -> tuple[Array, ...]:
        best = optimal_policy(ENDLESS)
        return best.probs, state_values(ENDLESS, best), advantages(ENDLESS, best), advantages(ENDLESS, policy(OLD))

    best, values, of_best, of_old = compiled_in_double(tables_of)()
    return Findings(
        {**tables(ENDLESS), "another policy": "softmax of theta[s, a]", **softmax_data(theta=OLD)},
        {
            "optimal policy": best,
            "its values": values,
            "its advantages": of_best,
            "largest advantage of the other policy, by state": of_old.max(-1),
        },
        {"largest advantage of the optimal policy": np.zeros(3), "advantages of it above 0": 0},
        {
            "largest advantage of the optimal policy": of_best.max(-1),
            "advantages of it above 0": int(np.sum(of_best > 1e-12)),
        },
    )


EXAMPLES = (
    Example(
        "fitted-policy-iteration",
        "how a greedy step on fitted values can lose",
        f"{NOTES}, section 4.6.1",
        "A policy becomes greedy with respect to action values that were fitted to the old policy's data. How much worse "
        "can it be, and where?",
        "Wrong in the words alone: the bound holds in every state, and the worst advantage is over states and steps. It "
        "does not keep the new policy from being worse. The values were fitted where the old policy is; the new one goes "
        "where they are wrong.",
        _find_fitted,
    ),
    Example(
        "optimal-advantages",
        "the advantages of an optimal policy",
        f"{NOTES}, section 4.4",
        "Can an action have a positive advantage over an optimal policy?",
        "Right: no action is better than those of an optimal policy, so that its advantages are at most 0, and 0 for what "
        "it does. Any other policy has an action with a positive advantage somewhere.",
        _find_optimal,
    ),
)
"""The examples of this module."""
