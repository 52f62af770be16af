"""The Python interface: learn, predict, save, load, evaluate_policy."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import itertools
import pickle
import re
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
from gymnasium.vector import SyncVectorEnv
from probes import Corridor, Metronome, Probe, one, random_sign
from updates import flat

import jumar
from jumar import _stable_baselines3, solvers
from jumar.agents import agent as agents
from jumar.agents.actor import Actor
from jumar.algorithms import registry
from jumar.algorithms.on_policy.parts import apart, compose
from jumar.algorithms.settings import CriticFitSettings
from jumar.errors import DamagedFile, UsageError
from jumar.policies.policy import PolicySettings, make_policy
from jumar.runs import logs
from jumar.schedules import Constant
from jumar.settings import setting
from jumar.solvers import objectives
from jumar.training.events import says_stop

untyped: Any = jumar
"""For calls that a type checker would refuse."""

SMALL: dict[str, Any] = {"n_envs": 2, "n_steps": 16, "batch_size": 16, "n_epochs": 2, "net_arch": (8,)}


def make_cartpole() -> gym.Env[Any, Any]:
    return gym.make("CartPole-v1")


def state(agent: jumar.Agent) -> np.ndarray:
    return flat(agent._training.learner)


@pytest.fixture(scope="module")
def cartpole() -> jumar.PPO:
    return jumar.PPO("jax/CartPole-v1", seed=0, normalize_observations=True, **SMALL).learn(64)


@pytest.fixture(scope="module")
def corridor() -> jumar.PPO:
    """Return an agent with Dict observations, a MultiDiscrete action, masks and a memory."""
    return jumar.PPO(Corridor, seed=0, recurrent="gru", recurrent_size=4, **SMALL).learn(64)


def test_the_snippet_of_the_contract_works(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    agent = jumar.PPO("CartPole-v1", seed=0, learning_rate=3e-4, **SMALL)
    agent.learn(total_timesteps=64, progress_bar=True)
    assert agent.num_timesteps >= 64
    observation = np.zeros(4, np.float32)
    action, _ = agent.predict(observation, state=None, episode_start=None, deterministic=True, action_masks=None)
    assert agent.action_space.contains(action)
    mean, std = jumar.evaluate_policy(agent, "CartPole-v1", n_eval_episodes=3)
    assert isinstance(mean, float)
    assert isinstance(std, float)
    agent.save(tmp_path / "cartpole")
    loaded = jumar.load(tmp_path / "cartpole")
    assert isinstance(loaded, jumar.PPO)
    assert jumar.evaluate_policy(loaded, "CartPole-v1", n_eval_episodes=3) == (mean, std)
    agent.close()


@pytest.mark.parametrize(
    ("make", "passed_again"),
    [
        (lambda: "jax/CartPole-v1", False),
        (lambda: "gymnasium/CartPole-v1", False),
        pytest.param(lambda: make_cartpole, True, marks=pytest.mark.slow),
    ],
    ids=["compiled", "id", "callable"],
)
def test_save_load_and_go_on_equals_never_having_stopped(
    make: Callable[[], Any], passed_again: bool, tmp_path: Path
) -> None:
    settings = {**SMALL, "normalize_observations": True, "normalize_rewards": True}
    straight = jumar.PPO(make(), seed=4, **settings).learn(96).learn(64)
    jumar.PPO(make(), seed=4, **settings).learn(96).save(tmp_path / "agent")
    loaded = jumar.load(tmp_path / "agent", env=make() if passed_again else None)
    assert loaded.num_timesteps == 96
    assert loaded.settings == straight.settings
    loaded.learn(64)
    np.testing.assert_array_equal(state(loaded), state(straight))


def test_predict_takes_one_observation_or_a_batch(cartpole: jumar.PPO) -> None:
    draw = np.random.default_rng(0)
    batch = draw.normal(size=(5, 4)).astype(np.float32)
    actions, _ = cartpole.predict(batch)
    assert actions.shape == (5,)
    singles = [cartpole.predict(observation)[0] for observation in batch]
    assert [int(action) for action in singles] == actions.tolist()
    assert all(cartpole.action_space.contains(action) for action in singles)
    assert cartpole.predict(batch[0].tolist())[0] == singles[0], "a list of numbers is an observation too"
    assert cartpole.predict(batch.astype(np.float64).tolist())[0].tolist() == actions.tolist()


def test_predicting_twice_compiles_once_also_after_learning_more() -> None:
    agent = jumar.PPO(Probe(one, random_sign), **SMALL)
    agent.learn(32)
    observation = np.ones(1, np.float32)
    agent.predict(observation)
    agent.predict(observation, deterministic=False)
    agent.learn(32)
    with nothing_compiled():
        agent.predict(-observation)
        agent.predict(-observation, deterministic=False)


def test_draws_differ_from_call_to_call_and_repeat_with_the_seed(cartpole: jumar.PPO) -> None:
    observations = np.zeros((64, 4), np.float32)
    first, second = (cartpole.actor() for _ in range(2))
    draws = [first.predict(observations, deterministic=False)[0] for _ in range(2)]
    assert (draws[0] != draws[1]).any()
    np.testing.assert_array_equal(second.predict(observations, deterministic=False)[0], draws[0])


@pytest.mark.parametrize(
    ("observation", "said"),
    [
        (np.zeros(3), r"of shape \(3,\)"),
        (np.zeros((2, 2, 4)), r"of shape \(2, 2, 4\)"),
        ("north", r"of shape \(\)"),
        ({"position": 1}, r"of shape \(\)|dtype"),
        ([[1.0], [2.0, 3.0]], "list"),
        (np.array([0.0, np.nan, 0.0, 0.0]), "nan"),
        (np.array(["a", "b", "c", "d"]), "dtype"),
        ([0.0, 1e300, 0.0, 0.0], r"holds 1e\+300, which single precision cannot hold"),
        (np.array([0, 3_000_000_000, 0, 0]), r"holds 3000000000, which 32 bits cannot hold"),
    ],
)
def test_an_observation_that_does_not_fit_is_refused(cartpole: jumar.PPO, observation: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        cartpole.predict(observation)


def test_masks_and_memories_in_a_dict_observation(corridor: jumar.PPO) -> None:
    observation = Corridor().reset(seed=0)[0]
    for move, bit in itertools.product(range(3), range(2)):
        mask = np.zeros(5, bool)
        mask[[move, 3 + bit]] = True
        action, _ = corridor.predict(observation, action_masks=mask)
        assert action.tolist() == [move, bit]
        assert corridor.action_space.contains(action)
    with pytest.raises(UsageError, match=r"\(4,\); it must be \(1, 5\)"):
        corridor.predict(observation, action_masks=np.ones(4, bool))
    with pytest.raises(UsageError, match=r"the observation is without the part '(bit|goal)'"):
        corridor.predict({"position": np.zeros(1, np.float32)})


def test_a_choice_that_the_space_does_not_have_is_refused(corridor: jumar.PPO) -> None:
    observation = Corridor().reset(seed=0)[0]
    for wrong in ({"bit": 2}, {"goal": np.array([1, 3], np.int8)}):
        with pytest.raises(UsageError, match=r"the observation is not in \{bit: one of 2, goal: 2 switches"):
            corridor.predict({**observation, **wrong})


@pytest.mark.parametrize("forbidden", [range(5), range(3), range(3, 5)])
def test_a_mask_that_leaves_no_choice_is_refused(corridor: jumar.PPO, forbidden: range) -> None:
    mask = np.ones(5, bool)
    mask[list(forbidden)] = False
    with pytest.raises(UsageError, match="action_masks forbids every action"):
        corridor.predict(Corridor().reset(seed=0)[0], action_masks=mask)


def test_a_mask_in_the_observation_that_leaves_no_choice_is_refused() -> None:
    space, choice = (
        spaces.Dict({"action_mask": spaces.MultiBinary(2), "x": spaces.Box(-1, 1, (1,))}),
        spaces.Discrete(2),
    )
    policy = make_policy(space, choice, PolicySettings(net_arch=()))
    parameters, moments = policy.init(jax.random.PRNGKey(0)), policy.encoder.initial_moments()
    actor = Actor(policy, parameters, moments, (space, choice))
    observations = {"action_mask": np.array([[0, 1], [0, 0]]), "x": np.zeros((2, 1))}
    assert actor.predict({name: x[0] for name, x in observations.items()})[0] == 1
    with pytest.raises(UsageError, match="the action_mask of observation 1 of the batch forbids every action"):
        actor.predict(observations)


@pytest.mark.parametrize("wrong", [3, np.zeros(4), (np.zeros(4),)])
def test_a_state_that_predict_did_not_return_is_refused(corridor: jumar.PPO, wrong: Any) -> None:
    with pytest.raises(UsageError, match=f"state is a {type(wrong).__name__}; pass what the last predict returned"):
        corridor.predict(Corridor().reset(seed=0)[0], state=wrong)


def test_a_state_of_another_number_of_observations_is_refused(corridor: jumar.PPO) -> None:
    observation = Corridor().reset(seed=0)[0]
    _, single = corridor.predict(observation)
    several = {name: np.stack([np.asarray(x)] * 3) for name, x in observation.items()}
    with pytest.raises(UsageError, match="state"):
        corridor.predict(several, state=single)


def test_a_state_carries_the_memory_and_an_episode_start_clears_it(corridor: jumar.PPO) -> None:
    observation = Corridor().reset(seed=0)[0]
    _, fresh = corridor.predict(observation)
    _, later = corridor.predict(observation, state=fresh)
    _, cleared = corridor.predict(observation, state=later, episode_start=True)
    assert np.abs(flat(later) - flat(fresh)).max() > 1e-4
    np.testing.assert_array_equal(flat(cleared), flat(fresh))


def test_evaluate_policy_in_environments_of_every_kind(corridor: jumar.PPO) -> None:
    by_callable = jumar.evaluate_policy(corridor, Corridor, 3, return_episode_rewards=True)
    assert jumar.evaluate_policy(corridor, Corridor(), 3, return_episode_rewards=True) == by_callable
    returns, lengths = by_callable
    assert len(returns) == len(lengths) == 3  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="not a vector environment"):
        jumar.evaluate_policy(corridor, SyncVectorEnv([Corridor]))
    with pytest.raises(UsageError, match=r"observation space of gymnasium/CartPole-v1 is .* trained with"):
        jumar.evaluate_policy(corridor, "gymnasium/CartPole-v1")
    with pytest.raises(UsageError, match="n_eval_episodes=0"):
        jumar.evaluate_policy(corridor, Corridor, 0)


def test_a_callback_sees_every_iteration_and_stops_by_returning_false(tmp_path: Path) -> None:
    seen: list[dict[str, Any]] = []

    def callback(metrics: dict[str, Any]) -> np.bool_ | None:
        seen.append(metrics)
        return np.bool_(False) if len(seen) == 3 else None

    agent = jumar.PPO(Probe(one, length=3), **SMALL)
    agent.learn(320, callback, run_dir=tmp_path / "run", eval_every=64, eval_episodes=2)
    assert agent.num_timesteps == 96
    assert [metrics["time/total_timesteps"] for metrics in seen] == [32, 64, 96]
    assert seen[1]["eval/mean_reward"] == seen[1]["rollout/ep_rew_mean"] == 3.0
    assert "eval/mean_reward" not in seen[0]
    assert {"train/approx_kl", "train/entropy", "train/value_loss", "train/learning_rate"} <= seen[0].keys()
    assert [entry["time/total_timesteps"] for entry in logs.read(tmp_path / "run" / "metrics.jsonl")] == [32, 64, 96]
    kept = jumar.load(tmp_path / "run", env=Probe(one, length=3))
    np.testing.assert_array_equal(state(kept), state(agent))


def test_of_a_list_of_callbacks_all_are_called_in_order_and_one_is_enough_to_stop(cartpole: jumar.PPO) -> None:
    seen: list[str] = []
    agent = jumar.PPO("jax/CartPole-v1", seed=0, normalize_observations=True, **SMALL)
    agent.learn(1e3, [lambda metrics: seen.append("first"), lambda metrics: False, lambda metrics: seen.append("last")])
    assert seen == ["first", "last"]
    assert agent.num_timesteps == 32


@pytest.mark.parametrize("answer", [False, np.False_, np.array(False), np.float64(1.0) > 2.0, jnp.zeros((), bool)])
def test_false_of_any_library_stops_training(answer: Any) -> None:
    assert says_stop(answer)


@pytest.mark.parametrize(
    "answer", [None, True, np.True_, jnp.ones((), bool), 0, 0.0, np.int64(0), "", [], np.zeros(2, bool)]
)
def test_what_is_not_false_goes_on(answer: Any) -> None:
    assert not says_stop(answer)


@pytest.mark.parametrize("env", ["jax/CartPole-v1", "gymnasium/CartPole-v1"])
def test_a_callback_that_raises_loses_nothing(env: str, tmp_path: Path) -> None:
    def callback(metrics: dict[str, Any]) -> None:
        if metrics["time/total_timesteps"] == 96:
            raise ZeroDivisionError("in the callback")

    agent = jumar.PPO(env, **SMALL)
    with pytest.raises(ZeroDivisionError, match="in the callback"):
        agent.learn(320, callback, run_dir=tmp_path / "run")
    assert agent.num_timesteps == 96
    alone = jumar.load_policy(tmp_path / "run")
    np.testing.assert_array_equal(flat(alone.parameters), flat(agent.actor().parameters))
    if env.startswith("jax/"):
        kept = jumar.load(tmp_path / "run")
        assert kept.num_timesteps == 96
        np.testing.assert_array_equal(state(kept), state(agent))
    agent.close()


def test_an_interruption_in_the_middle_of_an_iteration_leaves_the_last_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent = jumar.PPO("jax/CartPole-v1", **SMALL)
    iterate, before = agent._training.runner.iterate, []

    def interrupted(*arguments: Any) -> Any:
        if agent.num_timesteps == 64:
            before.append(state(agent))
            raise KeyboardInterrupt
        return iterate(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(agent._training.runner, "iterate", interrupted)
        with pytest.raises(KeyboardInterrupt):
            agent.learn(320, run_dir=tmp_path / "run")
    for kept in (agent, jumar.load(tmp_path / "run")):
        assert kept.num_timesteps == 64
        np.testing.assert_array_equal(state(kept), before[0])
    alone = jumar.load_policy(tmp_path / "run")
    np.testing.assert_array_equal(flat(alone.parameters), flat(agent.actor().parameters))
    assert agent.learn(32).num_timesteps == 96


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_save_leaves_a_training_run_and_a_strange_directory_as_they_were(cartpole: jumar.PPO, tmp_path: Path) -> None:
    run, strange = tmp_path / "run", tmp_path / "strange"
    jumar.PPO("jax/CartPole-v1", **SMALL).learn(64, run_dir=run)
    strange.mkdir()
    (strange / "thesis.txt").write_text("the only copy")
    for folder, said in ((run, "holds a training run, which save does not overwrite"), (strange, "not empty")):
        before = content(folder)
        with pytest.raises(UsageError, match=said):
            cartpole.save(folder)
        assert content(folder) == before


def test_save_overwrites_what_it_saved_before(cartpole: jumar.PPO, tmp_path: Path) -> None:
    later = jumar.PPO("jax/CartPole-v1", seed=1, **SMALL).learn(32)
    for agent in (cartpole, later, cartpole):  # from a later step to an earlier one too
        agent.save(tmp_path / "agent")
        loaded = jumar.load(tmp_path / "agent")
        assert loaded.num_timesteps == agent.num_timesteps
        np.testing.assert_array_equal(state(loaded), state(agent))
        alone = jumar.load_policy(tmp_path / "agent")
        np.testing.assert_array_equal(flat(alone.parameters), flat(agent.actor().parameters))


def test_live_environments_can_be_learnt_in_and_stay_open() -> None:
    single, many = Metronome(), SyncVectorEnv([Metronome] * 2)
    learnt = jumar.PPO(single, **{**SMALL, "n_envs": 1}).learn(32)
    assert learnt.num_timesteps == 32
    agent = jumar.PPO(many, **{name: value for name, value in SMALL.items() if name != "n_envs"})
    assert agent.settings.n_envs == 2
    agent.learn(64)
    agent.close()
    assert not many.closed
    with pytest.raises(UsageError, match="one live object"):
        agent.learn(64, eval_every=32)


class Louder(gym.RewardWrapper[Any, Any]):
    """A wrapper of a user's own, by which a run of theirs can be told."""

    def reward(self, reward: Any) -> float:
        return 10.0 * float(reward)


LOUDER = "test_agent:Louder"
WRAPPERS = ["TimeLimit:max_episode_steps=4", Louder]


def test_wrappers_from_python_are_kept_by_their_names_and_repeated_for_load(tmp_path: Path) -> None:
    agent = jumar.PPO("gymnasium/CartPole-v1", wrappers=WRAPPERS, **SMALL)
    agent.learn(32, run_dir=tmp_path / "run")
    assert agent._training.plan.repeat_wrappers == [LOUDER]
    with pytest.raises(UsageError, match=f"repeat --wrapper {LOUDER} to allow it"):
        jumar.load(tmp_path / "run")
    for again in (LOUDER, Louder):
        loaded = jumar.load(tmp_path / "run", wrappers=[again])
        assert loaded._training.plan.environment == agent._training.plan.environment
        assert jumar.evaluate_policy(loaded, "CartPole-v1", 2, wrappers=WRAPPERS) == (40.0, 0.0)


@pytest.mark.parametrize(
    "env", ["gymnasium/CartPole-v1", make_cartpole, gym.make("CartPole-v1")], ids=["id", "maker", "live"]
)
def test_a_wrapper_without_a_name_can_be_any_function_and_needs_the_environment_again(env: Any, tmp_path: Path) -> None:
    wrappers = [("TimeLimit", {"max_episode_steps": 4}), lambda env: Louder(env)]
    agent = jumar.PPO(env, wrappers=wrappers, **{**SMALL, "n_envs": 1})
    agent.save(tmp_path / "agent")
    with pytest.raises(UsageError, match="pass env="):
        jumar.load(tmp_path / "agent")
    loaded = jumar.load(tmp_path / "agent", env=env, wrappers=wrappers)
    assert jumar.evaluate_policy(loaded, env, 2, wrappers=wrappers) == (40.0, 0.0)


def test_a_policy_alone_is_enough_to_act(cartpole: jumar.PPO, tmp_path: Path) -> None:
    cartpole.save(tmp_path / "agent")
    alone = tmp_path / "alone"
    alone.mkdir()
    for name in ("policy.json", "policy.safetensors"):
        (tmp_path / "agent" / name).rename(alone / name)
    actor = jumar.load_policy(alone)
    observations = np.random.default_rng(1).normal(size=(20, 4)).astype(np.float32)
    np.testing.assert_array_equal(actor.predict(observations)[0], cartpole.predict(observations)[0])


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return pytest.fail, ("loading ran code",)


@pytest.mark.parametrize(
    ("name", "load"),
    [
        ("config.json", jumar.load),
        ("checkpoints/000000000064/state.safetensors", jumar.load),
        ("policy.json", jumar.load_policy),
        ("policy.safetensors", jumar.load_policy),
    ],
)
def test_a_pickle_in_disguise_is_refused_and_not_run(
    name: str, load: Callable[[Path], Any], cartpole: jumar.PPO, tmp_path: Path
) -> None:
    cartpole.save(tmp_path / "agent")
    (tmp_path / "agent" / name).write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(DamagedFile, match=Path(name).name):
        load(tmp_path / "agent")


def test_what_was_learnt_in_a_callable_needs_it_again(corridor: jumar.PPO, tmp_path: Path) -> None:
    corridor.save(tmp_path / "agent")
    with pytest.raises(UsageError, match="pass env="):
        jumar.load(tmp_path / "agent")
    with pytest.raises(UsageError, match="observation space of"):
        jumar.load(tmp_path / "agent", env=make_cartpole)
    assert jumar.load(tmp_path / "agent", env=Corridor).num_timesteps == 64


def test_schedules_are_anchored_to_each_call_of_learn() -> None:
    rates: list[float | None] = []
    agent = jumar.PPO(Probe(one), **{**SMALL, "learning_rate": "linear:0.1"})
    for _ in range(2):
        agent.learn(64, lambda metrics: rates.append(metrics["train/learning_rate"]))
    assert rates == pytest.approx([0.1, 0.05, 0.1, 0.05])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"env": "CartPole-v7"}, "did you mean|CartPole-v1"),
        ({"env": 3}, "is not an environment"),
        ({"env": "jax/CartPole-v1", "clip_coef": 0.1}, "clip_range"),
        ({"env": "jax/CartPole-v1", "gamma": 1.5}, "gamma=1.5 is out of range"),
        ({"env": "jax/CartPole-v1", "seed": -1}, "seed=-1"),
        ({"env": "jax/CartPole-v1", "n_steps": 1e30}, r"n_steps=1e\+30 is out of range"),
        ({"env": "jax/CartPole-v1", "use_sde": True}, "use_sde needs a Box action space"),
        ({"env": "jax/CartPole-v1", "workers": 2}, "workers=2"),
        ({"env": "jax/CartPole-v1", "n_seeds": 1_000_000}, "n_seeds=1000000 is out of range"),
        ({"env": "jax/CartPole-v1", "batch_size": 100}, "batch_size=100 does not fit"),
        ({"env": "gymnasium/CartPole-v1", "n_seeds": 2}, "n_seeds=2 needs a compiled environment"),
        ({"env": Metronome, "env_kwargs": {"length": 3}}, "env_kwargs are for"),
        ({"env": Metronome, "wrappers": [3]}, "3 is not a wrapper: write 'TimeLimit:max_episode_steps=200'"),
        ({"env": Metronome, "wrappers": "TimeLimit"}, r"wrappers='TimeLimit' is not a list; write wrappers=\[...\]"),
        ({"env": Metronome, "wrappers": None}, "wrappers=None is not a list"),
        ({"env": "jax/CartPole-v1", "wrappers": [Louder]}, "wrappers are Gymnasium's; use gymnasium/CartPole-v1"),
        ({"env": Probe(one), "wrappers": [Louder]}, "wrappers are Gymnasium's, and Probe is a compiled environment"),
        (
            {"env": SyncVectorEnv([Metronome]), "wrappers": [Louder]},
            "SyncVectorEnv is a vector environment; wrap it before",
        ),
        (
            {"env": "gymnasium/CartPole-v1", "wrappers": [lambda env: None]},
            "lambda> returned a NoneType; it must return",
        ),
        ({"env": Metronome, "frame_stack": 4}, "frame_stack=4 is for"),
        ({"env": SyncVectorEnv([Metronome] * 3)}, "n_envs=2, but .* holds 3"),
    ],
)
def test_a_mistake_is_answered_by_a_sentence(arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        jumar.PPO(**{**SMALL, **arguments})


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (
            lambda agent: untyped.PPO("MlpPolicy", "jax/CartPole-v1"),
            r"PPO\(env, ...\); as for a policy .* leave it out",
        ),
        (
            lambda agent: untyped.PPO("jax/CartPole-v1", "MlpPolicy"),
            r"PPO\(env, ...\); as for a policy .* leave it out",
        ),
        (
            lambda agent: untyped.PPO(policy="CnnPolicy", env="jax/CartPole-v1"),
            "policy is a name of Stable-Baselines3.*leave it",
        ),
        (
            lambda agent: untyped.PPO("jax/CartPole-v1", policy_kwargs={"net_arch": [64]}),
            r"net_arch=\(64, 64\), activation=",
        ),
        (lambda agent: untyped.PPO("jax/CartPole-v1", seed=1.5), "seed=1.5 is not a whole number"),
        (
            lambda agent: untyped.PPO("jax/CartPole-v1", preset=False),
            'preset=False is not a name; preset="none" starts',
        ),
        (lambda agent: untyped.PPO("jax/CartPole-v1", cost=3), "cost=3 is not a text"),
        (lambda agent: untyped.PPO("gymnasium/CartPole-v1", env_kwargs="g=9"), "env_kwargs='g=9' is not a dict"),
        (lambda agent: untyped.PPO(gym.Env), "the observation space of Env is missing"),
        (lambda agent: untyped.Agent("jax/CartPole-v1"), "Agent is the base of the agents; take one of .*PPO"),
        (
            lambda agent: agent.learn(32, log_interval=1),
            "log_interval is a name of Stable-Baselines3.*every iteration is log",
        ),
        (lambda agent: agent.learn(32, eval_evry=1), "unknown argument of learn 'eval_evry'; did you mean eval_every"),
        (
            lambda agent: agent.learn(32, callback="x"),
            "callback='x' is not a function and has none of .* write a function",
        ),
        (lambda agent: agent.learn(32, callback=[print, 3]), "callback=3 is not a function"),
        (lambda agent: agent.learn(32, run_dir=3), "run_dir=3 is not a path"),
        (lambda agent: agent.learn(32, eval_every=None), "eval_every=None is not a whole number"),
        (lambda agent: agent.save(None), "path=None is not a path"),
        (lambda agent: untyped.load(None), "path=None is not a path"),
        (lambda agent: untyped.load_policy(None), "path=None is not a path"),
        (lambda agent: untyped.PPO.load("a", device="cpu"), "JAX_PLATFORMS=cpu"),
        (lambda agent: agent.actor(1), "lane=1 is out of range"),
        (
            lambda agent: agent.predict((np.zeros(4), {})),
            "a tuple .of reset's two values, the observation is the first",
        ),
        (lambda agent: agent.predict(np.zeros(4), episode_start=np.zeros(3, bool)), r"episode_start has shape \(3,\)"),
        (lambda agent: untyped.evaluate_policy("jax/CartPole-v1", agent), "'jax/CartPole-v1' is not an agent"),
        (
            lambda agent: untyped.evaluate_policy(agent, "jax/CartPole-v1", render=True),
            "render is a name of Stable-Base",
        ),
    ],
)
def test_a_wrong_thing_in_python_is_answered_by_a_sentence(cartpole: jumar.PPO, call: Any, said: str) -> None:
    before = cartpole.num_timesteps
    with pytest.raises(UsageError, match=said):
        call(cartpole)
    assert cartpole.num_timesteps == before


@pytest.mark.parametrize("name", _stable_baselines3.MEMBERS)
def test_what_an_agent_of_stable_baselines3_has_is_answered_by_its_sentence(cartpole: jumar.PPO, name: str) -> None:
    with pytest.raises(AttributeError, match=f"^{name} is a name of Stable-Baselines3; here: "):
        getattr(cartpole, name)


@pytest.mark.parametrize("table", [_stable_baselines3.AGENT, _stable_baselines3.LEARN], ids=["agent", "learn"])
def test_each_argument_of_stable_baselines3_is_answered_by_its_sentence(cartpole: jumar.PPO, table: Any) -> None:
    for name in table:
        argument: dict[str, Any] = {name: 1}
        with pytest.raises(UsageError, match=f"^{name} is a name of Stable-Baselines3; here: "):
            jumar.PPO("jax/CartPole-v1", **argument) if table is _stable_baselines3.AGENT else cartpole.learn(
                32, **argument
            )


@pytest.mark.parametrize("name", _stable_baselines3.PACKAGE)
def test_an_import_of_stable_baselines3_is_answered_by_its_sentence(name: str) -> None:
    assert name not in jumar.__all__, "take it out of the table"
    with pytest.raises(ImportError, match=f"^{name} is a name of Stable-Baselines3; here: "):
        getattr(jumar, name)  # as `from jumar import name` does, which passes this error on


@pytest.mark.parametrize(
    ("part", "name", "home"),
    [
        ("callbacks", "StopAtReturn", "jumar.training.events"),
        ("curvature", "conjugate_gradient", "jumar.solvers.fisher"),
        ("distributions", "Categorical", "jumar.policies.distributions"),
        ("objectives", "clipped_surrogate", "jumar.solvers.objectives"),
    ],
)
def test_a_part_is_a_module_that_can_be_imported(part: str, name: str, home: str) -> None:
    module = importlib.import_module(f"jumar.{part}")
    assert module is getattr(jumar, part)
    assert getattr(module, name) is getattr(importlib.import_module(home), name)


def test_names_that_are_nearly_right_are_answered(cartpole: jumar.PPO) -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'Sac'; did you mean SAC\?"):
        jumar.Sac  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(AttributeError, match=r"no attribute 'polices'$"):
        jumar.polices  # type: ignore[attr-defined]  # noqa: B018
    with pytest.raises(AttributeError, match=r"jumar\.evaluate_policy\(agent, env\)"):
        cartpole.evaluate()


def test_an_environment_of_stable_baselines3_is_told_apart() -> None:
    vectors = type("DummyVecEnv", (), {"__module__": "stable_baselines3.common.vec_env"})()
    with pytest.raises(UsageError, match=r"DummyVecEnv is an environment of Stable-Baselines3.*n_envs=8"):
        jumar.PPO(vectors)


def test_a_setting_is_found_among_the_settings_and_nothing_else_is_made_up(cartpole: jumar.PPO) -> None:
    with pytest.raises(AttributeError, match=r"gamma is a setting: agent\.settings\.gamma"):
        _ = cartpole.gamma
    with pytest.raises(AttributeError, match="'PPO' object has no attribute 'nothing'"):
        _ = cartpole.nothing
    assert not hasattr(jumar, "nothing")
    assert not hasattr(cartpole, "load")
    copy.copy(cartpole)


def test_an_agent_is_loaded_by_its_class(cartpole: jumar.PPO, tmp_path: Path) -> None:
    cartpole.save(tmp_path / "agent")
    for cls in (jumar.PPO, jumar.Agent):
        loaded = cls.load(tmp_path / "agent")
        assert type(loaded) is jumar.PPO
        np.testing.assert_array_equal(state(loaded), state(cartpole))
    with pytest.raises(UsageError, match=r"holds an agent of PPO, not of A2C; take jumar\.load"):
        jumar.A2C.load(tmp_path / "agent")


def test_agents_and_actors_say_what_they_are(cartpole: jumar.PPO) -> None:
    size = sum(x.size for x in jax.tree.leaves(cartpole.actor().parameters))
    policy = f"4 numbers, bounded unevenly -> one of 2, {size} parameters"
    steps = f"{cartpole.num_timesteps:,} steps trained"
    assert repr(cartpole) == f"<PPO on jax/CartPole-v1, seed 0, {steps}, 2 environments: {policy}>"
    assert repr(cartpole.actor()) == f"<Actor: {policy}>"


@pytest.mark.parametrize("steps", [0, -1, 1.5, "10", True, None, float("nan"), float("inf"), 1e30])
def test_what_is_no_number_of_steps_is_refused(cartpole: jumar.PPO, steps: Any) -> None:
    before = cartpole.num_timesteps
    with pytest.raises(jumar.UsageError, match="total_timesteps="):
        cartpole.learn(steps)
    assert cartpole.num_timesteps == before


def test_several_seeds_learn_side_by_side() -> None:
    probe = Probe(lambda observation, action, time: action.astype(np.float32), action_space=spaces.Discrete(2))
    agent = jumar.PPO(probe, seed=3, n_seeds=3, **{**SMALL, "learning_rate": 0.03}).learn(640)
    actors = [agent.actor(lane) for lane in range(3)]
    assert len({flat(actor.parameters).tobytes() for actor in actors}) == 3
    assert [int(actor.predict(np.ones(1, np.float32))[0]) for actor in actors] == [1, 1, 1]


def test_a_setting_of_another_algorithm_is_refused_with_those_that_have_it() -> None:
    with pytest.raises(jumar.UsageError, match="clip_range is not a setting of trpo, but of ppo"):
        jumar.TRPO("jax/CartPole-v1", clip_range=0.2)
    with pytest.raises(jumar.UsageError, match="unknown setting 'cg_dumping'; did you mean cg_damping"):
        jumar.TRPO("jax/CartPole-v1", cg_dumping=0.2)


def test_a_method_of_ones_own_is_kept_and_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plain ascent on the surrogate, put together from parts that exist."""

    def build(settings: Any, policy: Any) -> Any:
        """Ascend the surrogate."""
        step = solvers.Step(solvers.Euclidean(), solvers.Rate(Constant(0.1)))
        return compose(settings, policy, objectives.Surrogate(), apart(settings, policy, step))

    monkeypatch.setattr(registry, "ALGORITHMS", dict(registry.ALGORITHMS))
    monkeypatch.setattr(agents, "AGENTS", dict(agents.AGENTS))
    small: dict[str, Any] = {"n_envs": 2, "n_steps": 16, "batch_size": 16, "net_arch": (4,)}
    agent = jumar.method("plain-ascent", CriticFitSettings, build)("jax/CartPole-v1", seed=1, **small)
    agent.learn(32, run_dir=tmp_path / "run")
    with pytest.raises(UsageError, match="gae_lambda"):
        type(agent)("jax/CartPole-v1", gae_lambad=0.5)
    again = jumar.load(tmp_path / "run")
    assert (type(again), again.num_timesteps) == (type(agent), 32)
    assert type(agent).__doc__ == "Ascend the surrogate."
    observation = np.zeros(4, np.float32)
    np.testing.assert_array_equal(agent.predict(observation)[0], again.predict(observation)[0])


@pytest.mark.parametrize(("name", "words"), [("ppo", "taken"), ("My method", "small letters")])
def test_a_method_s_name_must_be_free_and_plain(name: str, words: str) -> None:
    def build(settings: Any, policy: Any) -> Any:
        raise AssertionError("nothing is built")

    with pytest.raises(UsageError, match=words):
        jumar.method(name, CriticFitSettings, build)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plain(CriticFitSettings):
    k: float = 1.0


class Undecorated(CriticFitSettings):
    k: float = setting(1.0, "a number")


@dataclasses.dataclass
class Foreign:
    k: float = 1.0


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (Plain, "the field k of Plain has no help and no range; declare it by k: float = jumar.settings.setting"),
        (Undecorated, "Undecorated is not a dataclass"),
        (
            Foreign,
            "Foreign is not derived from Jumar's settings; derive it from jumar.algorithms.settings.OnPolicySettings",
        ),
        ({"k": 1.0}, "{'k': 1.0} is not derived from"),
    ],
)
def test_the_settings_of_a_method_must_be_a_class_of_settings(settings: Any, words: str) -> None:
    with pytest.raises(UsageError, match=re.escape(words)):
        jumar.method("my-method", settings, lambda settings, policy: None)  # type: ignore[arg-type, return-value]


def test_a_method_that_returns_no_parts_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "ALGORITHMS", dict(registry.ALGORITHMS))
    monkeypatch.setattr(agents, "AGENTS", dict(agents.AGENTS))
    forgetful = jumar.method("forgetful", CriticFitSettings, lambda settings, policy: None)  # type: ignore[arg-type, return-value]
    with pytest.raises(
        UsageError, match="build of the method 'forgetful' returned a NoneType; it must return its parts"
    ):
        forgetful("jax/CartPole-v1")
