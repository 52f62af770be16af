"""The adapters for gymnax and Brax."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

from jumar.envs import gymnax
from jumar.envs.compiled import CompiledStep, FrameStack, jit_for, reset_batch, step_batch
from jumar.envs.compiled_check import check_compiled_environment
from jumar.envs.user_code import import_optional
from jumar.errors import UsageError

KEY = jax.random.PRNGKey(0)
STEPS = """
import sys, jax, jax.numpy as jnp
from jumar.envs.compiled import jit_for, reset_batch, step_batch
from jumar.envs.gymnax import make_gymnax
from jumar.xla.compiler import tune_compiler
tune_compiler()
env = make_gymnax(sys.argv[1])
def run(key):
    states, _ = reset_batch(env, env.params, key, 4)
    return step_batch(env, env.params, key, states, jnp.zeros((4,), jnp.int32))[1].observations
print(jit_for(env)(run)(jax.random.PRNGKey(0)).shape[:3] == (4, 10, 10))
"""


def rollout(env: Any, actions: Any) -> tuple[Any, CompiledStep]:
    """Reset, then scan batched steps through actions (T, N, ...); return the first observations and the steps."""

    @jax.jit
    def whole(key: jax.Array, actions: jax.Array) -> Any:
        reset_key, step_key = jax.random.split(key)
        states, first = reset_batch(env, env.params, reset_key, actions.shape[1])

        def body(states: Any, inputs: Any) -> Any:
            return step_batch(env, env.params, inputs[0], states, inputs[1])

        return first, jax.lax.scan(body, states, (jax.random.split(step_key, len(actions)), actions))[1]

    return whole(KEY, jnp.asarray(actions))


class TestGymnax:
    @pytest.fixture(autouse=True)
    def _needs_gymnax(self) -> None:
        pytest.importorskip("gymnax")

    def make(self, name: str, **kwargs: Any) -> Any:
        from jumar.envs.gymnax import make_gymnax

        return make_gymnax(name, kwargs)

    def test_time_limit_is_a_truncation_and_resets_differ(self) -> None:
        env = self.make("Pendulum-v1", max_steps_in_episode=50)
        check_compiled_environment(env, "gymnax/Pendulum-v1")
        first, steps = rollout(env, np.zeros((200, 3, 1), np.float32))
        expected = np.zeros((200, 3), bool)
        expected[49::50] = True
        np.testing.assert_array_equal(steps.truncated, expected)
        assert not steps.terminated.any()
        starts = np.concatenate([np.asarray(first)[None], np.asarray(steps.observations)[49::50]]).reshape(-1, 3)
        assert len(np.unique(starts, axis=0)) == len(starts)
        assert np.all(np.asarray(steps.successors)[49::50, :, 2] != np.asarray(steps.observations)[49::50, :, 2])

    def test_dynamics_are_gymnaxs_and_equal_ours(self) -> None:
        from jumar.envs.classic_control import CartPole, CartPoleState

        env, ours = self.make("CartPole-v1"), CartPole()
        state, observation = env.reset(KEY, env.params)
        own = CartPoleState(state.x, state.x_dot, state.theta, state.theta_dot, jnp.zeros((), jnp.int32))
        ends = []
        for _ in range(30):
            action = jnp.ones((), jnp.int32)
            state, observation, reward, terminated, _, _ = env.step(KEY, state, action, env.params)
            own, own_observation, own_reward, own_terminated, _, _ = ours.step(KEY, own, action, ours.params)
            np.testing.assert_allclose(observation, own_observation, rtol=1e-4, atol=1e-5)
            assert float(reward) == float(own_reward)
            assert bool(terminated) == bool(own_terminated)
            ends.append(bool(terminated))
            if ends[-1]:
                break
        assert ends[-1]  # the pole fell: the adapter says terminated, and does not reset

    def test_spaces_are_gymnasiums(self) -> None:
        for name in ("CartPole-v1", "Pendulum-v1"):
            env, reference = self.make(name), gymnasium.make(name)
            assert env.observation_space == reference.observation_space
            assert env.action_space == reference.action_space
        catch = self.make("Catch-bsuite")
        assert catch.observation_space == spaces.Box(0, 1, (10, 5), np.int32)

    def test_bad_input_is_named(self) -> None:
        with pytest.raises(UsageError, match="unknown gymnax environment 'CartPole'; did you mean CartPole-v1"):
            self.make("CartPole")
        with pytest.raises(UsageError, match="'max_episode_steps'; did you mean max_steps_in_episode"):
            self.make("CartPole-v1", max_episode_steps=3)
        with pytest.raises(UsageError, match=r"params\.gravity is 'low'"):
            self.make("CartPole-v1", gravity="low")

    def test_constructor_arguments_and_params_are_told_apart(self) -> None:
        env = self.make("DeepSea-bsuite", size=5, max_steps_in_episode=4)
        assert env.observation_space.shape == (5, 5)
        assert int(env.params.max_steps_in_episode) == 4

    def test_programs_that_step_minatar_have_their_options_of_the_compiler(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        env = self.make("Breakout-MinAtar")
        around = FrameStack(env, 2)
        assert env.compiler_options == around.compiler_options == gymnax.NO_MULTI_OUTPUT_FUSION
        assert jit_for(self.make("Catch-bsuite")) is jax.jit
        monkeypatch.setattr(gymnax, "NO_MULTI_OUTPUT_FUSION", {"xla_no_such_option": "1"})
        with pytest.raises(jax.errors.JaxRuntimeError, match="xla_no_such_option"):
            jit_for(around)(lambda x: x + 1)(1)

    @pytest.mark.slow
    @pytest.mark.parametrize("name", ["Breakout-MinAtar", "Freeway-MinAtar"])
    def test_xla_does_not_abort_where_minatar_is_stepped_and_reset(self, name: str) -> None:
        environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
        done = subprocess.run([sys.executable, "-c", STEPS, name], env=environment, capture_output=True, text=True)
        assert (done.stdout.strip(), done.returncode) == ("True", 0), done.stderr[-2000:]


class TestBrax:
    @pytest.fixture(autouse=True)
    def _needs_brax(self) -> None:
        pytest.importorskip("brax")

    def make(self, name: str, **kwargs: Any) -> Any:
        from jumar.envs.brax import make_brax

        return make_brax(name, kwargs)

    def test_inverted_pendulum(self) -> None:
        env = self.make("inverted_pendulum", episode_length=20)
        assert env.observation_space.shape == (4,)
        assert env.action_space == spaces.Box(-1.0, 1.0, (1,), np.float32)
        # Left alone, environments 0 and 1 stay up for longer than the limit; 2 is pushed over.
        actions = np.zeros((200, 3, 1), np.float32)
        actions[:, 2] = 1.0
        first, steps = rollout(env, actions)
        ended = np.asarray(steps.terminated | steps.truncated)
        assert steps.truncated[19, :2].all()
        assert not steps.truncated[:19].any()
        fell = np.abs(np.asarray(steps.successors)[..., 1]) > 0.2
        np.testing.assert_array_equal(steps.terminated, fell)
        assert steps.terminated[:19, 2].any()
        starts = np.concatenate([np.asarray(first), np.asarray(steps.observations)[ended]])
        assert len(np.unique(starts, axis=0)) == len(starts)
        assert np.all(np.abs(starts) <= 0.01)  # Brax's initial range
        np.testing.assert_array_equal(steps.rewards, np.ones((200, 3)))

    def test_step_does_not_write_into_the_state_it_is_given(self) -> None:
        env = self.make("hopper", backend="positional")
        shapes = jax.eval_shape(env.reset, KEY, env.params)[0]
        state = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
        jax.eval_shape(lambda action: env.step(KEY, state, action, env.params), jnp.zeros(3))
        assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(state))

    def test_bad_input_is_named(self) -> None:
        with pytest.raises(UsageError, match="unknown brax environment 'half_cheetah'; did you mean halfcheetah"):
            self.make("half_cheetah")
        with pytest.raises(UsageError, match="'max_episode_steps'; did you mean episode_length"):
            self.make("inverted_pendulum", max_episode_steps=3)
        with pytest.raises(UsageError, match="episode_length=0 must be a whole number"):
            self.make("inverted_pendulum", episode_length=0)
        with pytest.raises(UsageError, match="brax/inverted_pendulum: making it raises ValueError: backend should be"):
            self.make("inverted_pendulum", backend="bullet")


def test_the_names_written_down_are_those_registered() -> None:
    from jumar.envs.brax import NAMES as BRAX
    from jumar.envs.gymnax import NAMES as GYMNAX

    assert sorted(GYMNAX) == sorted(import_optional("gymnax", "gymnax").registered_envs)
    assert sorted(BRAX) == sorted(set(import_optional("brax.envs", "brax")._envs) - {"fast"})
