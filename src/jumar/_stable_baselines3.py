"""Names of Stable-Baselines3 that are not Jumar's, and what to write here instead.

One table for the errors and for the page of the documentation. Sentences are in Markdown; the errors leave out the
backticks. A name that means the same here is in no table.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from jumar.errors import UsageError, unknown

POLICIES = ("MlpPolicy", "CnnPolicy", "MultiInputPolicy", "MlpLstmPolicy", "CnnLstmPolicy", "MultiInputLstmPolicy")
"""What policies are called, as an agent's first argument."""
POLICY = "leave it out: the networks follow the spaces of the environment; `net_arch`, `activation` and `recurrent` shape them"
NORMALIZE = (
    "the settings `normalize_observations=True` and `normalize_rewards=True`; the statistics are saved with the policy"
)
SEVERAL = (
    "the setting `n_envs=8` with an id or a function that makes one environment; `workers=4` steps them in processes"
)
EVALUATE = (
    "`learn(..., eval_every=10_000, eval_episodes=10, run_dir=...)`; `best/` of the run directory has the best policy"
)
IN_SEPARATE = "evaluations make separate environments themselves: `eval_every=10_000, eval_episodes=10`"
NEW_ENVIRONMENT = "`agent.save(path)`, then `jumar.load(path, env=...)` goes on in another environment"
OFF_POLICY = "not in Jumar yet; `jumar.SAC` and `jumar.SQL` take Discrete actions; `jumar list algorithms` lists all"
BUFFER = "the replay buffer is the agent's own; `buffer_size` says how many steps it holds"
HINDSIGHT = '`jumar.SAC(env, goal_selection_strategy="future", n_sampled_goal=4)`'
CALLBACK = (
    "a function that is called once per iteration with the metrics (a dict), and returns `False` to stop training, or an "
    "object with methods `iteration`, `evaluation`, `checkpoint` and `end` (`jumar.callbacks`)"
)
LOGGER = "metrics go to the `callback`, and with `learn(..., run_dir=...)` to `metrics.jsonl` and `tensorboard/`"
PARTS = (
    "`learn` collects and trains; the parts of a method are in `jumar.estimators`, `jumar.solvers.objectives` and so on"
)
ACTOR = "`agent.actor()` is the policy as it is now, with `parameters` and `predict`"
EVALUATE_POLICY_ALONE = "write the loop yourself with `agent.predict`, or look at `return_episode_rewards=True`"

AGENT: Mapping[str, str] = {
    "policy": POLICY,
    "verbose": "`learn(..., progress_bar=True)` shows the course of training",
    "tensorboard_log": '`learn(..., run_dir="runs/mine")` writes files for TensorBoard, in `runs/mine/tensorboard`',
    "device": "JAX chooses the device; the environment variable `JAX_PLATFORMS=cpu`, set before Python starts, chooses another",
    "policy_kwargs": '`net_arch=(64, 64)`, `activation="tanh"` and `ortho_init=False` are settings of their own',
    "stats_window_size": "`rollout/*` are means of the last 100 episodes",
    "rollout_buffer_class": "a method is put together from parts; see `jumar.method`",
    "rollout_buffer_kwargs": "a method is put together from parts; see `jumar.method`",
    "replay_buffer_class": f"{BUFFER}; for `HerReplayBuffer`, set `goal_selection_strategy`",
    "replay_buffer_kwargs": f"{BUFFER}; `n_sampled_goal`, `goal_selection_strategy` and `copy_info_dict` are settings",
    "optimize_memory_usage": "leave it out; `buffer_size` says how many steps are remembered",
    "_init_setup_model": "leave it out",
}
"""Arguments of an agent."""

LEARN: Mapping[str, str] = {
    "log_interval": "every iteration is logged; a `callback` can leave some out",
    "tb_log_name": "`run_dir` is the folder of the run",
    "reset_num_timesteps": "`learn` always goes on counting, and trains for `total_timesteps` more; a new agent begins at 0",
    "eval_env": IN_SEPARATE,
    "eval_freq": "`eval_every`, in steps of all environments together",
    "n_eval_episodes": "`eval_episodes`",
    "eval_log_path": "`run_dir` keeps the best policy and `evaluations.jsonl`",
}
"""Arguments of ``learn``."""

LOAD: Mapping[str, str] = {
    "device": AGENT["device"],
    "custom_objects": "a file brings no objects; settings are those of the run",
    "print_system_info": "the versions are in `config.json`, and a difference is warned of",
    "force_reset": "`learn` always begins anew in the environments",
}
"""Arguments of ``PPO.load``."""

EVALUATE_POLICY: Mapping[str, str] = {
    "render": EVALUATE_POLICY_ALONE,
    "callback": EVALUATE_POLICY_ALONE,
    "reward_threshold": "compare the mean that is returned",
    "warn": "leave it out: returns are always sums of raw rewards",
}
"""Arguments of ``evaluate_policy``."""

MEMBERS: Mapping[str, str] = {
    "load": '`agent = jumar.PPO.load("path")` or `jumar.load("path")`: it makes a new agent and changes no other',
    "set_env": NEW_ENVIRONMENT,
    "get_env": "an agent's environments are its own; make another one to look at",
    "env": "an agent's environments are its own; make another one to look at",
    "get_vec_normalize_env": NORMALIZE,
    "set_random_seed": "`PPO(env, seed=0)` seeds everything, the environments too",
    "seed": "`PPO(env, seed=0)` seeds everything, the environments too",
    "set_logger": LOGGER,
    "logger": LOGGER,
    "policy": ACTOR,
    "get_parameters": ACTOR,
    "set_parameters": "`jumar.load(path)` makes an agent with the parameters that were saved",
    "rollout_buffer": "a `callback` is given the metrics of a rollout; its rows are not kept",
    "replay_buffer": BUFFER,
    "save_replay_buffer": "`agent.save(path)` saves the replay buffer, too",
    "load_replay_buffer": "`jumar.load(path)` brings the replay buffer back, too",
    "ep_info_buffer": 'the metrics have `metrics["rollout/ep_rew_mean"]` and `metrics["rollout/ep_len_mean"]`',
    "collect_rollouts": PARTS,
    "train": PARTS,
    "device": AGENT["device"],
    "verbose": AGENT["verbose"],
}
"""Attributes and methods of an agent."""

PACKAGE: Mapping[str, str] = {
    "VecNormalize": NORMALIZE,
    "make_vec_env": SEVERAL,
    "DummyVecEnv": SEVERAL,
    "SubprocVecEnv": SEVERAL,
    "VecFrameStack": "`frame_stack=4`",
    "make_atari_env": '`jumar.PPO("envpool/Pong-v5", atari=True, n_envs=8)`',
    "AtariWrapper": "`atari=True`, with the id of a game",
    "VecMonitor": "leave it out: returns and lengths of episodes are always followed",
    "Monitor": "leave it out: returns and lengths of episodes are always followed",
    "VecVideoRecorder": "act with `jumar.load_policy(path).predict` in an environment made for watching",
    "BaseCallback": CALLBACK,
    "CallbackList": "`learn(..., callback=[first, second])`",
    "EvalCallback": EVALUATE,
    "CheckpointCallback": "`learn(..., checkpoint_every=10_000, run_dir=...)`, and `jumar.load` goes on from there; or "
    "`jumar.callbacks.SaveEvery(10_000, folder)`, policies alone",
    "StopTrainingOnRewardThreshold": "`learn(..., callback=jumar.callbacks.StopAtReturn(475), eval_every=10_000)`",
    "StopTrainingOnNoModelImprovement": "`learn(..., callback=jumar.callbacks.StopWithoutGain(5), eval_every=10_000)`",
    "check_env": "`jumar check ENV` in a shell; environments are also checked at every step",
    "RecurrentPPO": '`jumar.PPO(env, recurrent="lstm")`',
    "MaskablePPO": "`jumar.PPO`: it takes action masks wherever an environment gives them",
    "DQN": OFF_POLICY,
    "HerReplayBuffer": HINDSIGHT,
    "ReplayBuffer": BUFFER,
    "NormalActionNoise": '`action_noise="normal:0.1"`, in units of half of the action\'s range',
    "OrnsteinUhlenbeckActionNoise": '`action_noise="ou:0.2"`, in units of half of the action\'s range, with dt = 1',
    "VectorizedActionNoise": '`action_noise="ou:0.2"`: each environment has noise of its own',
}
"""What is imported from Stable-Baselines3 and sb3-contrib."""

PLACES: Mapping[str, Mapping[str, str]] = {
    "Arguments of an agent: `PPO(env, ...)`": AGENT,
    "Arguments of `learn`": LEARN,
    "Arguments of `PPO.load`": LOAD,
    "Arguments of `evaluate_policy`": EVALUATE_POLICY,
    "Attributes and methods of an agent": MEMBERS,
    "Imports": PACKAGE,
}
"""All tables by what they hold, for the documentation."""


def takes_no_policy(agent: str) -> str:
    """Return what to say where a policy stands before the environment, or after it."""
    return (
        f"{agent} takes the environment alone, {agent}(env, ...); as for a policy such as MlpPolicy, {_plain(POLICY)}."
    )


def _plain(markdown: str) -> str:
    return markdown.replace("`", "")


def sentence(table: Mapping[str, str], name: str) -> str | None:
    """Return what to say of a name, ``None`` for one that is not in the table."""
    instead = table.get(name)
    return None if instead is None else f"{name} is a name of Stable-Baselines3; here: {_plain(instead)}."


def refuse_foreign(
    given: Iterable[str], table: Mapping[str, str], kind: str = "argument", known: Iterable[str] = ()
) -> None:
    """Raise for the first argument that is not Jumar's: with its sentence, or with the nearest ``known`` names.

    Raises:
        UsageError: there is one.
    """
    for name in given:
        said = sentence(table, name)
        raise UsageError(said) if said else unknown(kind, name, known)


def is_of_stable_baselines3(thing: object) -> bool:
    """Whether an object's class, or one that it is derived from, is Stable-Baselines3's."""
    return any(cls.__module__.partition(".")[0] in ("stable_baselines3", "sb3_contrib") for cls in type(thing).__mro__)
