"""Evaluation: what an episode gives depends on the policy and its seed alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import nothing_compiled
from probes import Corridor, Metronome, Probe, one, show_time
from updates import first_learner, make_update

from jumar.collecting.evaluation import LONGEST, Seen, compiled_evaluator, host_evaluator, longest_in_training
from jumar.envs.host import SerialEnvironments
from jumar.envs.sources import FromId, source_of
from jumar.envs.step_costs import VelocityCost
from jumar.errors import EnvironmentFault, JumarError
from jumar.runs.standing import standing
from jumar.training.assembly import make_evaluator


def acting(env: Any, **settings: Any) -> tuple[Any, Any, Any]:
    """Return a policy for an environment's spaces, with parameters and moments."""
    update = make_update(env.observation_space, env.action_space, ortho_init=False, **settings)
    learner = first_learner(update)
    return update.policy, learner.parameters["policy"], learner.observation_moments


def serial(make: Callable[[], gym.Env]) -> Callable[[int], SerialEnvironments]:
    return lambda n: SerialEnvironments([make] * n, "probe")


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("settings", [{}, {"recurrent": "gru", "recurrent_size": 4}], ids=["plain", "recurrent"])
def test_results_do_not_depend_on_how_many_episodes_run_side_by_side(
    deterministic: bool, settings: dict[str, Any]
) -> None:
    policy, parameters, moments = acting(gym.make("CartPole-v1"), **settings)
    make = serial(lambda: gym.make("CartPole-v1"))
    one_by_one, abreast = (host_evaluator(policy, make, deterministic, n)(parameters, moments, 5, 40) for n in (1, 3))
    np.testing.assert_array_equal(one_by_one.returns, abreast.returns)
    np.testing.assert_array_equal(one_by_one.lengths, abreast.lengths)
    assert len(set(one_by_one.returns)) > 1
    # Episode i is seeded S + i, so a later start gives a part of the same episodes.
    later = host_evaluator(policy, make, deterministic, 2)(parameters, moments, 3, 42)
    np.testing.assert_array_equal(later.returns, one_by_one.returns[2:])


@pytest.mark.parametrize("env", ["envpool/CartPole-v1", "jax/CartPole-v1"])
def test_episode_i_is_seeded_s_plus_i_on_every_backend(env: str) -> None:
    source = source_of(env)
    assert isinstance(source, FromId)
    spaces = source.make_compiled() if source.compiled else source.make_host(1, 0)
    policy, parameters, moments = acting(spaces)
    evaluator = make_evaluator(source, policy, 0, deterministic=False)
    together = evaluator(parameters, moments, 5, 40)
    np.testing.assert_array_equal(evaluator(parameters, moments, 5, 40).returns, together.returns)
    np.testing.assert_array_equal(evaluator(parameters, moments, 2, 43).returns, together.returns[3:])
    assert len(set(together.returns)) > 1
    assert (together.returns == together.lengths).all(), "a reward of 1 a step"


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("env", ["jax/Pendulum-v1", "gymnasium/CartPole-v1"])
def test_a_spectator_sees_the_same_episodes(env: str, deterministic: bool) -> None:
    """Their returns are the same to the last bit; it sees the reset, every step, and the end before the next reset."""
    source = source_of(env)
    spaces = source.make_compiled() if source.compiled else source.make_host(1, 0)
    policy, parameters, moments = acting(spaces)
    evaluator = make_evaluator(source, policy, 0, deterministic)
    seen: list[Seen] = []
    watched = evaluator(parameters, moments, 2, 40, longest=60, spectator=seen.append)
    alone = evaluator(parameters, moments, 2, 40, longest=60)
    np.testing.assert_array_equal(watched.returns, alone.returns)
    np.testing.assert_array_equal(watched.lengths, alone.lengths)
    for i, length in enumerate(watched.lengths):
        mine = [moment for moment in seen if moment.episode == i]
        assert [moment.step for moment in mine] == list(range(length + 1))
        assert [moment.ended for moment in mine] == [False] * length + [True]
        assert (mine[0].total, mine[-1].total) == (0.0, watched.returns[i])
        assert all(spaces.observation_space.contains(moment.observation) for moment in mine)
        if env.endswith("CartPole-v1") and length < 60:
            assert abs(mine[-1].observation[2]) > 0.2, "the pole has fallen"


class Paced(Metronome):
    """A :class:`Metronome` that moves as fast as its steps are many."""

    def step(self, action: Any) -> tuple[np.ndarray, float, bool, bool, dict]:
        observation, reward, terminated, truncated, _ = super().step(action)
        return observation, reward, terminated, truncated, {"x_velocity": float(self._step)}


def test_costs_are_told_where_there_are_any() -> None:
    """The velocities of the probe's episodes are 1 to 5, those of the host environment's 1 to 3."""
    probe = Probe(one, show_time, length=5, info=lambda observation, action, time: {"x_velocity": 1.0 + time})
    for env, cost in ((probe, 3.0), (Paced, 1.0)):
        source = source_of(env, cost=VelocityCost(2.5))
        policy, parameters, moments = acting(probe if source.compiled else Paced())
        summary = make_evaluator(source, policy, 0)(parameters, moments, 3, 0).summary()
        assert (summary["mean_cost"], summary["costs"]) == (cost, [cost] * 3)
        free = make_evaluator(source_of(env), policy, 0)(parameters, moments, 1, 0)
        assert free.costs is None
        assert "mean_cost" not in free.summary()


def test_returns_are_sums_of_raw_rewards_of_whole_episodes() -> None:
    """Metronome's first episode has three steps, with rewards 1, 2 and 3, whichever way the policy sees them."""
    policy, parameters, moments = acting(Metronome(), normalize_observations=True, normalize_rewards=True)
    episodes = host_evaluator(policy, serial(Metronome))(parameters, moments, 4, 0)
    np.testing.assert_array_equal(episodes.returns, [6.0] * 4)
    np.testing.assert_array_equal(episodes.lengths, [3] * 4)
    summary = episodes.summary()
    assert summary["mean_return"] == summary["min_return"] == summary["max_return"] == 6.0
    assert (summary["std_return"], summary["mean_length"], summary["episodes"]) == (0.0, 3.0, 4)
    assert summary["returns"] == [6.0] * 4


def test_forbidden_actions_are_never_taken_even_after_an_episode_is_over() -> None:
    """Corridor raises for them; the episodes have different lengths, so some environments wait for others."""
    policy, parameters, moments = acting(Corridor())
    episodes = host_evaluator(policy, serial(Corridor), False, 8)(parameters, moments, 8, 0)
    assert len(set(episodes.lengths)) > 1


def test_a_recurrent_policy_begins_every_episode_without_memory() -> None:
    """In an environment that always looks the same, all episodes are the same; a memory carried over would show."""
    probe = Probe(lambda observation, action, time: action[0], length=4, action_space=gym.spaces.Box(-9, 9, (1,)))
    policy, parameters, moments = acting(probe, recurrent="gru", recurrent_size=4)
    episodes = compiled_evaluator(policy, probe, "probe")(parameters, moments, 3, 0)
    assert len(set(episodes.returns)) == 1
    carry, total = policy.initial_carry(1), 0.0
    for t in range(4):
        action, carry = policy.act(parameters, moments, jnp.ones((1, 1)), carry, np.array([t == 0]), None)
        total += float(action[0, 0])
    assert episodes.returns[0] == pytest.approx(total, rel=1e-5)


def test_a_return_that_is_no_number_is_named() -> None:
    probe = Probe(lambda observation, action, time: jnp.float32(jnp.inf), length=2)
    policy, parameters, moments = acting(probe)
    with pytest.raises(EnvironmentFault, match=r"episode 0 .* in probe had a return that is inf"):
        compiled_evaluator(policy, probe, "probe")(parameters, moments, 2, 0)


def rising(key: Any, time: Any) -> Any:
    return {"action_mask": jnp.ones(2), "x": time[None].astype(jnp.float32)}


WITH_MASK = gym.spaces.Dict(
    {"action_mask": gym.spaces.Box(0, 1, (2,), np.float32), "x": gym.spaces.Box(-10, 10, (1,), np.float32)}
)


class Stuck(gym.Env[Any, Any]):
    """A host environment without an action from its ``stuck``-th step on; episodes have ``stuck`` to ``stuck + 3`` steps.

    The last observation of an episode has no action either, as nothing can follow.
    """

    observation_space, action_space = WITH_MASK, gym.spaces.Discrete(2)

    def __init__(self, stuck: int = 100) -> None:
        self._stuck = stuck

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        super().reset(seed=seed)
        self._time, self._length = 0, int(self.np_random.integers(3, 7))
        return self._observation(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        self._time += 1
        return self._observation(), 1.0, self._time == self._length, False, {}

    def _observation(self) -> Any:
        allowed = self._time < min(self._length, self._stuck - 1)
        return {"action_mask": np.full(2, allowed, np.float32), "x": np.full(1, self._time, np.float32)}


@pytest.mark.parametrize("watched", [False, True])
def test_decisions_that_mean_nothing_end_an_evaluation_in_a_compiled_environment(watched: bool) -> None:
    """The first observation is of step 1, so that what is wrong at the time 2 is so at step 3."""
    probe = Probe(one, rising, length=5, observation_space=WITH_MASK)
    policy, parameters, moments = acting(probe)
    spectator = (lambda seen: None) if watched else None

    def run(observe: Any, parameters: Any = parameters) -> Any:
        env = Probe(one, observe, length=5, observation_space=WITH_MASK)
        return compiled_evaluator(policy, env, "probe")(parameters, moments, 2, 0, spectator=spectator)

    assert run(rising).lengths.tolist() == [5, 5]

    def stuck(key: Any, time: Any) -> Any:
        return {**rising(key, time), "action_mask": jnp.full(2, time != 2, jnp.float32)}

    def infinite(key: Any, time: Any) -> Any:
        return {**rising(key, time), "x": jnp.where(time == 2, jnp.inf, 0.0)[None]}

    with pytest.raises(EnvironmentFault, match="episode 0 of the evaluation in probe allowed no action at step 3"):
        run(stuck)
    with pytest.raises(
        EnvironmentFault, match=r"episode 0 .* had an observation that is not finite or not in its space at step 3"
    ):
        run(infinite)
    with pytest.raises(JumarError, match=r"at step 1 of episode 0 .* the policy computed something that is NaN or inf"):
        run(rising, jax.tree.map(lambda x: x * jnp.nan, parameters))


def test_decisions_that_mean_nothing_end_an_evaluation_on_the_host() -> None:
    """What is wrong after an episode is over, while others go on, says nothing of it."""
    policy, parameters, moments = acting(Stuck())
    episodes = host_evaluator(policy, serial(Stuck))(parameters, moments, 4, 0)
    assert len(set(episodes.lengths)) > 1
    with pytest.raises(EnvironmentFault, match="episode 0 of the evaluation in probe allowed no action at step 3"):
        host_evaluator(policy, serial(lambda: Stuck(3)))(parameters, moments, 4, 0)
    first = int(np.argmax(episodes.lengths >= 5))
    with pytest.raises(
        EnvironmentFault, match=f"episode {first} of the evaluation in probe allowed no action at step 5"
    ):
        host_evaluator(policy, serial(lambda: Stuck(5)))(parameters, moments, 4, 0)


def test_a_second_evaluation_compiles_nothing() -> None:
    probe = Probe(one, length=3)
    policy, parameters, moments = acting(probe)
    later = jax.tree.map(lambda x: x + 1.0, parameters)
    metronome = acting(Metronome())
    compiled, host = compiled_evaluator(policy, probe, "probe"), host_evaluator(metronome[0], serial(Metronome))
    compiled(parameters, moments, 2, 0)
    host(*metronome[1:], 2, 0)
    with nothing_compiled():
        compiled(later, moments, 3, 7)
        host(*metronome[1:], 3, 7)


@pytest.mark.parametrize(
    ("episodes", "between", "ended", "stated", "longest"),
    [
        (10, 2_048, [], None, 102),  # half of the 2,048 steps of training, in 10 episodes
        (10, 2_048, [1_669, 3_972], None, 102),  # 2 episodes do not show that 10 would end
        (10, 2_048, [50] * 8 + [1_000] * 2, None, 480),  # twice the mean of the 10 longest
        (2, 2_048, [50] * 8 + [1_000, 900], None, 1_900),  # of the 2 longest
        (1_000, 2_048, [50.5] * 100, None, 101),  # all that are remembered have ended
        (10, 1_000_000, [9] * 100, None, LONGEST),
        (10, 64, [9] * 100, None, 100),
        (10, 64, [], 1_000, LONGEST),
    ],
)
def test_how_long_an_episode_may_be_during_training(
    episodes: int, between: int, ended: list[float], stated: int | None, longest: int
) -> None:
    recent = np.concatenate([np.full(100 - len(ended), np.nan), ended])
    assert longest_in_training(episodes, between, recent, stated) == longest


def test_a_policy_that_never_ends_an_episode_takes_no_longer_than_asked() -> None:
    """On both kinds of environments; what is cut is told apart from what ended in time."""
    for env in (Probe(one, length=10), Metronome()):
        policy, parameters, moments = acting(env)
        evaluator = make_evaluator(source_of(env), policy, 0)
        whole, cut = (evaluator(parameters, moments, 2, 0, longest=longest) for longest in (None, 2))
        assert not whole.cut.any()
        assert whole.complaint("") is None
        assert cut.lengths.tolist() == [2, 2]
        assert cut.cut.tolist() == [True, True]
        assert cut.summary()["cut_episodes"] == 2
        assert cut.complaint("Do this.") == (
            "2 of 2 episodes of the evaluation had not ended after 2 steps and were cut, so their returns are not those of "
            "whole episodes. Do this."
        )


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        ({"mean_return": 2.0}, {"mean_return": 1.0}),
        ({"mean_return": -200.0}, {"mean_return": -100.0, "cut_returns": [-100.0]}),
        ({"mean_return": -1.0}, {"mean_return": 0.0, "cut_returns": [0.0]}),
        ({"mean_return": 600.0, "cut_returns": [600.0]}, {"mean_return": 20.0}),
        ({"mean_return": -1.0, "cut_returns": [-1.0]}, {"mean_return": -2.0, "cut_returns": [-2.0]}),
    ],
)
def test_a_cut_episode_counts_for_what_it_collected_but_not_for_what_it_was_spared(
    better: dict[str, Any], worse: dict[str, Any]
) -> None:
    assert standing(better) > standing(worse)
