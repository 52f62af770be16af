"""Warm starts: what is taken over from another run, what is not, and what is refused."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from gymnasium import spaces
from test_resume import digest
from test_resume import jumar as run_command
from updates import flat, make_update

import jumar
from jumar.algorithms.on_policy.ppo import PPOSettings
from jumar.cli import main
from jumar.critics.encodings import Histogram
from jumar.critics.state_values import TorsoCritic
from jumar.errors import DamagedFile, UsageError
from jumar.policies.policy import PolicySettings
from jumar.runs import logs
from jumar.runs.checkpoints import CheckpointStore
from jumar.runs.policy_files import read_policy_files
from jumar.training.plan import Origin, Plan
from jumar.training.warm_start import SavedCritic, WarmStart, read_warm_start

TRPO: dict[str, Any] = {"n_envs": 2, "n_steps": 16, "batch_size": 16, "n_critic_updates": 1, "net_arch": (8,)}
PPO: dict[str, Any] = {"n_envs": 4, "n_steps": 8, "batch_size": 16, "n_epochs": 1}
NORMALISED: dict[str, Any] = {"normalize_observations": True, "normalize_rewards": True}


def saved(settings: PolicySettings, critic: SavedCritic | None = None) -> WarmStart:
    """Return what a run begins with, without a policy in it."""
    space = spaces.Discrete(2)
    nothing: Any = None
    return WarmStart(Origin("old", "0" * 64), 640, settings, (space, space), nothing, nothing, critic)


# Settings


def test_the_policy_brings_its_own_settings_and_the_others_are_those_given() -> None:
    completed = saved(PolicySettings(net_arch=(8,), activation="relu")).completed({"gamma": "0.9"}, PPOSettings)
    assert completed["gamma"] == "0.9"
    assert (completed["net_arch"], completed["activation"]) == ((8,), "relu")
    assert PPOSettings.make(completed).net_arch == (8,)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"net_arch": "32,32"}, "net_arch=32,32, but the policy in old has net_arch=8, which a warm start keeps"),
        ({"activation": "relu"}, "activation=relu, but the policy in old has activation=tanh"),
        ({"recurrent": "gru"}, "recurrent=gru, but the policy in old has recurrent=none"),
        ({"normalize_observations": True}, "normalize_observations=true, but the policy in old has .*=false"),
    ],
)
def test_a_setting_that_would_make_another_policy_is_refused(given: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        saved(PolicySettings(net_arch=(8,))).completed(given, PPOSettings)


def test_what_is_given_and_equal_is_no_contradiction_and_some_settings_change_no_policy() -> None:
    given = {"net_arch": "8", "ortho_init": "false", "sde_sample_freq": 4}
    completed = PPOSettings.make(saved(PolicySettings(net_arch=(8,))).completed(given, PPOSettings))
    assert (completed.net_arch, completed.ortho_init, completed.sde_sample_freq) == ((8,), False, 4)


# The critic


def critic_of(name: str, **settings: Any) -> dict[str, np.ndarray]:
    """Return the critic of a method as a checkpoint has it."""
    from jumar.runs.files import tree_to_arrays

    update = make_update(name=name, **settings)
    return tree_to_arrays(jax.tree.map(lambda x: np.ones(x.shape, x.dtype), first_learner(update).parameters["critic"]))


def first_learner(update: Any) -> Any:
    return jax.eval_shape(lambda key: update.init(key, 2), jax.random.PRNGKey(0))


MOMENTS = {name: np.asarray(x, np.float32) for name, x in (("rows", 7.0), ("mean", 2.0), ("variance", 3.0))}


@pytest.mark.parametrize(
    ("critic", "settings", "why"),
    [
        (lambda: SavedCritic(640, critic_of("trpo"), {}), {}, None),
        (lambda: SavedCritic(640, critic_of("trpo"), MOMENTS), {"normalize_rewards": True}, None),
        (lambda: None, {}, "no checkpoint beside it"),
        (lambda: SavedCritic(640, {}, {}), {}, "had no critic"),
        (lambda: SavedCritic(640, critic_of("trpo"), MOMENTS), {}, "normalize_rewards"),
        (lambda: SavedCritic(640, critic_of("trpo"), {}), {"normalize_rewards": True}, "normalize_rewards"),
        (lambda: SavedCritic(640, critic_of("acer"), {}), {}, "of another kind"),
        (lambda: SavedCritic(640, critic_of("trpo"), {}), {"baseline": "none", "advantage": "to-go"}, "no critic"),
    ],
)
def test_the_critic_is_taken_over_where_it_fits_and_else_it_is_said_why_not(
    critic: Callable[[], SavedCritic | None], settings: dict[str, Any], why: str | None
) -> None:
    start = saved(PolicySettings(), critic())
    taken, left_out = start._critic_for(first_learner(make_update(name="ppo", **settings)))
    assert (taken is None) == (left_out is not None)
    if why is None:
        assert start.words(None) == "begins with the policy in old (step 640, SHA-256 000000000000...) and its critic"
    else:
        assert why in str(left_out)
        assert f"alone: {left_out}" in start.words(left_out)


def test_bins_between_other_limits_make_a_new_critic() -> None:
    histogram = Histogram(11, 10.0)
    start = saved(PolicySettings(), SavedCritic(640, critic_of("trpo"), {}, limit=100.0))
    learner = first_learner(make_update(name="ppo"))
    assert "critic_limit" in str(start._critic_for(learner, histogram)[1])
    assert start._critic_for(learner, replace(histogram, limit=100.0))[1] is None


def test_a_critic_of_another_step_than_the_policy_is_said() -> None:
    start = saved(PolicySettings(), SavedCritic(512, {}, {}))
    assert start.words(None).endswith("and its critic (step 512)")


# Files


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of an agent that nobody may change."""
    folder = tmp_path_factory.mktemp("old") / "run"
    jumar.TRPO("jax/CartPole-v1", **TRPO, **NORMALISED).learn(64).save(folder)
    return folder


def arrays_of(path: Path) -> dict[str, np.ndarray]:
    return CheckpointStore(path / "checkpoints").newest().arrays


def test_a_run_directory_has_policy_normaliser_and_critic(old: Path) -> None:
    start, arrays = read_warm_start(old), arrays_of(old)
    assert (start.step, start.settings.net_arch, start.origin) == (64, (8,), Origin(str(old), digest(old)))
    assert start.critic is not None
    assert start.critic.step == 64
    np.testing.assert_array_equal(start.critic.arrays["head/kernel"], arrays["learner/parameters/critic/head/kernel"])
    assert set(start.critic.reward_moments) == {"rows", "mean", "variance"}
    assert float(start.moments.rows) == 64.0


def test_bare_policy_files_have_the_policy_alone(old: Path, tmp_path: Path) -> None:
    for name in ("policy.json", "policy.safetensors"):
        shutil.copy(old / name, tmp_path)
    assert read_warm_start(tmp_path).critic is None


@pytest.mark.parametrize("kind", ["pipe", "link", "folder"])
def test_a_run_whose_configuration_is_no_file_is_not_taken_for_a_bare_policy(
    kind: str, old: Path, tmp_path: Path
) -> None:
    for name in ("policy.json", "policy.safetensors"):
        shutil.copy(old / name, tmp_path)
    config = tmp_path / "config.json"
    {"pipe": os.mkfifo, "link": lambda path: path.symlink_to("nowhere"), "folder": os.mkdir}[kind](config)
    with pytest.raises(DamagedFile, match=f"config.json is a {kind}, but must be a plain file"):
        read_warm_start(tmp_path)


def test_what_holds_no_policy_is_refused_with_what_would_be_right(old: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no run at"):
        read_warm_start(tmp_path / "nothing")
    run = tmp_path / "run"
    shutil.copytree(old, run)
    (run / "policy.json").unlink()
    with pytest.raises(UsageError, match="no final policy: go on with jumar resume"):
        read_warm_start(run)
    (run / "best").mkdir()
    shutil.copy(old / "policy.json", run / "best")
    with pytest.raises(UsageError, match="or begin with its best policy so far"):
        read_warm_start(run)


def test_damaged_files_and_links_are_refused(old: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(old, run)
    state = next((run / "checkpoints").glob("*/state.safetensors"))
    state.rename(tmp_path / "state")
    state.symlink_to(tmp_path / "state")
    with pytest.raises(DamagedFile, match="is a link"):
        read_warm_start(run)
    shutil.rmtree(run / "checkpoints")
    (run / "policy.safetensors").write_bytes(b"anything")
    with pytest.raises(DamagedFile, match="damaged"):
        read_warm_start(run)


def test_one_seed_of_several_has_its_own_critic(tmp_path: Path) -> None:
    several = tmp_path / "several"
    jumar.TRPO("jax/CartPole-v1", seed=5, n_seeds=2, **TRPO).save(several)
    start, arrays = read_warm_start(several / "seed_6"), arrays_of(several)
    assert start.critic is not None
    name = "learner/parameters/critic/torso/mlp/layer_0/kernel"
    np.testing.assert_array_equal(start.critic.arrays["torso/mlp/layer_0/kernel"], arrays[name][1])
    assert not np.array_equal(arrays[name][0], arrays[name][1])
    with pytest.raises(UsageError, match=r"holds several seeds; begin with one of them, such as .*seed_5"):
        read_warm_start(several)


# Agents


@pytest.fixture(scope="module")
def warm(old: Path) -> Iterator[jumar.PPO]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield jumar.PPO(
            "jax/CartPole-v1", seed=3, init_from=old, preset="none", learning_rate="linear:1e-3", **PPO, **NORMALISED
        )


def test_policy_normaliser_and_critic_are_those_of_the_run_and_all_else_begins_anew(warm: jumar.PPO, old: Path) -> None:
    arrays, learner = arrays_of(old), warm._training.learner
    parameters = {f"learner/parameters/{name}": x for name, x in named(learner.parameters).items()}
    assert parameters
    for name, x in parameters.items():
        np.testing.assert_array_equal(x, arrays[name], err_msg=name)
    np.testing.assert_array_equal(learner.observation_moments.mean, arrays["learner/observation_moments/mean"])
    np.testing.assert_array_equal(
        learner.reward_scale.moments.variance, arrays["learner/reward_scale/moments/variance"]
    )
    assert learner.reward_scale.running_return.shape == (4,)
    assert not flat(learner.solver).any()
    assert (warm.num_timesteps, warm.settings.net_arch) == (0, (8,))


def named(tree: Any) -> dict[str, np.ndarray]:
    from jumar.runs.files import tree_to_arrays

    return tree_to_arrays(jax.device_get(tree))


def test_all_seeds_begin_with_the_same_policy(old: Path) -> None:
    agent = jumar.PPO("jax/CartPole-v1", n_seeds=2, init_from=old, preset="none", **PPO, **NORMALISED)
    policies = agent._training.learner.parameters
    assert all(np.array_equal(x[0], x[1]) for x in jax.tree.leaves(policies))
    np.testing.assert_array_equal(flat(agent._training.snapshot(1)[0]), flat(read_warm_start(old).parameters))


def test_seeds_of_an_off_policy_method_begin_with_the_critics_moments_too(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "net_arch": (4,),
        "buffer_size": 200,
        "batch_size": 8,
        "log_every": 50,
        "learning_starts": 20,
    }
    settings |= {"preset": "none", "critic_batch_norm": True}
    jumar.SAC("jax/Pendulum-v1", seed=0, **settings).learn(50).save(tmp_path / "old")
    learner = jumar.SAC("jax/Pendulum-v1", n_seeds=2, init_from=tmp_path / "old", **settings)._training.learner
    kept = {name: x for name, x in arrays_of(tmp_path / "old").items() if name.startswith("learner/statistics/")}
    assert any((x != x.astype(bool)).any() for x in kept.values()), "they have moved from 0 and 1"
    for mine in (learner.statistics, learner.target_statistics):
        for name, x in named(mine).items():
            for lane in range(2):
                np.testing.assert_array_equal(x[lane], kept[f"learner/statistics/{name}"])
    assert np.ndim(learner.clock.steps) == 0


def test_a_policy_alone_is_said(old: Path, tmp_path: Path) -> None:
    for name in ("policy.json", "policy.safetensors"):
        shutil.copy(old / name, tmp_path)
    with pytest.warns(UserWarning, match="alone: there is no checkpoint beside it, so the critic is new"):
        agent = jumar.A2C("jax/CartPole-v1", init_from=tmp_path)
    np.testing.assert_array_equal(flat(agent._training.snapshot(0)[0]), flat(read_warm_start(old).parameters))
    assert isinstance(vars(agent._training.update)["critic"], TorsoCritic)


def test_another_environment_is_refused_where_its_spaces_differ(old: Path) -> None:
    with pytest.raises(
        UsageError, match=r"the observation space of .*Pendulum-v1 is 3 numbers.* trained with 4 numbers"
    ):
        jumar.PPO("jax/Pendulum-v1", init_from=old)


def test_load_takes_no_settings_and_names_the_way(old: Path) -> None:
    with pytest.raises(UsageError, match=r"takes no learning_rate.* TRPO\(env, init_from=.*, learning_rate=\.\.\.\)"):
        jumar.load(old, learning_rate=1e-4)
    with pytest.raises(UsageError, match=r"unknown argument of jumar\.load 'device'; known: path, env"):
        jumar.load(old, device="cpu")


# The command line


def refused(*words: str | Path) -> str:
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(io.StringIO()):
        assert main([*map(str, words), "--json"]) == 2
    return json.loads(output.getvalue().splitlines()[-1])["error"]


@pytest.mark.parametrize("option", ["--learning-rate", "--no-normalize-advantage", "--lr", "--seed"])
def test_resume_takes_no_settings_and_names_the_way(option: str, tmp_path: Path) -> None:
    words = refused("resume", tmp_path, option, "1")
    assert words.startswith(f"unknown option '{option}'; a resumed run goes on with the settings that it has.")
    assert words.endswith("jumar train ALGO ENV --init-from RUN.")
    assert "did you mean --total-timesteps?" in refused("resume", tmp_path, "--total-timestep", "1")


def test_a_run_from_the_command_line_resumes_without_the_old_one(old: Path, tmp_path: Path) -> None:
    begin, run = tmp_path / "old", tmp_path / "new"
    shutil.copytree(old, begin)
    settings = ["--n-envs", "4", "--n-steps", "8", "--batch-size", "16", "--n-epochs", "1", "--normalize-rewards"]
    settings += ["--learning-rate", "linear:1e-3"]
    totals = ["--total-timesteps", "64", "--checkpoint-every", "32", "--eval-every", "0", "--preset", "none"]
    run_command("train", "ppo", "jax/CartPole-v1", "--init-from", begin, "--run-dir", run, *settings, *totals)
    first = CheckpointStore(run / "checkpoints")
    assert first.steps() == [0, 32, 64]
    assert [row["train/learning_rate"] for row in logs.read(run / "metrics.jsonl")] == pytest.approx([1e-3, 5e-4])
    config = json.loads((run / "config.json").read_text())
    assert config["init_from"] == {"path": str(begin), "policy_sha256": digest(old)}
    assert Plan.from_json(config).init_from == Origin(str(begin), digest(old))
    with pytest.raises(DamagedFile, match=r"config\.json"):
        Plan.from_json({**config, "init_from": "old"})
    finished = digest(run)
    first.discard_after(0)
    for name, x in read_policy_files(old)[0].items():
        kept = name.replace("parameters", "learner/parameters/policy", 1).replace(
            "observation_m", "learner/observation_m", 1
        )
        np.testing.assert_array_equal(x, first.newest().arrays[kept], err_msg=name)
    shutil.rmtree(begin)
    run_command("resume", run)
    assert digest(run) == finished
    shutil.rmtree(run / "checkpoints")
    assert "stopped before it saved what it began with; begin anew with --init-from" in refused("resume", run)
    assert "--init-from is empty" in refused("train", "ppo", "jax/CartPole-v1", "--init-from", "")
