"""The arithmetic limit of an off-policy training; the last line of the output is a JSON object.

An update cannot take less time than its matrix products take at the fastest rate that a square product reaches on this
machine. From the two follow the updates, and so the environment steps, per second that no implementation in float32
can exceed here. ``profile`` has the operations of an update (``gflop``) and the rate (``gflop_per_second``).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any


@dataclass(frozen=True)
class Work:
    """What an algorithm computes in an update.

    Args:
        n_critics: critics that are regressed, each with a target.
        n_climbed: critics whose value the policy is improved on.
        policy_delay: updates of the critics for one of the policy.
        outputs: the policy's outputs for each dimension of the action: 2 for mean and deviation.
    """

    n_critics: int
    n_climbed: int
    policy_delay: int
    outputs: int


WORK = {"sac": Work(2, 2, 1, 2), "td3": Work(2, 1, 2, 1), "ddpg": Work(1, 1, 1, 1)}


def update_flops(algorithm: str, observation: int, action: int, net_arch: Sequence[int], batch_size: int) -> float:
    """Return the floating point operations of the matrix products of one update; of the mean one if some differ.

    A product of ``[batch, m]`` with ``[m, n]`` has 2 x batch x m x n. A layer has one such product forwards, one for the
    gradient of its weights, and one for the gradient of its inputs. With P the weights of the policy, Q those of a critic,
    P1 and Q1 those of their first layers, A those of the action in Q1, n critics, and the policy improved on k of them in
    every d-th update, an update needs

    - P + nQ for the target: the policy and the target critics forwards,
    - nQ + nQ + n(Q - Q1) for the critics: forwards, weights, inputs except for the first layer's,
    - 1/d (P + kQ + k(Q - Q1 + A) + P + P - P1) for the policy: policy and critics forwards, the gradient of the
      action through the critics, then weights and inputs of the policy.

    Biases, activations, the optimisers' steps and the moving averages of the targets are left out: they are less than two
    hundredths of it for two layers of 256 and minibatches of 256.
    """
    work = WORK[algorithm]
    policy = [a * b for a, b in pairwise((observation, *net_arch, work.outputs * action))]
    critic = [a * b for a, b in pairwise((observation + action, *net_arch, 1))]
    p, q, n, k = sum(policy), sum(critic), work.n_critics, work.n_climbed
    of_action = action * net_arch[0]
    target = p + n * q
    regression = n * (2 * q + q - critic[0])
    improvement = p + k * q + k * (q - critic[0] + of_action) + p + p - policy[0]
    return 2.0 * batch_size * (target + regression + improvement / work.policy_delay)


def steps_per_second(peak: float, flops: float, updates_per_step: float) -> float:
    """Return the environment steps per second that updates of so many operations allow at most."""
    return peak / (flops * updates_per_step)


def read_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--algorithm", choices=tuple(WORK), required=True)
    parser.add_argument("--sizes", type=int, nargs=2, required=True, help="of an observation and of an action")
    parser.add_argument("--net-arch", required=True, help="units of the hidden layers: 256,256")
    parser.add_argument("--batch-size", type=int, required=True)
    parser.add_argument("--train-freq", type=int, required=True, help="steps of all environments in a round")
    parser.add_argument("--gradient-steps", type=int, required=True, help="updates in a round")
    parser.add_argument("--total-timesteps", type=int, required=True, help="taken, and of no use: the peak is measured")
    arguments = parser.parse_args()
    arguments.net_arch = [int(units) for units in arguments.net_arch.split(",")]
    return arguments


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    from peak import peak_flops

    observation, action = arguments.sizes
    flops = update_flops(arguments.algorithm, observation, action, arguments.net_arch, arguments.batch_size)
    peak = peak_flops()
    return {
        "total_timesteps": arguments.total_timesteps,
        "steps_per_second": steps_per_second(peak, flops, arguments.gradient_steps / arguments.train_freq),
        "profile": {"gflop": flops / 1e9, "gflop_per_second": peak / 1e9},
    }


if __name__ == "__main__":
    print(json.dumps(measure(read_arguments())))
