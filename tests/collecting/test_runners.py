"""Rollouts: what the runners hand to the update is what happened, on every kind of environment."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiling import nothing_compiled
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from probes import Corridor, Metronome, Probe, one, random_sign, show_time
from updates import ALL_LEFT, Recording, first_learner, flat, held_first, make_update, one_round, recording

import jumar
from jumar.collecting.faults import CostWatch, Faults, check_faults
from jumar.collecting.gatherers import PoolScan, StepLoop, environment_seeds, joined
from jumar.collecting.host import HostRunner
from jumar.collecting.programs import CompiledRunner
from jumar.collecting.runner import Held
from jumar.envs.host import HostEnvironments, HostStep, SerialEnvironments
from jumar.envs.pool import EnvPoolEnvironments
from jumar.envs.step_costs import GIVEN, Cost, VelocityCost
from jumar.envs.vector import VectorAdapter
from jumar.envs.workers import WorkerEnvironments
from jumar.errors import EnvironmentFault
from jumar.trajectory import Trajectory

T, N = 8, 2


def run(runner: Any, learner: Any, iterations: int, seed: int = 0) -> tuple[list[Trajectory], Any]:
    """Return the trajectories of some iterations, and the last learner."""
    held = runner.restart(held_first(runner, learner), seed, 0)
    trajectories = []
    for i in range(iterations):
        held, record, outcome = runner.iterate(held, *one_round(i))
        trajectories.append(record["trajectory"])
        np.testing.assert_array_equal(outcome.rewards, record["trajectory"].rewards)
        np.testing.assert_array_equal(outcome.valid, record["trajectory"].valid)
    return trajectories, held.learner


def host(make: Callable[[], HostEnvironments], **settings: Any) -> tuple[HostRunner, Recording]:
    environments = make()
    spaces = environments.observation_space, environments.action_space
    environments.close()
    update = recording(make_update(*spaces, **settings))
    return HostRunner(update, make, T), update


def chained(trajectories: list[Trajectory]) -> Any:
    """Join rollouts along time, without the carries."""
    bare = [trajectory._replace(carry=(), critic_carry=()) for trajectory in trajectories]
    return jax.tree.map(lambda *parts: np.concatenate(parts), *bare)


def check_continuity(whole: Any) -> None:
    """Check that every row goes on from the one before, across rollouts too."""
    ended = whole.terminated | whole.truncated
    np.testing.assert_array_equal(whole.episode_start[0], True)
    np.testing.assert_array_equal(whole.episode_start[1:], ended[:-1])
    same = (whole.successors[:-1] == whole.observations[1:]).all(-1)
    np.testing.assert_array_equal(same[~ended[:-1]], True)
    assert ended.any()


@pytest.fixture(scope="module")
def timed() -> tuple[Any, Any]:
    """Return a runner and its learner in a probe that shows the time, in episodes of five steps."""
    probe = Probe(lambda observation, action, time: time.astype(jnp.float32), show_time, length=5, time_limit=True)
    update = recording(make_update(probe.observation_space, probe.action_space, n_epochs=2))
    return CompiledRunner(update, probe, "probe", N, T, None), first_learner(update)


def test_a_compiled_rollout_is_what_happened(timed: tuple[Any, Any]) -> None:
    trajectories, _ = run(*timed, 3)
    whole = chained(trajectories)
    check_continuity(whole)
    times = np.arange(3 * T) % 5
    np.testing.assert_array_equal(whole.observations[..., 0], np.stack([times] * N, 1))
    np.testing.assert_array_equal(whole.successors[..., 0], whole.observations[..., 0] + 1)
    np.testing.assert_array_equal(whole.rewards, whole.observations[..., 0])
    np.testing.assert_array_equal(whole.truncated, np.stack([times == 4] * N, 1))
    assert not whole.terminated.any()
    assert whole.valid.all()


def test_the_second_iteration_of_a_compiled_runner_compiles_nothing(timed: tuple[Any, Any]) -> None:
    runner, learner = timed
    held, _, _ = runner.iterate(held_first(runner, learner), *one_round(0))
    with nothing_compiled():
        runner.iterate(held, *one_round(1, 0.5))


def test_environments_of_a_compiled_runner_draw_differently() -> None:
    probe = Probe(one, random_sign, length=2)
    update = recording(make_update(probe.observation_space, probe.action_space, n_envs=8, batch_size=64))
    (trajectory,), _ = run(CompiledRunner(update, probe, "probe", 8, T, None), first_learner(update, 8), 1)
    observations = trajectory.observations[..., 0]
    assert len({tuple(column) for column in np.asarray(observations).T}) == 8
    assert len({tuple(column) for column in np.asarray(trajectory.actions).T}) == 8


@pytest.mark.parametrize(
    ("what", "bad"), [("observation", jnp.nan), ("reward", jnp.inf), ("cost", -jnp.inf), ("cost", jnp.nan)]
)
def test_what_is_no_number_is_named_and_nothing_is_learnt_from_it(what: str, bad: float) -> None:
    def spoil(x: Any, time: Any) -> Any:
        return jnp.where(time == 3, jnp.float32(bad), x)

    if what == "observation":
        probe = Probe(one, lambda key, time: spoil(show_time(key, time), time), length=6)
    elif what == "reward":
        probe = Probe(lambda observation, action, time: spoil(jnp.float32(0.0), time), length=6)
    else:
        probe = Probe(one, info=lambda observation, action, time: {"cost": spoil(jnp.float32(0.0), time)}, length=6)
    update = make_update(probe.observation_space, probe.action_space)
    runner = CompiledRunner(update, probe, "faulty", N, T, None, CostWatch(update, required=True))
    # The observation that the third step leads to, and the reward or cost of the fourth.
    words = (
        f"an observation that is {bad} at step 3;" if what == "observation" else f"a {what} that is {bad} at step 4;"
    )
    with pytest.raises(EnvironmentFault, match=f"environment 0 of faulty returned {words}"):
        runner.iterate(held_first(runner, first_learner(update)), *one_round(0))


@pytest.mark.parametrize(
    ("space", "sound", "bad"),
    [
        (spaces.Discrete(3, start=5), 7, 0),
        (spaces.MultiDiscrete(np.array([[2], [3]])), [[1], [2]], [[1], [3]]),
        (spaces.MultiBinary(2), [0, 1], [0, 3]),
    ],
)
def test_a_choice_that_the_space_does_not_have_is_named(space: Any, sound: Any, bad: Any) -> None:
    def choice(key: Any, time: Any) -> Any:
        return jnp.where(time == 3, jnp.asarray(bad), jnp.asarray(sound))

    probe = Probe(one, choice, length=6, observation_space=space)
    update = make_update(probe.observation_space, probe.action_space)
    runner = CompiledRunner(update, probe, "faulty", N, T, None)
    value = np.max(bad)
    with pytest.raises(
        EnvironmentFault, match=f"returned an observation with {value}, which is not in its space, at step 3;"
    ):
        runner.iterate(held_first(runner, first_learner(update)), *one_round(0))


@pytest.mark.parametrize("method", [jumar.PPO, jumar.SAC])
def test_choices_that_do_not_count_from_0_are_sound(method: Any) -> None:
    """Neither the rows of an iteration that hold no step nor where a buffer keeps successors are taken for faults."""
    probe = Probe(one, lambda key, time: 5 + time, length=2, observation_space=spaces.Discrete(3, start=5))
    rollout: dict[str, Any] = (
        {"n_steps": 8, "batch_size": 8} if method is jumar.PPO else {"learning_starts": 4, "log_every": 7}
    )
    method(probe, net_arch=(4,), **rollout).learn(16)


def test_a_cost_that_nobody_needs_may_be_anything() -> None:
    def info(observation: Any, action: Any, time: Any) -> dict[str, Any]:
        return {"cost": jnp.where(time == 3, jnp.nan, 1.0)}

    probe = Probe(one, info=info, length=6)
    update = make_update(probe.observation_space, probe.action_space)
    said: list[str] = []
    runner = CompiledRunner(update, probe, "probe", N, T, None, CostWatch(update, warn=said.append))
    held = held_first(runner, first_learner(update))
    for i in range(2):
        held, _, outcome = runner.iterate(held, *one_round(i))
        assert outcome.costs is not None
        assert set(np.unique(outcome.costs)) == {0.0, 1.0}
    assert said == [
        "environment 0 of probe returned a cost that is nan at step 4. It is taken for no cost, as no costs are needed here."
    ]
    with pytest.raises(EnvironmentFault, match="the sentence"):
        CostWatch(update, required=True).complain("the sentence")


def test_on_the_host_a_cost_that_nobody_needs_may_be_anything() -> None:
    class Cheap(Metronome):
        def step(self, action: Any) -> Any:
            *rest, _ = super().step(action)
            return *rest, {"cost": "cheap"}

    said: list[str] = []
    _, update = host(lambda: SerialEnvironments([Cheap] * N, "x"))
    runner = HostRunner(update, lambda: SerialEnvironments([Cheap] * N, "x"), T, CostWatch(update, warn=said.append))
    (trajectory, *_), _ = run(runner, first_learner(update), 2)
    assert trajectory.costs is None
    assert said == [
        "environment 0 of x gave a cost at step 1 that is cheap, not a finite number. It is taken for no cost, as no "
        "costs are needed here."
    ]


def test_several_seeds_in_one_program_are_runs_of_their_own() -> None:
    probe = Probe(lambda observation, action, time: observation[0] * action, random_sign, length=2)
    update = recording(make_update(probe.observation_space, probe.action_space))
    runner = CompiledRunner(update, probe, "probe", N, T, 3)
    keys = jax.vmap(jax.random.PRNGKey)(jnp.arange(3))
    learner = jax.vmap(lambda key: update.init(key, N))(keys)
    held = Held(learner, runner.memory(), runner.init(keys))
    new, record, outcome = runner.iterate(held, keys[:, None], ALL_LEFT)
    trajectory: Any = record["trajectory"]
    assert outcome.rewards.shape == (3, T, N)
    kernels = np.asarray(new.learner.parameters["policy"]["head"]["logits"]["kernel"])
    assert len({kernel.tobytes() for kernel in kernels}) == 3
    assert len({observations.tobytes() for observations in np.asarray(trajectory.observations)}) == 3
    with nothing_compiled():
        runner.iterate(new, keys[:, None], ALL_LEFT)


def serial(make: Callable[[], gym.Env[Any, Any]], n: int = N) -> Callable[[], HostEnvironments]:
    return lambda: SerialEnvironments([make] * n, "probe")


def vector(mode: AutoresetMode) -> Callable[[], HostEnvironments]:
    return lambda: VectorAdapter(SyncVectorEnv([Metronome] * N, autoreset_mode=mode))


def experience_of(whole: Any, n: int) -> list[tuple[Any, ...]]:
    """Return the valid rows of one environment."""
    fields = ("observations", "rewards", "terminated", "truncated", "successors", "episode_start")
    rows = zip(*(getattr(whole, name)[:, n] for name in fields), strict=True)
    valid = whole.valid[:, n]
    return [tuple(np.asarray(x).tolist() for x in row) for row, use in zip(rows, valid, strict=True) if use]


def test_next_step_and_same_step_environments_yield_the_same_experience() -> None:
    same, _ = run(*with_learner(host(vector(AutoresetMode.SAME_STEP))), 4)
    following, _ = run(*with_learner(host(vector(AutoresetMode.NEXT_STEP))), 4)
    plain, _ = run(*with_learner(host(serial(Metronome))), 4)
    check_continuity(chained(same))
    assert chained(same).valid.all()
    assert not chained(following).valid.all()
    for n in range(N):
        expected = experience_of(chained(plain), n)
        assert experience_of(chained(same), n) == expected
        shorter = experience_of(chained(following), n)
        assert shorter == expected[: len(shorter)]
        assert len(shorter) == 4 * T - np.sum(~chained(following).valid[:, n])


def with_learner(pair: tuple[Any, Any], n_envs: int = N) -> tuple[Any, Any]:
    runner, update = pair
    return runner, first_learner(update, n_envs)


def test_the_second_iteration_of_a_host_runner_compiles_nothing() -> None:
    runner, learner = with_learner(host(serial(Metronome), normalize_observations=True))
    held, _, _ = runner.iterate(runner.restart(held_first(runner, learner), 0, 0), *one_round(0))
    with nothing_compiled():
        held, _, _ = runner.iterate(held, *one_round(1, 0.5))
        runner.iterate(runner.restart(held, 0, 16), *one_round(2, 0.25))


def test_the_environment_gets_clipped_actions_and_the_trajectory_keeps_the_drawn_ones() -> None:
    made: list[Metronome] = []

    def make() -> Metronome:
        made.append(Metronome(spaces.Box(-0.5, 0.25, (2,), np.float32)))
        return made[-1]

    (trajectory,), _ = run(*with_learner(host(serial(make))), 1)
    taken = np.stack([env.taken for env in made[-N:]], axis=1)
    drawn = np.asarray(trajectory.actions)
    assert drawn.min() < -0.5
    assert drawn.max() > 0.25
    np.testing.assert_array_equal(taken, np.clip(drawn, -0.5, 0.25))


def test_forbidden_actions_are_never_drawn_and_the_masks_are_kept() -> None:
    """Corridor raises for a forbidden action."""
    trajectories, learner = run(*with_learner(host(serial(Corridor))), 3)
    masks, actions = (np.concatenate([getattr(x, name) for x in trajectories]) for name in ("action_masks", "actions"))
    assert masks.shape == (3 * T, N, 5)
    assert np.take_along_axis(masks[..., :3], actions[..., :1], -1).all()
    assert np.take_along_axis(masks[..., 3:], actions[..., 1:], -1).all()
    np.testing.assert_array_equal(masks[..., 4], shown(trajectories, "bit") == 1)
    assert np.isfinite(flat(learner)).all()


def shown(trajectories: list[Trajectory], key: str) -> np.ndarray:
    return np.concatenate([trajectory.observations[key] for trajectory in trajectories])


def test_memories_pass_from_one_rollout_to_the_next() -> None:
    """The carry that a rollout begins with is the one that stepping through the rollout before leads to."""
    runner, update = host(serial(Metronome), recurrent="gru", recurrent_size=4, learning_rate=1e-9)
    trajectories, learner = run(runner, first_learner(update), 2)
    policy, first = update.policy, trajectories[0]
    carry = first.carry.core
    for t in range(T):
        features = policy.encoder.encode(first.observations[t], learner.observation_moments)
        parameters = learner.parameters["policy"]
        _, carry = policy.distribution(parameters, features, carry, first.episode_start[t], None)
    np.testing.assert_allclose(trajectories[1].carry.core, carry, atol=1e-5)
    assert np.abs(carry).max() > 0.01
    assert np.abs(trajectories[1].critic_carry).max() > 0.01


def test_a_restart_begins_anew_from_seed_and_step_alone() -> None:
    make = serial(lambda: gym.make("CartPole-v1"))
    runner, update = host(make, normalize_rewards=True)
    _, learner = run(runner, first_learner(update), 1, seed=3)
    assert np.any(learner.reward_scale.running_return)

    def first_observations(seed: int, step: int) -> np.ndarray:
        restarted = runner.restart(Held(learner, runner.memory(), None), seed, step)
        assert not np.any(restarted.learner.reward_scale.running_return)
        assert restarted.collector.episode_start.all()
        _, record, _ = runner.iterate(restarted, *one_round(0))
        trajectory: Any = record["trajectory"]
        return np.asarray(trajectory.observations[0])

    np.testing.assert_array_equal(first_observations(3, 64), first_observations(3, 64))
    for other in ((3, 128), (4, 64)):
        assert (first_observations(*other) != first_observations(3, 64)).all()
    assert (first_observations(3, 64)[0] != first_observations(3, 64)[1]).all()


def test_environment_seeds_are_distinct_and_fit_every_generator() -> None:
    seeds = environment_seeds(7, 2048, 1000)
    assert seeds == environment_seeds(7, 2048, 1000)
    assert len(set(seeds)) > 990
    assert all(0 <= seed < 2**31 - 1 for seed in seeds)
    assert seeds[:10] == environment_seeds(7, 2048, 10), "an environment's seed does not depend on how many there are"


class Closing(Metronome):
    """Allows one action that changes from step to step, and none once its episode is over.

    The mask is told by ``action_masks()`` and in the info, or inside of the observation alone.
    """

    def __init__(self, in_observation: bool = False) -> None:
        super().__init__()
        self.in_observation, self.over = in_observation, False
        if in_observation:
            mask = spaces.MultiBinary(2)
            self.observation_space: Any = spaces.Dict({"shown": Metronome.observation_space, "action_mask": mask})
        else:
            self.action_masks = self._mask

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        observation, _ = super().reset(seed=seed)
        self.over = False
        return self._given(observation)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        assert self._mask()[int(action)], "the action is forbidden"
        observation, reward, terminated, truncated, _ = super().step(action)
        self.over = terminated or truncated
        observation, info = self._given(observation)
        return observation, reward, terminated, truncated, info

    def _given(self, observation: Any) -> tuple[Any, dict]:
        if self.in_observation:
            return {"shown": observation, "action_mask": self._mask().astype(np.int8)}, {}
        return observation, {"action_mask": self._mask()}

    def _mask(self) -> np.ndarray:
        return np.array([self._step % 2 == 0, self._step % 2 == 1]) & (not self.over)


@pytest.mark.parametrize("in_observation", [False, True], ids=["info", "observation"])
@pytest.mark.parametrize("mode", [None, AutoresetMode.NEXT_STEP], ids=["serial", "next step"])
def test_what_allows_nothing_once_its_episode_is_over_can_be_learnt_in(
    mode: AutoresetMode | None, in_observation: bool
) -> None:
    def make() -> Closing:
        return Closing(in_observation)

    def vectors() -> HostEnvironments:
        return VectorAdapter(SyncVectorEnv([make] * N, autoreset_mode=AutoresetMode.NEXT_STEP))

    runner, update = host(serial(make) if mode is None else vectors)
    held = runner.restart(held_first(runner, first_learner(update)), 0, 0)
    for i in range(2):
        held, record, outcome = runner.iterate(held, *one_round(i))
        assert record["finite"]
        assert (outcome.terminated | outcome.truncated).any()
        trajectory: Any = record["trajectory"]
        steps = steps_shown(trajectory)
        np.testing.assert_array_equal(trajectory.actions[outcome.valid], steps[outcome.valid] % 2)
    assert np.isfinite(flat(held.learner)).all()


def steps_shown(trajectory: Any) -> np.ndarray:
    observations = trajectory.observations
    return np.asarray(observations["shown"] if isinstance(observations, dict) else observations)[..., 1].astype(int)


def half_closed(key: Any, time: Any) -> Any:
    """From time 3 on the second part of the action has no choice left."""
    mask = jnp.array([1, 1, 0, 0], jnp.int8).at[3].set((time < 3).astype(jnp.int8))
    return {"shown": show_time(key, time), "action_mask": mask}


def test_a_mask_in_an_observation_that_leaves_one_part_of_the_action_no_choice_is_named() -> None:
    plain = spaces.Box(-10.0, 10.0, (1,), np.float32)
    space = spaces.Dict({"shown": plain, "action_mask": spaces.MultiBinary(4)})
    probe = Probe(one, half_closed, 6, action_space=spaces.MultiDiscrete([2, 2]), observation_space=space)
    update = make_update(space, probe.action_space)
    compiled = CompiledRunner(update, probe, "stuck", N, T, None)
    made = [SerialEnvironments([lambda: Stuck(space)] * N, "stuck")]
    on_host = HostRunner(update, made.pop, T)
    for runner in (compiled, on_host):
        held = runner.restart(held_first(runner, first_learner(update)), 0, 0)
        with pytest.raises(EnvironmentFault, match="environment 0 of stuck allowed no action at step 4;"):
            runner.iterate(held, *one_round(0))
        runner.close()


class Stuck(gym.Env):
    """The same on the host."""

    action_space = spaces.MultiDiscrete([2, 2])

    def __init__(self, space: spaces.Space) -> None:
        self.observation_space = space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict]:
        self._time = 0
        return self._observation(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict]:
        self._time += 1
        return self._observation(), 1.0, self._time == 6, False, {}

    def _observation(self) -> Any:
        mask = np.array([1, 1, 0, int(self._time < 3)], np.int8)
        return {"shown": np.array([self._time], np.float32), "action_mask": mask}


def test_rows_before_a_field_first_appears_are_neutral() -> None:
    masks = joined([None, None, *[np.array([[False, True]])] * 2], before=True)
    assert masks.dtype == bool
    assert masks[:, 0].tolist() == [[True, True]] * 2 + [[False, True]] * 2
    costs = joined([None, np.array([1.5], np.float32)])
    assert costs.dtype == np.float32
    assert costs[:, 0].tolist() == [0.0, 1.5]
    assert joined([None, None]) is None


def test_rows_are_joined_leaf_by_leaf() -> None:
    rows = joined([{"a": np.full((2, 3), t), "b": (np.array([t, -t]),)} for t in range(4)])
    assert rows["a"].shape == (4, 2, 3)
    assert rows["a"][:, 1, 2].tolist() == [0, 1, 2, 3]
    assert rows["b"][0].tolist() == [[0, 0], [1, -1], [2, -2], [3, -3]]


def test_masks_and_costs_that_come_late_are_the_same_with_and_without_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "envs"))
    faulty = importlib.import_module("faulty")
    together = []
    for make in (serial(faulty.Late), lambda: WorkerEnvironments([faulty.Late] * N, 2, "late")):
        runner, learner = with_learner(host(make))
        trajectories, _ = run(runner, learner, 2)
        runner.close()
        together.append(chained(trajectories))
    alone, by_workers = together
    jax.tree.map(np.testing.assert_array_equal, alone, by_workers)
    # The mask of the fourth step's info is that of the fifth row; the episode ends with the fifth step.
    assert alone.costs[:8, 0].tolist() == [0.0, 0.0, 0.0, 4.0, 5.0, 6.0, 7.0, 8.0]
    assert alone.action_masks[:8, 0, 2].tolist() == [True, True, True, True, False, True, False, False]
    assert alone.action_masks[..., :2].all()


def test_of_several_faults_the_earliest_in_time_is_named() -> None:
    observations, rewards, costs, masks = (np.zeros((T, N)) for _ in range(4))
    observations[5, 0], rewards[2, 1], costs[3, 1], masks[4, 0] = np.nan, -np.inf, np.inf, 1.0
    faults = Faults(*(jnp.asarray(x) for x in (observations, rewards, costs, masks)))
    with pytest.raises(EnvironmentFault, match="environment 1 of probe returned a reward that is -inf at step 103;"):
        check_faults(jax.device_get(faults), "probe", 100)
    several_seeds = jax.tree.map(lambda x: jnp.stack([jnp.zeros_like(x), x]), faults)
    with pytest.raises(EnvironmentFault, match="environment 1 of probe returned a reward that is -inf at step 3;"):
        check_faults(jax.device_get(several_seeds), "probe", 0)


class Broken(Metronome):
    def step(self, action: Any) -> Any:
        if self._steps == 5:
            raise RuntimeError("the motor is on fire")
        return super().step(action)


def test_an_environment_that_raises_is_named_and_the_learner_given_is_still_good() -> None:
    runner, update = host(serial(Broken))
    learner = first_learner(update)
    before = flat(learner)
    with pytest.raises(EnvironmentFault, match="the motor is on fire"):
        run(runner, learner, 1)
    np.testing.assert_array_equal(flat(learner), before)


@pytest.mark.parametrize(("name", "cost"), [("Pendulum-v1", GIVEN), ("HalfCheetah-v5", VelocityCost(0.0))])
def test_a_pool_gathers_the_same_experience_inside_a_scan_as_step_by_step(name: str, cost: Cost) -> None:
    """With next to no noise both take the same actions, and so see the same, ends of episodes included."""

    def make() -> EnvPoolEnvironments:
        return EnvPoolEnvironments(name, N, {"max_episode_steps": 5}, num_threads=1, cost=cost)

    pool = make()
    update = make_update(pool.observation_space, pool.action_space, log_std_init=-19.0, ortho_init=False)
    learner = first_learner(update)
    scan = PoolScan.of(pool, update.behaviour, 2 * T)
    if scan is None:
        pytest.skip("EnvPool has no XLA calls here")
    results = []
    for gatherer in (scan, StepLoop(update.behaviour, 2 * T)):
        pool = make()
        gatherer.begin(pool, *pool.reset([1, 2]))
        carry, start = update.behaviour.initial_carry(N), np.ones(N, bool)
        acting = update.acting(learner, jnp.float32(1.0))
        gathered, start, _ = gatherer.gather(acting, carry, start, jax.random.PRNGKey(0))
        results.append({**jax.device_get(gathered), "next start": np.asarray(start)})
        gatherer.close()
    inside, outside = results
    assert inside.keys() == outside.keys()
    for field, value in inside.items():
        if value is None:
            assert outside[field] is None
        else:
            assert value.dtype == outside[field].dtype, field
            np.testing.assert_allclose(value, outside[field], rtol=1e-4, atol=1e-4, err_msg=field)
    assert (~inside["valid"]).sum() == 2 * N
    assert inside["costs"] is None if cost is GIVEN else set(np.unique(inside["costs"])) == {0.0, 1.0}


def test_the_time_of_an_iteration_is_shared_out(timed: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("jumar.collecting.gatherers.perf_counter", lambda: now[0])
    monkeypatch.setattr("jumar.xla.timing._working_time", lambda: now[0])

    class Slow(SerialEnvironments):
        def step(self, actions: np.ndarray) -> HostStep:
            now[0] += 2.0
            return super().step(actions)

    runner, update = host(lambda: Slow([Metronome] * N, "x"))
    for iterations in (1, 2):  # those before do not count
        run(runner, first_learner(update, N), iterations)
        assert runner.spent == {"environment": 2.0 * T, "policy": 0.0, "update": 0.0}
    compiled, learner = timed
    run(compiled, learner, 1)
    assert compiled.spent == {}
