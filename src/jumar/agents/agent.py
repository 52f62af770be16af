"""The agents that users hold: ``learn``, ``predict``, ``save`` and ``load``."""

from __future__ import annotations

import inspect
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import gymnasium as gym
import jax
import numpy as np

from jumar import presets
from jumar._stable_baselines3 import (
    AGENT,
    EVALUATE_POLICY,
    LEARN,
    LOAD,
    MEMBERS,
    POLICIES,
    refuse_foreign,
    sentence,
    takes_no_policy,
)
from jumar.agents.actor import Actor, policy_words
from jumar.algorithms.registry import Algorithm, algorithm, register
from jumar.algorithms.settings import CollectingSettings
from jumar.algorithms.update import Update
from jumar.console.choice import make_reporter
from jumar.console.reporter import Reporter, Silent
from jumar.envs.registry import EnvironmentId
from jumar.envs.sources import FromId, FromObject, GivenWrapper, Source, named_wrappers, source_of
from jumar.envs.step_costs import parse_cost
from jumar.errors import UsageError, unknown
from jumar.lanes.crew import HERE, Spread, check_has_lanes, spread_over
from jumar.policies.features import Features
from jumar.policies.own_code import OwnCode
from jumar.runs.checkpoints import CheckpointStore
from jumar.runs.policy_files import has_policy
from jumar.runs.run_directory import RunDirectory
from jumar.text import counted
from jumar.training.assembly import make_evaluator
from jumar.training.data import check_data, start_data
from jumar.training.events import Callback, Callbacks, sorted_out
from jumar.training.keeper import Files, Nothing, save_lane, save_state, write_configs
from jumar.training.loop import Keeper, run_loop
from jumar.training.plan import MOST_RUNNERS, MOST_SEEDS, MOST_STEPS, Plan, check_seed, read_count, read_path
from jumar.training.remembered import BufferFiles, discard_unnamed
from jumar.training.resolve import preset_for, with_environment
from jumar.training.restore import (
    check_same_spaces,
    lanes,
    read_saved_policy,
    record_reader,
    refuse_part_of_many,
    restore,
)
from jumar.training.training import Training
from jumar.training.warm_start import WarmStart, read_warm_start
from jumar.xla.compiler import prepare_compiler

AgentType = TypeVar("AgentType", bound="Agent")

if TYPE_CHECKING:
    from jumar.export.onnx_file import Exported

    _of_the_class = classmethod
else:

    class _of_the_class(classmethod):
        """A class method that an instance does not have, because it would look as if it changed the instance."""

        def __get__(self, instance, owner=None):
            """Return the method bound to the class; an instance's ``__getattr__`` is asked instead."""
            if instance is not None:
                raise AttributeError
            return super().__get__(instance, owner)


class Agent:
    """Base of the agents: an algorithm, its environments and what it has learnt.

    Args:
        env: an environment's id, a ``gymnasium.Env``, a function that makes one, a ``gymnasium.vector.VectorEnv`` or a
            compiled environment.
        seed: seeds everything random.
        n_seeds: train this many seeds, ``seed`` and those after it, in one program (compiled environments only).
        workers: worker processes that step the environments, 0 for none.
        runners: let each environment copy act alone (a lane), and have so many processes step them, on a Ray of this machine or
            at ``address``; 0: this process. How many changes no result (:mod:`jumar.lanes`). ``None``: copies act together.
        address: ``HOST:PORT`` of the Ray cluster where runners are.
        env_kwargs: keyword arguments of an environment given by its id.
        wrappers: put around each Gymnasium environment, the innermost first: ``"TimeLimit:max_episode_steps=200"``,
            ``("TimeLimit", {"max_episode_steps": 200})``, ``"module:Name"`` of your own, or a class or function that takes an
            environment and returns one. A class or function that a module has is kept by its name; with any other (a
            ``lambda``, say) the environment is code of your own that no file can bring back.
        frame_stack: show the policy the last so many observations at once.
        atari: prepare an Atari game, given by its id, in the usual way (:mod:`jumar.envs.atari`).
        cost: what a step costs: ``"velocity:V"`` is 1 where the body moves faster than ``V`` along x, else 0; by default
            the environment's own ``info["cost"]``.
        features: a function of (observation, action), for Discrete actions, or of (observation), for a Box: the policy is
            linear in what it returns (:mod:`jumar.policies.features`). Files keep only its name; pass it to ``load`` again.
        encoder: a network of your own that encodes observations, in policy and critic each with parameters of its own
            (:mod:`jumar.networks.own`): a pair of functions ``init`` and ``apply``, an object that has them, or a function
            from a key to an Equinox module. Files keep its parameters and its name; pass it to ``load`` again.
        preset: name of the tuned settings to start from, ``"none"`` for none, or the path of a file of your own
            (``"tuned.toml"``); by default those of this algorithm for the environment's id, if there are any.
        init_from: a run, or a folder with a policy, to begin with: a warm start. Policy and observation normaliser are taken
            from there, and the critic from the newest checkpoint; the settings of the policy are its own. The method and all
            other settings may differ, the spaces must be equal. Steps, optimiser and schedules begin anew.
        dataset: a data set to learn from alone (``jumar train --save-dataset`` writes one): a step is an update, and the
            environment gives the spaces and evaluates.
        prefill: a data set that is in the replay buffer before any step.
        settings: the algorithm's settings by name; those of its settings class.

    Raises:
        UsageError: a name, a value or a space is not right; the message says what would be.
        DamagedFile: what ``init_from``, ``dataset`` or ``prefill`` names is damaged or foreign.
    """

    algorithm: ClassVar[str]

    def __init__(
        self,
        env: Any,
        *misplaced: Any,
        seed: int = 0,
        n_seeds: int | None = None,
        workers: int = 0,
        runners: int | None = None,
        address: str | None = None,
        env_kwargs: Mapping[str, Any] | None = None,
        wrappers: Sequence[GivenWrapper] = (),
        frame_stack: int | None = None,
        atari: bool = False,
        cost: str | None = None,
        features: Features | None = None,
        encoder: Any = None,
        preset: str | None = None,
        init_from: str | Path | None = None,
        dataset: str | Path | None = None,
        prefill: str | Path | None = None,
        **settings: Any,
    ) -> None:
        if not hasattr(type(self), "algorithm"):
            raise UsageError(
                f"Agent is the base of the agents; take one of {', '.join(x.__name__ for x in AGENTS.values())}."
            )
        if misplaced or (isinstance(env, str) and env in POLICIES):
            raise UsageError(takes_no_policy(type(self).__name__))
        chosen = algorithm(self.algorithm)
        own = {field.name for field in fields(chosen.settings)}
        refuse_foreign([name for name in settings if name in AGENT and name not in own], AGENT)
        n_seeds = None if n_seeds is None else read_count("n_seeds", n_seeds, 1, MOST_SEEDS)
        seed = read_count("seed", seed, 0)
        check_seed(seed, n_seeds)
        workers = read_count("workers", workers, 0)
        runners = None if runners is None else read_count("runners", runners, 0, MOST_RUNNERS)
        spread = spread_over(runners, address)
        source = source_of(
            env,
            frame_stack=frame_stack,
            cost=parse_cost(cost),
            wrappers=wrappers,
            kwargs=env_kwargs,
            atari=atari,
            one_by_one=runners is not None,
        )
        if isinstance(source, FromObject) and isinstance(source.object, gym.vector.VectorEnv):
            settings.setdefault("n_envs", source.object.num_envs)
        if workers and source.compiled:
            raise UsageError(f"workers={workers}, but {source.name} is compiled and is not stepped by processes.")
        environment = source.id if isinstance(source, FromId) else None
        tuned = preset_for(chosen, environment, preset)
        own_code = OwnCode.passed(features, encoder)
        start = None if init_from is None else read_warm_start(init_from, own_code)
        if start is not None:
            settings = start.completed(settings, chosen.settings)
        data = start_data(dataset, prefill)
        if data is not None:
            settings = data.completed(settings, chosen)
        made = chosen.make_settings(presets.merged(tuned, settings))
        check_data(chosen, made, data)
        plan = Plan(
            algorithm=self.algorithm,
            settings=made,
            environment=environment,
            environment_name=environment.name if environment else source.name,
            preset=tuned.name if tuned else None,
            seed=seed,
            total_timesteps=1,
            eval_every=0,
            eval_episodes=10,
            checkpoint_every=0,
            n_seeds=n_seeds,
            workers=workers,
            cost=source.cost,
            own_names=own_code.names,
            own=own_code,
            init_from=start.origin if start else None,
            data=data.origin if data else None,
            lanes=runners is not None,
        )
        self._begin(plan, source, start, spread)
        if data is not None:
            self._training.begin_with_data(data)
        if start is not None:
            left_out = self._training.critic_left_out
            for words in [*start.warnings, *([start.words(left_out)] if left_out else [])]:
                warnings.warn(words, stacklevel=2)

    @_of_the_class
    def load(
        cls: type[AgentType],
        path: str | Path,
        env: Any = None,
        wrappers: Sequence[GivenWrapper] = (),
        features: Features | None = None,
        encoder: Any = None,
        runners: int | None = None,
        address: str | None = None,
        **foreign: Any,
    ) -> AgentType:
        """Return a new agent from what was kept at ``path``, as :func:`load` does; it must be one of this class.

        Raises:
            UsageError: it is of another algorithm, and as :func:`load`.
        """
        own = algorithm(cls.algorithm).setting_names if hasattr(cls, "algorithm") else ()
        others = [name for name in foreign if name not in own]
        refuse_foreign(others, LOAD, "argument of load", LOAD_ARGUMENTS)
        spread = spread_over(runners, address)
        return _load(path, env, wrappers, OwnCode.passed(features, encoder), cls, foreign, runners, spread)

    @classmethod
    def _from_plan(cls: type[AgentType], plan: Plan, source: Source, spread: Spread) -> AgentType:
        agent = cls.__new__(cls)
        agent._begin(plan, source, spread=spread)
        return agent

    def _begin(self, plan: Plan, source: Source, start: WarmStart | None = None, spread: Spread = HERE) -> None:
        prepare_compiler(lambda words: None, plan.n_seeds)
        heard = _Heard()
        self._training = Training(plan, source, heard, start, spread)
        for words in heard.warnings:
            warnings.warn(words, stacklevel=3)

    def __repr__(self) -> str:
        """Say what it is: the algorithm, the environment, the seeds, the steps and the size of the policy."""
        plan = self._training.plan
        seeds = f"seed {plan.seed}" if plan.n_seeds is None else f"seeds {plan.seeds[0]} to {plan.seeds[-1]}"
        return (
            f"<{type(self).__name__} on {self._training.source.name}, {seeds}, {counted(self.num_timesteps, 'step')} trained, "
            f"{counted(plan.settings.n_envs, 'environment')}: {policy_words(self.actor())}>"
        )

    def __getattr__(self, name: str) -> Any:
        """Say where to find what Stable-Baselines3 has here, and settings."""
        said = sentence(MEMBERS, name)
        if said is None and "_training" in self.__dict__ and name in self.settings.to_json():
            said = f"{name} is a setting: agent.settings.{name}"
        if name == "evaluate":
            said = (
                "an agent has no evaluate; jumar.evaluate_policy(agent, env) returns the mean return and its deviation"
            )
        raise AttributeError(said or f"{type(self).__name__!r} object has no attribute {name!r}", name=name, obj=self)

    @property
    def settings(self) -> Any:
        """The settings, an instance of the algorithm's settings class."""
        return self._training.plan.settings

    @property
    def num_timesteps(self) -> int:
        """Environment steps trained for so far."""
        return self._training.steps

    @property
    def observation_space(self) -> gym.Space[Any]:
        """The observation space."""
        return self._training.spaces[0]

    @property
    def action_space(self) -> gym.Space[Any]:
        """The action space."""
        return self._training.spaces[1]

    def learn(
        self: AgentType,
        total_timesteps: float,
        callback: Callback | Sequence[Callback] | None = None,
        progress_bar: bool = False,
        *,
        run_dir: str | Path | None = None,
        eval_every: int = 0,
        eval_episodes: int = 10,
        checkpoint_every: int = 0,
        **foreign: Any,
    ) -> AgentType:
        """Train for ``total_timesteps`` more steps, rounded up to whole iterations; return the agent itself.

        Schedules are anchored to this call. Host environments begin anew with it, from seeds derived from (seed, steps
        so far), so that training after ``load`` equals training without.

        ``Ctrl-C`` raises ``KeyboardInterrupt`` at once, wherever training is. The agent then is as it was after its last whole
        iteration, and can predict, be saved and go on learning; with ``run_dir`` its policy is saved there before, and in
        compiled environments the state too.

        Without ``progress_bar``, what is off in training is warned of by Python's ``warnings`` when ``learn`` ends.

        Args:
            total_timesteps: environment steps, all environments together; ``1e6`` is fine. An iteration is ``n_steps`` of each
                environment, off policy ``log_every`` steps (1,000 by default): ``learn(300)`` trains for 1,000 there.
            callback: a function called once per iteration with the metrics, or an object with some of the methods
                ``iteration``, ``evaluation``, ``checkpoint`` and ``end`` (``jumar.callbacks``); returning ``False`` stops
                training. Of a list all are called, in order, and each may stop training.
            progress_bar: show the live panel on standard error.
            run_dir: keep the run there, as ``jumar train`` does; it must be new or empty.
            eval_every: evaluate every so many steps; 0: never.
            eval_episodes: episodes of each evaluation.
            checkpoint_every: save the state every so many steps; 0: only at the end.

        Raises:
            UsageError: a value is out of range, or the run directory cannot be used.
            EnvironmentFault: an environment failed.
            TrainingFailed: the update diverged. In both cases the agent keeps its last good state.
        """
        refuse_foreign(foreign, LEARN, "argument of learn", LEARN_ARGUMENTS)
        steps = read_count("total_timesteps", total_timesteps, 1, MOST_STEPS)
        eval_every = read_count("eval_every", eval_every, 0)
        eval_episodes = read_count("eval_episodes", eval_episodes, 1)
        checkpoint_every = read_count("checkpoint_every", checkpoint_every, 0)
        ready = sorted_out(callback)
        callbacks = Callbacks(ready.others)
        if run_dir is not None:
            read_path("run_dir", run_dir)
        training = self._training
        if eval_every and not training.source.rebuildable:
            raise UsageError(
                f"eval_every={eval_every} needs separate environments, and {training.source.name} is one live object; pass a "
                "function that makes one, or evaluate with jumar.evaluate_policy."
            )
        training.plan = replace(
            training.plan,
            total_timesteps=training.steps + steps,
            schedule_start=training.steps,
            eval_every=eval_every,
            eval_episodes=eval_episodes,
            checkpoint_every=checkpoint_every,
            stop_at_return=ready.stop_at_return,
            stop_without_gain=ready.stop_without_gain,
        )
        training.begin_rules()
        with _warning_at_the_end() as heard, ExitStack() as stack:
            reporter = stack.enter_context(closing(make_reporter(sys.stderr) if progress_bar else heard))
            training.reporter = reporter
            training.log(ready.log_info)
            keeper = self._keeper(stack, run_dir, reporter)
            training.restart()
            keeper.checkpoint(training)
            try:
                run_loop(training, keeper, reporter, callbacks=callbacks)
            finally:
                training.relabel_open_episodes()
        return self

    def actor(self, lane: int = 0) -> Actor:
        """Return the policy as it is now, ready to act; ``lane`` counts the seeds of a run of several, from 0.

        Raises:
            UsageError: there is no such seed.
        """
        training = self._training
        lane = read_count("lane", lane, 0, len(training.plan.seeds) - 1)
        plan = training.plan
        return Actor(
            training.policy,
            *training.snapshot(lane),
            training.spaces,
            plan.seeds[lane],
            algorithm=plan.algorithm,
            environment=plan.environment_name,
        )

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: np.ndarray | bool | None = None,
        deterministic: bool = True,
        action_masks: np.ndarray | None = None,
    ) -> tuple[np.ndarray, Any]:
        """Return the action for an observation, or the actions for a batch; see :meth:`Actor.predict`."""
        return self._current_actor().predict(observation, state, episode_start, deterministic, action_masks)

    def export(self, path: str | Path, format: str = "onnx", action_mask: bool = False) -> Exported:
        """Write the policy as it is now to a file that other programs can run; see :meth:`Actor.export`.

        Of an agent with several seeds it is the first one's; ``agent.actor(lane).export(path)`` writes another's.
        """
        return self.actor().export(path, format, action_mask)

    def save(self, path: str | Path, replay_buffer: bool = True) -> None:
        """Save everything to the directory ``path``: the policy, and the state to go on training from.

        A directory that ``save`` made before is overwritten; any other that is not empty is refused.

        Args:
            path: the directory.
            replay_buffer: whether the replay buffer of an off-policy method is saved too. Without it the directory is small,
                and training goes on with an empty buffer.

        Raises:
            UsageError: the directory cannot be used.
            OSError: the disk refuses.
        """
        folder = read_path("path", path)
        run = _own_directory(folder)
        with ExitStack() as stack:
            stack.enter_context(run.lock())
            store = CheckpointStore(run.checkpoints, keep=1)
            buffer = self._training.buffer
            files = BufferFiles(run.replay, buffer, []) if buffer is not None and replay_buffer else None
            state = jax.device_get(self._training.state)
            save_state(store, files, self._training, state, self._training.record)
            discard_unnamed(run.replay, store)
            write_configs(run, self._training.plan, SAVED)
            for lane, one in enumerate(lanes(run, self._training.plan)):
                save_lane(one.policy, self._training, lane)

    def close(self) -> None:
        """Close the environments."""
        self._training.close()

    def _keeper(self, stack: ExitStack, run_dir: str | Path | None, reporter: Reporter) -> Keeper:
        training = self._training
        if run_dir is None:
            return Nothing()
        plan = training.plan
        run = RunDirectory.create(run_dir, plan.algorithm, plan.environment_name, plan.seed)
        stack.enter_context(run.lock())
        write_configs(run, plan, from_python=True)
        files = Files(run, training, reporter)
        stack.callback(files.close)
        return files

    def _current_actor(self) -> Actor:
        """Return one actor for as long as the parameters stay the same, so that its draws go on."""
        parameters = self._training.learner.parameters
        known: tuple[Any, Actor] | None = getattr(self, "_known_actor", None)
        if known is None or known[0] is not parameters:
            fresh = self.actor()
            if known is not None:
                fresh._greedy, fresh._sampled, fresh._draws = known[1]._greedy, known[1]._sampled, known[1]._draws
            self._known_actor = known = (parameters, fresh)
        return known[1]


class A2C(Agent):
    """Advantage actor-critic; settings: ``jumar.algorithms.on_policy.a2c.A2CSettings``."""

    algorithm = "a2c"


class ACER(Agent):
    """Actor-critic with experience replay, for Discrete actions; settings:
    ``jumar.algorithms.off_policy.acer.ACERSettings``.
    """

    algorithm = "acer"


class ACKTR(Agent):
    """Actor-critic using Kronecker-factored trust regions; settings: ``jumar.algorithms.on_policy.acktr.ACKTRSettings``."""

    algorithm = "acktr"


class BC(Agent):
    """Behaviour cloning, which needs ``dataset``; settings: ``jumar.algorithms.off_policy.bc.BCSettings``."""

    algorithm = "bc"


class CPO(Agent):
    """Constrained policy optimization; settings: ``jumar.algorithms.on_policy.cpo.CPOSettings``.

    It needs a cost per step: the environment's ``info["cost"]``, or ``cost="velocity:V"``.
    """

    algorithm = "cpo"


class DDPG(Agent):
    """Deep deterministic policy gradient; settings: ``jumar.algorithms.off_policy.ddpg.DDPGSettings``."""

    algorithm = "ddpg"


class ISPG(Agent):
    """Off-policy policy gradient by importance sampling; settings: ``jumar.algorithms.on_policy.ispg.ISPGSettings``."""

    algorithm = "ispg"


class PPO(Agent):
    """Proximal policy optimization with the clipped surrogate; settings: ``jumar.algorithms.on_policy.ppo.PPOSettings``.

    Example:
        >>> agent = PPO("jax/CartPole-v1", seed=0, n_envs=8, n_steps=128)
        >>> agent.learn(total_timesteps=1024).num_timesteps
        1024
    """

    algorithm = "ppo"


class PPOPenalty(Agent):
    """Proximal policy optimization with a KL penalty; settings: ``jumar.algorithms.on_policy.ppo.PPOPenaltySettings``."""

    algorithm = "ppo-penalty"


class REINFORCE(Agent):
    """Policy gradient by whole returns; settings: ``jumar.algorithms.on_policy.reinforce.ReinforceSettings``."""

    algorithm = "reinforce"


class RestrictedGradient(Agent):
    """Policy gradient by steps of one length; settings: ``jumar.algorithms.on_policy.restricted.RestrictedSettings``."""

    algorithm = "restricted"


class SAC(Agent):
    """Soft actor-critic; settings: ``jumar.algorithms.off_policy.sac.SACSettings``."""

    algorithm = "sac"


class DPG(Agent):
    """Deterministic policy gradient; settings: ``jumar.algorithms.off_policy.dpg.DPGSettings``."""

    algorithm = "dpg"


class SQL(Agent):
    """Soft Q-learning; settings: ``jumar.algorithms.off_policy.sql.SQLSettings``."""

    algorithm = "sql"


class TD3(Agent):
    """Twin delayed deep deterministic policy gradient; settings: ``jumar.algorithms.off_policy.td3.TD3Settings``."""

    algorithm = "td3"


class TRPO(Agent):
    """Trust region policy optimization; settings: ``jumar.algorithms.on_policy.trpo.TRPOSettings``."""

    algorithm = "trpo"


class NPG(Agent):
    """Natural policy gradient; settings: ``jumar.algorithms.on_policy.npg.NPGSettings``."""

    algorithm = "npg"


class TNPG(Agent):
    """Truncated natural policy gradient; settings: ``jumar.algorithms.on_policy.npg.TNPGSettings``."""

    algorithm = "tnpg"


AGENTS: dict[str, type[Agent]] = {
    agent.algorithm: agent
    for agent in (
        A2C,
        ACER,
        ACKTR,
        BC,
        CPO,
        DDPG,
        DPG,
        ISPG,
        NPG,
        PPO,
        PPOPenalty,
        REINFORCE,
        RestrictedGradient,
        SAC,
        SQL,
        TD3,
        TNPG,
        TRPO,
    )
}


def method(name: str, settings: type[CollectingSettings], build: Callable[..., Update]) -> type[Agent]:
    """Make an agent class of a method of your own.

    The class does all that Jumar's own do: ``learn`` with its flight record, run directories and checkpoints, ``predict``,
    ``save``. What it kept, ``load`` takes back in a process that has made the method too: no file brings code with it.

    Args:
        name: what it is called in files and messages, in small letters, digits and hyphens.
        settings: a frozen dataclass derived from :class:`jumar.algorithms.settings.OnPolicySettings`, or, for an off-policy
            method, from :class:`jumar.algorithms.off_policy.settings.ReplaySettings`.
        build: ``(settings, policy)`` to the parts, an :class:`jumar.algorithms.on_policy.update.OnPolicy` or an
            :class:`jumar.algorithms.off_policy.update.OffPolicy`.

    Raises:
        UsageError: the name is taken by a method of Jumar's, or is not fit for one; or ``settings`` is not such a class.
    """
    _check_settings_class(settings)
    title = (build.__doc__ or name).strip().splitlines()[0]
    register(Algorithm(name, title, settings, build))
    AGENTS[name] = type(name, (Agent,), {"algorithm": name, "__doc__": title})
    return AGENTS[name]


def _check_settings_class(settings: Any) -> None:
    """Raise a ``UsageError`` for what is no settings class, or has a field that ``setting`` has not made."""
    if not (isinstance(settings, type) and issubclass(settings, CollectingSettings)):
        raise UsageError(
            f"{getattr(settings, '__name__', repr(settings))} is not derived from Jumar's settings; derive it from "
            "jumar.algorithms.settings.OnPolicySettings or jumar.algorithms.off_policy.settings.ReplaySettings."
        )
    if "__dataclass_fields__" not in vars(settings) and settings.__annotations__:
        raise UsageError(
            f"{settings.__name__} is not a dataclass; write @dataclasses.dataclass(frozen=True, kw_only=True) above it."
        )
    for field in fields(settings):
        if "choices" not in field.metadata:  # every field that ``setting`` makes has them, None for any value
            raise UsageError(
                f"the field {field.name} of {settings.__name__} has no help and no range; declare it by "
                f'{field.name}: float = jumar.settings.setting(1.0, "what it does", at_least=0), say.'
            )


LOAD_ARGUMENTS = ("path", "env", "wrappers", "features", "encoder", "runners", "address")
LEARN_ARGUMENTS = tuple(name for name in inspect.signature(Agent.learn).parameters if name not in ("self", "foreign"))


SAVED = "agent"
"""Who keeps a directory that ``Agent.save`` made."""


def _own_directory(folder: Path) -> RunDirectory:
    """Return the directory to save to: a new one, or one that ``save`` made before.

    Raises:
        UsageError: it is something else; a training run, say, is not overwritten.
    """
    if not (folder / "config.json").is_file():
        return RunDirectory.create(folder, "", "", 0)
    run = RunDirectory.open(folder)
    if run.read_config().get("kind") != SAVED:
        raise UsageError(f"{folder} holds a training run, which save does not overwrite; choose another directory.")
    return run


def load(
    path: str | Path,
    env: Any = None,
    wrappers: Sequence[GivenWrapper] = (),
    features: Features | None = None,
    encoder: Any = None,
    runners: int | None = None,
    address: str | None = None,
    **settings: Any,
) -> Agent:
    """Load what ``save``, ``jumar train`` or ``learn(run_dir=...)`` kept, ready to predict and to go on learning.

    Args:
        path: the directory.
        env: the environment to go on in; needed where the run was on a live object, a callable or ``module:EnvId``.
        wrappers: around a run's own environment the ``module:Name`` of each wrapper that is code of your own, once more; around
            an object or a function passed as ``env`` any wrappers.
        features: the function that the policy was trained with; needed where it was linear in features of one's own.
        encoder: the network of one's own that encodes observations; needed where there was one.
        runners: how many processes are to step the lanes of an agent that was made with ``runners``; none: this process alone.
        address: ``HOST:PORT`` of the Ray cluster where they are.
        settings: none: the agent goes on exactly as before. With other settings ``init_from`` begins a new one.

    Raises:
        UsageError: nothing is there, ``env``, ``features`` or ``encoder`` is needed or does not fit, or a setting is given.
        DamagedFile: a file is damaged, foreign or from a newer version.
    """
    spread = spread_over(runners, address)
    return _load(path, env, wrappers, OwnCode.passed(features, encoder), Agent, settings, runners, spread)


def _refuse_settings(given: Mapping[str, Any], kind: type[Agent], path: str | Path) -> None:
    """Refuse settings of what is loaded, and say how to begin anew with them.

    Raises:
        UsageError: there are some.
    """
    for name in given:
        if name not in algorithm(kind.algorithm).setting_names:
            raise unknown("argument of jumar.load", name, LOAD_ARGUMENTS)
        raise UsageError(
            f"jumar.load takes no {name}: it goes on with the settings that are saved. With others, make a new agent with what "
            f"was learnt: {kind.__name__}(env, init_from={str(path)!r}, {name}=...)."
        )


def _load(
    path: str | Path,
    env: Any,
    wrappers: Sequence[GivenWrapper],
    own: OwnCode,
    cls: type[AgentType],
    settings: Mapping[str, Any],
    runners: int | None,
    spread: Spread,
) -> AgentType:
    run = RunDirectory.open(read_path("path", path))
    refuse_part_of_many(run)
    saved = run.read_config()
    plan = Plan.from_json(saved, run.config).with_own(own)
    kind = AGENTS[plan.algorithm]
    if not issubclass(kind, cls):
        raise UsageError(
            f"{run} holds an agent of {kind.__name__}, not of {cls.__name__}; take jumar.load({str(run)!r})."
        )
    _refuse_settings(settings, kind, path)
    check_has_lanes(plan.lanes, runners, str(run))
    source = _source_for(plan, env, wrappers, run)
    checkpoint = CheckpointStore(run.checkpoints).newest(record_reader(plan, run.replay))
    for words in [*checkpoint.warnings, *plan.differences_in_versions(saved, run.config)]:
        warnings.warn(words, stacklevel=3)
    agent = kind._from_plan(replace(plan, environment=_id_of(source)), source, spread)
    for words in restore(agent._training, checkpoint, run):
        warnings.warn(words, stacklevel=3)
    if has_policy(run.policy) and (step := read_saved_policy(run.policy, own).step) != checkpoint.step:
        warnings.warn(
            f"the state in {run} is of step {checkpoint.step} and the policy beside it of step {step}; this agent has the "
            "former, jumar.load_policy gives the latter.",
            stacklevel=3,
        )
    return agent


def _source_for(plan: Plan, env: Any, wrappers: Sequence[GivenWrapper], run: RunDirectory) -> Source:
    own = plan.environment
    if own is not None and (isinstance(env, str) or (env is None and own.module is None)):
        again = with_environment(plan, env, named_wrappers(wrappers)).environment  # with the settings of the training
        return source_of(again, cost=plan.cost)
    if env is not None:
        return source_of(env, cost=plan.cost, wrappers=wrappers)
    raise UsageError(
        f"the run is on {plan.environment_name}, which is code of your own that no file can bring back: pass env=... to go on "
        f"with it, or load the policy alone with jumar.load_policy({str(run)!r})."
    )


class _Heard(Silent):
    """Keeps the warnings that come while an agent is made or learns."""

    def __init__(self) -> None:
        super().__init__()
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


@contextmanager
def _warning_at_the_end() -> Iterator[_Heard]:
    """Give a reporter whose warnings become Python's when the block ends, each once.

    Python may make exceptions of warnings; before the end they would leave a run half saved.
    """
    heard = _Heard()
    try:
        yield heard
    finally:
        for words in dict.fromkeys(heard.warnings):
            warnings.warn(words, stacklevel=4)  # the caller of the method that has the block


def _id_of(source: Source) -> EnvironmentId | None:
    return source.id if isinstance(source, FromId) else None


def evaluate_policy(
    agent: Agent | Actor,
    env: Any,
    n_eval_episodes: int = 10,
    deterministic: bool = True,
    seed: int = 0,
    return_episode_rewards: bool = False,
    *,
    env_kwargs: Mapping[str, Any] | None = None,
    wrappers: Sequence[GivenWrapper] = (),
    frame_stack: int | None = None,
    atari: bool = False,
    **foreign: Any,
) -> tuple[float, float] | tuple[Sequence[float], Sequence[int]]:
    """Run whole episodes of a policy and return the mean and standard deviation of their returns.

    Args:
        agent: whose policy.
        env: an id, a live environment, a function that makes one, or a compiled environment.
        n_eval_episodes: how many episodes; episode ``i`` is seeded ``seed + i``.
        deterministic: take the most likely actions, else draw them.
        seed: the first episode's seed.
        return_episode_rewards: return the list of returns and the list of lengths instead.
        env_kwargs: arguments of an environment given by its id, as for an agent.
        wrappers: wrappers, as for an agent.
        frame_stack: show the policy the last so many observations, as for an agent.
        atari: prepare an Atari game, as for an agent; episodes are whole games with their own rewards.

    Raises:
        UsageError: the environment's spaces are not the policy's, or a number is out of range.
    """
    refuse_foreign(foreign, EVALUATE_POLICY, "argument of evaluate_policy", EVALUATE_POLICY_ARGUMENTS)
    n_eval_episodes = read_count("n_eval_episodes", n_eval_episodes, 1)
    seed = read_count("seed", seed, 0)
    check_seed(seed, n_eval_episodes)
    if not isinstance(agent, (Agent, Actor)):
        raise UsageError(f"{agent!r} is not an agent; pass one, or what jumar.load_policy returns.")
    actor = agent.actor() if isinstance(agent, Agent) else agent
    if isinstance(env, gym.vector.VectorEnv):
        raise UsageError(
            "evaluate_policy takes one environment, an id or a function that makes one, not a vector environment."
        )
    source = source_of(env, wrappers=wrappers, kwargs=env_kwargs, frame_stack=frame_stack, atari=atari)
    check_same_spaces(source, (actor.observation_space, actor.action_space))
    evaluator = make_evaluator(
        source, actor.policy, 0, deterministic, tell=lambda words: warnings.warn(words, stacklevel=6)
    )
    episodes = evaluator(actor.parameters, actor.moments, n_eval_episodes, seed)
    if complaint := episodes.complaint(source.time_limit_remedy):
        warnings.warn(complaint, stacklevel=2)
    if return_episode_rewards:
        return episodes.returns.tolist(), episodes.lengths.tolist()
    return float(episodes.returns.mean()), float(episodes.returns.std())


EVALUATE_POLICY_ARGUMENTS = tuple(name for name in inspect.signature(evaluate_policy).parameters if name != "foreign")
