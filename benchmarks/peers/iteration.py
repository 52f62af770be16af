"""Where the time of one iteration of Jumar's PPO goes; the last line of the output is a JSON object.

``profile`` has milliseconds an iteration, medians over repetitions that are taken in turns:

- ``iteration``: the whole, as training does it.
- ``simulator``: the environments alone, stepped the same way with random actions. It is the limit of what collecting can reach.
- ``policy``: the policy alone, acting for as many rows on observations that do not change.
- ``collecting``: both, with all that lies between: waiting, copying, writing down.
- ``epochs``: the minibatches: what nine epochs more take, times ten ninths.
- ``advantages``: the rest of the update: values, advantages, normalisers, the flight record.
- ``arithmetic``: what the products of the minibatches would take at the fastest rate that a square product reaches here.
"""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from peak import Program, peak_flops, seconds

import jumar
from jumar.algorithms.registry import algorithm
from jumar.collecting.gatherers import PoolScan
from jumar.collecting.host import HostRunner
from jumar.collecting.programs import CompiledRunner
from jumar.policies.exploration import Acting

ALL_LEFT = np.ones(1, np.float32)
"""The share of training that is left at the one round of an iteration."""


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", required=True, help="an id with its backend")
    for name in ("--n-envs", "--n-steps", "--n-epochs", "--batch-size"):
        parser.add_argument(name, type=int, required=True)
    parser.add_argument("--joint-gradient", choices=("true", "false"), default="true", help="of policy and critic")
    parser.add_argument("--total-timesteps", type=int, required=True, help="steps to time, over all environments")
    return parser.parse_args()


class Profile:
    """The programs that an iteration is made of, for one agent."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        sizes = {name: getattr(arguments, name) for name in ("n_envs", "n_steps", "n_epochs", "batch_size")}
        joint = arguments.joint_gradient == "true"
        self.agent = jumar.PPO(arguments.env, preset="none", joint_gradient=joint, **sizes)
        self.agent.learn(1)
        self.training: Any = self.agent._training
        self.update, self.runner = self.training.update, self.training.runner
        self.settings = self.training.plan.settings
        self.rows, self.n_envs = arguments.n_steps, arguments.n_envs
        self.key = jax.random.PRNGKey(0)
        space = self.training.spaces[1]
        space.seed(0)
        drawn = [[space.sample() for _ in range(self.n_envs)] for _ in range(self.rows)]
        self.actions = np.asarray(drawn)

    def programs(self) -> dict[str, Program]:
        """Return what to time, by name."""
        if isinstance(self.runner, CompiledRunner):
            return {"iteration": self.iteration, **self._compiled()}
        assert isinstance(self.runner, HostRunner)
        gatherer = self.runner._gatherer
        parts = self._scan(gatherer) if isinstance(gatherer, PoolScan) else self._loop(gatherer)
        return {"iteration": self.iteration, **parts, **self._host_update(gatherer)}

    def iteration(self) -> Any:
        """Do what training does."""
        training = self.training
        training.held = self.runner.iterate(training.held, self.key[None], ALL_LEFT).held
        return training.held

    def arithmetic_ms(self) -> float:
        """Return the time of the minibatches' products at the peak of the square product."""
        leaves = jax.tree.leaves(self.training.learner.parameters)
        weights = sum(leaf.size for leaf in leaves if leaf.ndim == 2)
        first = self.update.policy.encoder.vector_size * self.settings.net_arch[0] * 2
        # Forward, with respect to the weights, and with respect to the inputs except for the first layer's.
        products = 2 * (3 * weights - first) * self.rows * self.n_envs * self.settings.n_epochs
        return 1e3 * products / peak_flops()

    def _with_epochs(self, n_epochs: int) -> Any:
        settings = replace(self.settings, n_epochs=n_epochs)
        return algorithm("ppo").make(settings, self.update.policy)

    def _arguments(self) -> tuple[Acting, Any, np.ndarray]:
        behaviour = self.update.behaviour
        carry = behaviour.begin_rollout(behaviour.initial_carry(self.n_envs))
        start = np.zeros((self.n_envs,), bool)
        return self.update.acting(self.training.learner, ALL_LEFT[0]), carry, start

    def _act_rows(self, observations: Any, mask: Any) -> Program:
        """Return a program in which the policy acts for all rows, each fed by the one before it."""
        behaviour = self.update.behaviour
        acting, carry, start = self._arguments()

        @jax.jit
        def act(acting: Acting, observations: Any, carry: Any, key: jax.Array) -> Any:
            def row(state: Any, noise: jax.Array) -> tuple[Any, Any]:
                carry, touch = state
                seen = jax.tree.map(lambda x: x + touch.astype(x.dtype), observations)
                acted = behaviour.act(acting, seen, carry, jnp.asarray(start), mask, noise)
                return (acted.carry, jnp.sum(acted.given.astype(jnp.float32)) * 0.0), acted.given

            noise = behaviour.rollout_noise(jax.random.split(key, self.rows), self.n_envs)
            return jax.lax.scan(row, (carry, jnp.float32(0.0)), noise)

        return lambda: act(acting, observations, carry, self.key)

    def _scan(self, gatherer: PoolScan) -> dict[str, Program]:
        with jax.enable_x64(True):
            handle, step = gatherer._pool.xla()  # type: ignore[union-attr]
            observations = jnp.asarray(gatherer._state[1]).astype(jnp.float32)

            def row(handle: Any, action: Any) -> tuple[Any, Any]:
                handle, taken = step(handle, action)
                return handle, taken[1]

            actions = jnp.asarray(self.actions, jnp.float64)
            alone = jax.jit(lambda handle: jax.lax.scan(row, handle, actions))
            act = self._act_rows(observations, None)

        def simulator() -> Any:
            with jax.enable_x64(True):
                return alone(handle)

        def collecting() -> Any:
            return gatherer.gather(*self._arguments(), self.key)

        def policy() -> Any:
            with jax.enable_x64(True):
                return act()

        return {"simulator": simulator, "policy": policy, "collecting": collecting}

    def _loop(self, gatherer: Any) -> dict[str, Program]:
        environments = gatherer._environments

        def simulator() -> Any:
            for action in self.actions:
                environments.step(action)

        def policy() -> Any:
            acting, carry, start = self._arguments()
            observations, masks = gatherer.seen
            noise = np.asarray(gatherer._noise(self.key, self.n_envs))
            for t in range(self.rows):
                acted = gatherer._act(acting, observations, carry, start, masks, noise[t])
                np.asarray(acted.given)
                carry = acted.carry

        return {
            "simulator": simulator,
            "policy": policy,
            "collecting": lambda: gatherer.gather(*self._arguments(), self.key),
        }

    def _host_update(self, gatherer: Any) -> dict[str, Program]:
        acting, carry, start = self._arguments()
        gathered, _, _ = gatherer.gather(acting, carry, start, self.key)
        gathered = jax.device_get({**gathered, "carry": carry, "critic_carry": ()})
        learner = self.training.learner
        one = HostRunner(self._with_epochs(1), self.runner._make, self.rows)._learn
        return {
            "update": lambda: self.runner._learn(learner, gathered, (), ALL_LEFT[0], self.key),
            "update of one epoch": lambda: one(learner, gathered, (), ALL_LEFT[0], self.key),
        }

    def _compiled(self) -> dict[str, Program]:
        runner, learner, collector = self.runner, self.training.learner, self.training.collector
        collect = jax.jit(runner._collect)
        from jumar.envs.compiled import step_batch

        def row(states: Any, drawn: Any) -> tuple[Any, Any]:
            key, action = drawn
            return step_batch(runner._env, runner._env.params, key, states, action)

        keys = jax.random.split(self.key, self.rows)
        alone = jax.jit(lambda states: jax.lax.scan(row, states, (keys, jnp.asarray(self.actions))))
        act = self._act_rows(collector.observations, None)
        acting = self.update.acting(learner, ALL_LEFT[0])
        learn, one = jax.jit(self.update.learn), jax.jit(self._with_epochs(1).learn)
        _, trajectory = collect(acting, collector, self.key)
        return {
            "simulator": lambda: alone(collector.environments),
            "policy": act,
            "collecting": lambda: collect(acting, collector, self.key),
            "update": lambda: learn(learner, trajectory, ALL_LEFT[0], self.key),
            "update of one epoch": lambda: one(learner, trajectory, ALL_LEFT[0], self.key),
        }


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Time all parts in turns."""
    profile = Profile(arguments)
    programs = profile.programs()
    for program in programs.values():
        seconds(program)  # compiles it
    rollout = arguments.n_envs * arguments.n_steps
    repeats = max(3, arguments.total_timesteps // rollout)
    times: dict[str, list[float]] = {name: [] for name in programs}
    for _ in range(repeats):
        for name, program in programs.items():
            times[name].append(1e3 * seconds(program))
    found = {name: statistics.median(values) for name, values in times.items()}
    update, one = found.pop("update"), found.pop("update of one epoch")
    epochs = (update - one) * arguments.n_epochs / (arguments.n_epochs - 1)
    parts = {**found, "epochs": epochs, "advantages": update - epochs, "arithmetic": profile.arithmetic_ms()}
    return {
        "total_timesteps": repeats * rollout,
        "steps_per_second": 1e3 * rollout / found["iteration"],
        "profile": parts,
    }


if __name__ == "__main__":
    print(json.dumps(measure(read_arguments())))
