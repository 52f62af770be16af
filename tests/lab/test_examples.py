"""The examples of the textbooks: their numbers to many digits, and that verdicts say what the numbers do."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import pytest

from jumar.errors import UsageError
from jumar.lab.examples import ALIASES, EXAMPLES, find
from jumar.lab.examples.example import Findings


@functools.cache
def findings(name: str) -> Findings:
    return find(name).find()


def step(name: str, what: str) -> Any:
    return findings(name).steps[what]


def right(name: str, what: str) -> Any:
    return findings(name).right[what]


def printed(name: str, what: str) -> Any:
    return findings(name).printed[what]


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_verdict_says_whether_something_is_printed_wrong(name: str) -> None:
    example, found = EXAMPLES[name], findings(name)
    assert example.name == name
    assert list(found.printed) == list(found.right)
    assert all((found.data, found.steps, found.printed))
    assert example.verdict.split()[0].rstrip(":.,") == ("Wrong" if found.wrong else "Right")
    assert example.verdict.endswith(".")
    for part in (found.data, found.steps, found.right):
        numbers = [np.asarray(value) for value in part.values() if not isinstance(value, str)]
        assert all(np.all(np.isfinite(value)) for value in numbers)
    assert example.summary(found)["wrong"] == list(found.wrong)


def test_example_12_1() -> None:
    name = "example-12.1"
    np.testing.assert_allclose(right(name, "F, their mean"), [[2.030232, 1.019765], [1.019765, 29.528644]], atol=1e-6)
    np.testing.assert_allclose(step(name, "F^-1"), [[0.501249, -0.017311], [-0.017311, 0.034463]], atol=1e-6)
    np.testing.assert_allclose(right(name, "theta'"), [0.313864, 1.0], atol=1e-6)
    np.testing.assert_allclose(right(name, "surrogate objective at theta"), 1.484667, atol=1e-6)
    np.testing.assert_allclose(right(name, "surrogate objective at theta'"), 2.109559, atol=1e-6)
    np.testing.assert_allclose(right(name, "surrogate constraint at theta'"), 0.049255, atol=1e-6)
    assert findings(name).wrong == ("F(tau2)", "F, their mean")


def test_the_exercises_of_chapter_12() -> None:
    both = findings("exercise-12.1").steps
    np.testing.assert_allclose(both["reward-to-go gradient, a sum over steps"], [4.760329, 6.948054], atol=1e-6)
    np.testing.assert_allclose(both["slope of Algorithm 12.5's objective, a mean"], [1.586776, 2.316018], atol=1e-6)
    name = "exercise-12.2"
    np.testing.assert_allclose(step(name, "theta' of the draft"), [0.766151, 1.0], atol=1e-6)
    draft = [[0.340723, 0.331820], [0.331820, 118.114577]]
    np.testing.assert_allclose(step(name, "from a draft of the rollouts: F"), draft, atol=1e-6)
    np.testing.assert_allclose(step(name, "constraint of Example 12.1 at that theta'"), 0.293255, atol=1e-6)
    name = "exercise-12.3"
    np.testing.assert_allclose(right(name, "mean of KL(pi || pi')"), 0.285181, atol=1e-6)
    np.testing.assert_allclose(step(name, "KL(pi || pi') at s1"), 0.456435, atol=1e-6)
    np.testing.assert_allclose(step(name, "KL at s1 with the third term as printed"), 0.334795, atol=1e-6)
    np.testing.assert_allclose(np.sum(step(name, "terms of the sum at s1")), 0.456435, atol=1e-6)


def test_directions_of_the_divergence_differ_by_less_and_less() -> None:
    np.testing.assert_allclose(printed("divergence-direction", "its value at pi'"), 0.286052, atol=1e-6)
    distance = np.abs(step("divergence-direction", "their ratio") - 1.0)
    np.testing.assert_allclose(distance[2] / distance[3], 10.0, rtol=0.02)  # they are the same to second order


def test_what_epsilon_bounds() -> None:
    np.testing.assert_allclose(right("trajectory-divergence", "what epsilon bounds"), 0.147766, atol=1e-6)
    assert printed("trajectory-divergence", "within epsilon")
    assert not right("trajectory-divergence", "within epsilon")


def test_the_clamped_objective_moves_where_an_update_begins() -> None:
    at_one = list(findings("clip-condition").data["ratios w"]).index(1.0)
    for what in ("no gradient, A > 0", "no gradient, A < 0"):
        assert printed("clip-condition", what)[at_one]
        assert not right("clip-condition", what)[at_one]
    np.testing.assert_array_equal(right("clip-condition", "no gradient, A > 0"), [False] * 5 + [True] * 2)
    np.testing.assert_array_equal(right("clip-condition", "no gradient, A < 0"), [True] * 2 + [False] * 5)


def test_the_natural_gradient_of_a_bernoulli_policy() -> None:
    found = findings("example-4.6.1")
    np.testing.assert_allclose(
        found.right["gradient, 99 e^theta / (1 + e^theta)^2"], [0.658158, 24.75, 0.658158], atol=1e-6
    )
    np.testing.assert_allclose(found.right["F, e^theta / (1 + e^theta)^2"], [0.006648, 0.25, 0.006648], atol=1e-6)
    np.testing.assert_allclose(found.right["natural gradient, 99"], 99.0, rtol=1e-12)
    np.testing.assert_allclose(found.steps["theta of natural ascent, eta F^-1 g"], 0.99 * np.arange(1, 6), rtol=1e-12)
    assert np.all(np.diff(found.steps["theta of plain ascent, eta g"], 2) < 0.0)
    assert np.all(np.diff(found.steps["theta of normalised natural steps"], 2) > 0.0)
    np.testing.assert_allclose(found.steps["step of length sqrt(2 delta / g^T F^-1 g)"][1], math.sqrt(0.02 / 0.25))


def test_forms_of_the_policy_gradient_summed_over_all_trajectories() -> None:
    steps = findings("discounted-gradient").steps
    for form in ("E[sum_t score_t R(tau)]", "E[sum_t gamma^t score_t G_t]"):
        np.testing.assert_allclose(steps[form], steps["gradient of J"], atol=1e-12)
    assert steps["bias of the last one, share of the gradient"] > 0.5
    # By hand: at state 0 the advantages of waiting are 1.24, 0.6 and -1 with 2, 1 and 0 steps left.
    wait = 0.25 * (1.24 + 0.8 * 0.5 * 0.6 - 0.64 * 0.25 * 1.0)
    np.testing.assert_allclose(right("immediate-reward", "gradient of J")[0], [-wait, wait], atol=1e-12)
    now = -0.25 * (1.0 + 0.8 * 0.5 + 0.64 * 0.25)
    np.testing.assert_allclose(printed("immediate-reward", "gradient of J")[0], [-now, now], atol=1e-12)


def test_importance_sampling_gives_the_performance_of_the_other_policy() -> None:
    exact = step("importance-weights", "J of the policy")
    np.testing.assert_allclose(right("importance-weights", "J by importance sampling"), exact, rtol=1e-12)
    assert abs(printed("importance-weights", "J by importance sampling") - exact) > 1.0


def test_gains_and_their_bounds() -> None:
    what = "J(new) - J(old)"
    for name in ("performance-difference", "visitation-normalisation"):
        np.testing.assert_allclose(right(name, what), step(name, what), rtol=1e-12)
        assert abs(printed(name, what) - step(name, what)) > 0.3
    for name in ("penalty-sign", "penalty-root", "mismatch-bound"):
        assert np.all(right(name, "it is at most J(new) - J(old)"))
        assert not np.all(printed(name, "it is at most J(new) - J(old)"))
    # Worked out by hand in the docstring of bounds.mismatch_example.
    steps = findings("mismatch-bound").steps
    np.testing.assert_allclose(steps[what], [-0.1121, -11.21], atol=1e-9)
    np.testing.assert_allclose(steps["L - 2 eps T^2"], [-3.275, -10.7], atol=1e-9)
    np.testing.assert_allclose(steps["L - sum_t 2 t eps max_s |E_a A|"], [-0.195, -19.5], atol=1e-9)


def test_the_right_natural_step_ends_where_the_quadratic_divergence_is_delta() -> None:
    np.testing.assert_allclose(right("natural-step-length", "quadratic divergence"), 0.01, rtol=1e-9)
    assert printed("natural-step-length", "quadratic divergence") > 0.3
    steps = findings("natural-step-length").steps
    np.testing.assert_allclose(steps["multiplier eta of g = eta F step"] * steps["1 / eta"], 1.0, rtol=1e-9)


def test_sums_of_sampled_log_ratios_can_be_negative() -> None:
    assert np.all(printed("sampled-divergence", "its values") < 0.0)
    assert np.all(right("sampled-divergence", "its values") > 0.0)
    transitions = np.array([findings("sampled-divergence").data[f"P(s' | s={s}, a)"] for s in range(3)])
    states, actions = (
        findings("sampled-divergence").data[key] for key in ("states of 6 trajectories", "their actions")
    )
    assert np.all(transitions[states[:, :-1], actions[:, :-1], states[:, 1:]] > 0.0)  # they can happen


def test_the_distribution_of_most_value_and_entropy() -> None:
    np.testing.assert_allclose(right("maximum-entropy", "p"), [0.04334, 0.18084, 0.75460, 0.02122], atol=5e-6)
    np.testing.assert_allclose(printed("maximum-entropy", "p"), [0.08537, 0.23206, 0.63080, 0.05178], atol=5e-6)
    assert np.ptp(step("maximum-entropy", "c - lambda (log p + 1) at the right p")) < 1e-12


def test_the_fields_of_figure_12_2() -> None:
    steps = findings("figure-12.2").steps
    np.testing.assert_allclose(steps["natural gradient: smallest cosine to the optimum"], 0.962036, atol=1e-6)
    np.testing.assert_allclose(steps["mean cosine"], 0.992142, atol=1e-6)
    np.testing.assert_allclose(steps["true gradient: smallest cosine"], 0.395408, atol=1e-6)
    np.testing.assert_allclose(steps["mean cosine of the true gradient"], 0.790199, atol=1e-6)
    np.testing.assert_allclose(steps["share of the true gradient along -theta2"], 0.818394, atol=1e-6)


def test_a_clipped_objective_judges_otherwise_by_values_than_by_advantages() -> None:
    steps = findings("clipped-signal").steps
    np.testing.assert_allclose(steps["without clipping, by Q"], steps["without clipping, by A"], atol=1e-12)
    assert np.max(np.abs(steps["clipped, by Q"] - steps["clipped, by A"])) > 1.0


def test_fitted_policy_iteration_loses_where_it_was_not_fitted() -> None:
    # Worked out by hand in the docstrings of fitted_iteration.FORK_POLICY and FORK_FEATURES.
    steps = findings("fitted-policy-iteration").steps
    np.testing.assert_allclose([steps["J of pi"], steps["J of pi_new"]], [0.525, -4.0], atol=1e-9)
    np.testing.assert_allclose(steps["Delta, the worst advantage of pi_new"], -5.0, atol=1e-9)
    assert steps["V_new - V_old with 2 steps left, by state"][2] == pytest.approx(-10.0)  # the bound is reached
    assert np.all(np.max(findings("optimal-advantages").right["largest advantage of the optimal policy"]) < 1e-12)


def test_steps_at_the_edges() -> None:
    found = findings("degenerate-steps")
    assert np.all(np.isnan(found.printed["step u sqrt(2 eps / u^T u) for u = 0"]))
    np.testing.assert_array_equal(found.right["step u sqrt(2 eps / u^T u) for u = 0"], 0.0)
    np.testing.assert_allclose(found.steps["F u"], found.steps["gradient of one rollout"], rtol=1e-9)
    assert abs(found.steps["its eigenvalues"][0]) < 1e-12
    found = findings("line-search-end")
    np.testing.assert_array_equal(found.right["theta after it"], [0.0, 1.0])
    assert np.all(found.steps["f after 0, 10, 30 and 60 halvings"] <= found.steps["f at theta"])


def test_a_state_value_drops_out_in_expectation_alone() -> None:
    assert abs(right("value-on-samples", "change that the term makes, exactly")) < 1e-12
    assert abs(right("value-on-samples", "on the 6 trajectories")) > 0.01


def test_an_unknown_name_gets_the_nearest_ones() -> None:
    with pytest.raises(UsageError, match=r"unknown example 'exercise-12\.4'; did you mean exercise-12\.3"):
        find("exercise-12.4")
    with pytest.raises(UsageError, match=r"did you mean example-4\.6\.1\?"):
        find("bernoulli")
    with pytest.raises(UsageError, match="did you mean mismatch-bound"):
        find("bound")
    with pytest.raises(UsageError, match="jumar example --list shows all"):
        find("zzz")
    assert set(ALIASES.values()) <= set(EXAMPLES)


def test_examples_with_numbers_are_found_by_them() -> None:
    assert [find(number).name for number in ("12.1", "12.2", "12.3", "4.6.1")] == [
        "example-12.1",
        "exercise-12.2",
        "exercise-12.3",
        "example-4.6.1",
    ]
