"""A price on costs: it is taken off the rewards that are learnt from, and off nothing else."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from probes import Probe, random_sign
from updates import BOX, CHOICES, CONTINUOUS, REPLAY_METHODS, ROLLOUT_METHODS, flat, make_update

import jumar
from jumar.algorithms.on_policy.costs import CostPenalty, CostsIgnored
from jumar.errors import UsageError

PRICE = 0.75
SMALL = {"n_envs": 4, "n_steps": 16, "net_arch": (4,), "normalize_rewards": True, "seed": 0}


def pays(observation: Any, action: Any, time: Any) -> Any:
    return action.astype(jnp.float32) + 0.25 * time


def costs(observation: Any, action: Any, time: Any) -> dict[str, Any]:
    return {"cost": 2.0 * action.astype(jnp.float32) + 0.5}


def pays_less(observation: Any, action: Any, time: Any) -> Any:
    return pays(observation, action, time) - PRICE * costs(observation, action, time)["cost"]


PRICED = Probe(pays, random_sign, length=5, time_limit=True, info=costs)
CHEAPER = Probe(pays_less, random_sign, length=5, time_limit=True)


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("PPO", {"batch_size": 32, "n_epochs": 2}),
        ("ACER", {"buffer_size": 256, "replay_start": 64}),
    ],
)
def test_a_price_on_costs_learns_what_rewards_less_their_price_do(name: str, settings: dict[str, Any]) -> None:
    method = getattr(jumar, name)
    records: dict[str, list[Any]] = {"priced": [], "cheaper": []}
    priced = method(PRICED, cost_coef=PRICE, **settings, **SMALL).learn(256, callback=records["priced"].append)
    cheaper = method(CHEAPER, **settings, **SMALL).learn(256, callback=records["cheaper"].append)
    np.testing.assert_allclose(flat(priced._training.learner), flat(cheaper._training.learner), rtol=1e-5, atol=1e-6)
    returns = {side: record[-1]["rollout/ep_rew_mean"] for side, record in records.items()}
    cost = records["priced"][-1]["rollout/ep_cost_mean"]
    assert returns["priced"] - PRICE * cost == pytest.approx(returns["cheaper"], abs=1e-4)


@pytest.mark.parametrize("name", [name for name in ROLLOUT_METHODS if name != "cpo"])
def test_every_method_but_cpo_has_a_price(name: str) -> None:
    assert make_update(BOX, CHOICES, name, cost_coef=PRICE).costs == CostPenalty(PRICE)
    assert make_update(BOX, CHOICES, name).costs == CostsIgnored()


@pytest.mark.parametrize("name", REPLAY_METHODS)
def test_methods_that_learn_from_a_memory_have_a_price(name: str) -> None:
    priced: Any = make_update(BOX, CONTINUOUS, name, cost_coef=PRICE)
    assert priced.needs_cost
    worth = priced._worth(priced.init(jax.random.PRNGKey(0), 2), jnp.array([1.0, 2.0]), jnp.array([0.0, 4.0]))
    np.testing.assert_allclose(worth, [1.0, 2.0 - 4.0 * PRICE])
    assert not make_update(BOX, CONTINUOUS, name).needs_cost


def test_without_a_price_costs_change_nothing() -> None:
    plain = Probe(pays, random_sign, length=5, time_limit=True)
    priced, unpriced = (
        flat(jumar.TRPO(env, batch_size=32, **SMALL).learn(128)._training.learner) for env in (PRICED, plain)
    )
    np.testing.assert_array_equal(priced, unpriced)


def test_a_price_needs_costs() -> None:
    with pytest.raises(UsageError, match=r"cost_coef need a cost per step: info\['cost'\] .* --cost velocity:V"):
        jumar.PPO("jax/CartPole-v1", cost_coef=1.0)


def test_a_limit_takes_no_price() -> None:
    with pytest.raises(UsageError, match=r"cost_coef=0\.5 is a price on costs, and cpo has a limit, cost_limit"):
        jumar.CPO(PRICED, cost_coef=0.5)
