"""A policy that acts: what is deployed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import jax
import jax.numpy as jnp
import numpy as np

from jumar.collecting.gatherers import narrow
from jumar.errors import JumarError, UsageError
from jumar.policies.features import Features
from jumar.policies.observations import MASK_KEY
from jumar.policies.own_code import OwnCode
from jumar.policies.policy import Carry, Policy
from jumar.policies.unsound import Unsound, own_encoder_words, unsound
from jumar.spaces import describe_space
from jumar.text import counted
from jumar.training.plan import read_path
from jumar.training.restore import SavedPolicy, parameters_of, read_saved_policy

if TYPE_CHECKING:
    from jumar.export.onnx_file import Exported


class Actor:
    """A policy with its parameters, ready to act: NumPy in and NumPy out.

    Args:
        policy: what the policy is made of.
        parameters: its parameters.
        moments: its observation normaliser; acting does not change it.
        spaces: the (observation, action) spaces that it was trained in. Of a Dict observation it takes the parts that the
            policy sees.
        seed: seeds the draws of ``deterministic=False``.
        algorithm: the name of the method that made it, where it is known.
        environment: the name of the environment that it was trained in, where it is known.
    """

    def __init__(
        self,
        policy: Policy,
        parameters: Any,
        moments: Any,
        spaces: tuple[gym.Space[Any], gym.Space[Any]],
        seed: int = 0,
        *,
        algorithm: str | None = None,
        environment: str | None = None,
    ) -> None:
        self.algorithm, self.environment = algorithm, environment
        self.policy, self.parameters, self.moments = policy, parameters, moments
        self.observation_space, self.action_space = policy.encoder.acting_space(spaces[0]), spaces[1]
        self._key = jax.random.PRNGKey(seed)
        self._draws = 0
        self._greedy, self._sampled = _acting(policy)

    def __repr__(self) -> str:
        """Say what it sees, what it does and how large it is."""
        return f"<Actor: {policy_words(self)}>"

    def predict(
        self,
        observation: Any,
        state: Any = None,
        episode_start: np.ndarray | bool | None = None,
        deterministic: bool = True,
        action_masks: np.ndarray | None = None,
    ) -> tuple[np.ndarray, Any]:
        """Return the action for an observation, or the actions for a batch of them.

        Args:
            observation: one observation in the observation space, or a batch with one more leading axis.
            state: what the last call returned, for a recurrent policy; ``None`` at first.
            episode_start: whether the episode(s) begin with this observation, which clears the memory.
            deterministic: take the most likely action, else draw one.
            action_masks: which actions are allowed, flat as in sb3-contrib; ``None``: all.

        Returns:
            The action(s), valid for the action space and in its dtype, and the next ``state``.

        Raises:
            UsageError: the observation does not fit the space or is not finite, or a mask does not fit or allows nothing.
            JumarError: the policy computes something that is not finite, such as an encoder of your own may return.
        """
        batch, single = self._as_batch(observation)
        n = len(jax.tree.leaves(batch)[0])
        masks = None if action_masks is None else self._masks(action_masks, n)
        carry = self.policy.initial_carry(n) if state is None else state
        if not isinstance(carry, Carry):
            raise UsageError(f"state is a {type(state).__name__}; pass what the last predict returned, or None.")
        if state is not None and any(len(x) != n for x in jax.tree.leaves(carry.core)):
            raise UsageError(f"state is not one of {n} observations; pass what the last predict returned, or None.")
        start = self._starts(state is None if episode_start is None else episode_start, n)
        if deterministic:
            actions, carry, wrong = self._greedy(self.parameters, self.moments, batch, carry, start, masks)
        else:
            key = jax.random.fold_in(self._key, self._draws)
            self._draws += 1
            actions, carry, wrong = self._sampled(self.parameters, self.moments, batch, carry, start, masks, key)
        self._check(np.asarray(wrong), single)
        actions = np.asarray(actions).astype(self.action_space.dtype)
        return (actions[0] if single else actions), carry

    def export(self, path: str | Path, format: str = "onnx", action_mask: bool = False) -> Exported:
        """Write the whole policy to a file that other programs can run, without JAX: an ONNX graph of the deterministic action.

        The graph has all that lies between an observation, as the environment gives it, and a valid action: encoding, the
        observation normaliser, networks, masks, squashing, clipping and scaling. The memory of a recurrent policy is an input
        and an output. Before the file is written, ONNX's checker checks it, and onnxruntime computes it on 16 observations:
        the results must be those of :meth:`predict` up to rounding. The same policy gives the same bytes.

        Args:
            path: the file, which must not exist and ends in ``.onnx``.
            format: ``onnx``, the only one.
            action_mask: whether masks of allowed actions are an input. A mask that is a part of the observation always is.

        Returns:
            ``file``, ``format``, ``max_error`` (the largest difference that was found), ``inputs`` and ``outputs``.

        Raises:
            UsageError: a package is missing (the extra ``onnx``), the file cannot be made, or the policy has an encoder or
                features of your own.
            JumarError: the policy has parameters that are not finite, or the file does not compute what the policy does.
            OSError: the disk refuses; there is no file then.
        """
        from jumar.export.onnx_file import export_policy

        return export_policy(self, path, format, action_mask=action_mask)

    def _as_batch(self, observation: Any) -> tuple[Any, bool]:
        """Return the observation as a batch, and whether it was a single one."""
        leaves = self.policy.encoder.acting_leaves
        try:
            arrays = _arrays_in(self.observation_space, observation)
        except KeyError as error:
            raise self._misfit(f"without the part {error.args[0]!r}") from None
        except (IndexError, TypeError, ValueError):
            pair = isinstance(observation, tuple) and len(observation) == 2 and isinstance(observation[1], dict)
            hint = " (of reset's two values, the observation is the first)" if pair else ""
            raise self._misfit(f"a {type(observation).__name__}{hint}") from None
        shapes = [leaf.pick(arrays).shape for leaf in leaves]
        single = all(shape == leaf.shape for shape, leaf in zip(shapes, leaves, strict=True))
        batched = all(shape[1:] == leaf.shape and shape for shape, leaf in zip(shapes, leaves, strict=True))
        if not single and not (batched and len({shape[0] for shape in shapes}) == 1):
            raise self._misfit(f"of shape {shapes[0] if len(shapes) == 1 else shapes}")
        for x in jax.tree.leaves(arrays):
            if x.dtype.kind not in "fiub":
                raise self._misfit(f"of dtype {x.dtype}")
            if x.dtype.kind == "f" and not np.isfinite(x).all():
                raise UsageError(f"the observation holds a value that is {x[~np.isfinite(x)][0]}.")
        with np.errstate(over="ignore"):
            narrowed = narrow(arrays)
        for x, wide in zip(jax.tree.leaves(narrowed), jax.tree.leaves(arrays), strict=True):
            if x.dtype.kind == "f" and not np.isfinite(x).all():
                raise UsageError(
                    f"the observation holds {wide[~np.isfinite(x)][0]}, which single precision cannot hold."
                )
            if x.dtype.kind in "iu" and x.dtype != wide.dtype and not np.array_equal(x, wide):
                raise UsageError(f"the observation holds {wide[x != wide][0]}, which 32 bits cannot hold.")
        return (jax.tree.map(lambda x: x[None], narrowed) if single else narrowed), single

    def _check(self, wrong: np.ndarray, single: bool) -> None:
        """Refuse decisions with which something is wrong, by :class:`jumar.policies.unsound.Unsound`."""
        if not wrong.any():
            return
        i = int(np.argmax(wrong != Unsound.NOTHING))
        which = "the observation" if single else f"observation {i} of the batch"
        if wrong[i] == Unsound.OBSERVATION:
            raise UsageError(f"{which} is not in {describe_space(self.observation_space)}.")
        if wrong[i] == Unsound.MASK:
            raise UsageError(f"the {MASK_KEY} of {which} forbids every action.")
        raise JumarError(
            f"the policy computes something that is NaN or infinite for {which}{own_encoder_words(self.policy)}."
        )

    def _starts(self, starts: Any, n: int) -> np.ndarray:
        flags = np.asarray(starts, bool)
        if flags.shape not in ((), (1,), (n,)):
            raise UsageError(f"episode_start has shape {flags.shape}; it must be one flag, or ({n},).")
        return np.broadcast_to(flags, (n,))

    def _masks(self, masks: np.ndarray, n: int) -> np.ndarray:
        size = self.policy.actions.mask_size
        if size is None:
            raise UsageError(f"an action space {describe_space(self.action_space)} has no action masks.")
        masks = np.asarray(masks, bool)
        if masks.size != n * size:
            raise UsageError(f"action_masks has shape {masks.shape}; it must be ({n}, {size}).")
        masks = masks.reshape(n, size)
        if not self.policy.actions.leaves_a_choice(masks).all():
            raise UsageError("action_masks forbids every action.")
        return masks

    def _misfit(self, what: str) -> UsageError:
        return UsageError(
            f"the observation is {what}; the policy takes one (or a batch) in {describe_space(self.observation_space)}."
        )


def policy_words(actor: Actor) -> str:
    """Say what a policy sees, what it does and how large it is: ``4 numbers -> one of 2, 4,610 parameters``."""
    size = sum(x.size for x in jax.tree.leaves(actor.parameters))
    seen, done = describe_space(actor.observation_space), describe_space(actor.action_space)
    return f"{seen} -> {done}, {counted(size, 'parameter')}"


def _arrays_in(space: gym.Space[Any], observation: Any) -> Any:
    """Return an observation in the structure of its space, an array (of a list, say) for each plain space in it."""
    if isinstance(space, gym.spaces.Dict):
        return {name: _arrays_in(part, observation[name]) for name, part in space.spaces.items()}
    if isinstance(space, gym.spaces.Tuple):
        if isinstance(observation, (tuple, list)) and len(observation) > len(space.spaces):
            observation = [part for part in observation if not _is_text(part)]  # left out of the space, too
        return tuple(_arrays_in(part, observation[i]) for i, part in enumerate(space.spaces))
    return np.asarray(observation)


def _is_text(value: Any) -> bool:
    """Whether a part of an observation is text, or a batch of texts, or a Dict or Tuple of nothing else."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, (tuple, list)):
        return bool(value) and all(map(_is_text, value))
    return isinstance(value, str) or getattr(getattr(value, "dtype", None), "kind", None) == "U"


def _acting(policy: Policy) -> tuple[Any, Any]:
    def decided(parameters: Any, moments: Any, batch: Any, *others: Any) -> tuple[Any, Any, Any]:
        decision = policy.decide(parameters, moments, batch, *others)
        actions = policy.actions.to_environment(decision.actions, jnp)
        return actions, decision.carry, unsound(policy, batch, decision)

    def greedy(parameters: Any, moments: Any, batch: Any, carry: Any, start: Any, masks: Any) -> tuple[Any, Any, Any]:
        return decided(parameters, moments, batch, carry, start, masks)

    def sampled(
        parameters: Any, moments: Any, batch: Any, carry: Any, start: Any, masks: Any, key: Any
    ) -> tuple[Any, Any, Any]:
        return decided(parameters, moments, batch, carry, start, masks, policy.noise(key, len(start)))

    return jax.jit(greedy), jax.jit(sampled)


def load_policy(path: str | Path, features: Features | None = None, encoder: Any = None) -> Actor:
    """Load a policy alone, from the two files ``policy.safetensors`` and ``policy.json`` in a directory.

    No environment is made and none of the run's other files is read: this is for deployment.

    Args:
        path: the directory.
        features: the function that the policy was trained with, for a policy that is linear in features of one's own.
        encoder: the network of one's own that it was trained with, if there was one.

    Raises:
        UsageError: there is no policy in ``path``, or its features or its encoder are missing.
        DamagedFile: a file is damaged, foreign or from a newer version.
    """
    folder = read_path("path", path)
    return loaded(read_saved_policy(folder, OwnCode.passed(features, encoder)), folder)


def loaded(saved: SavedPolicy, folder: Path) -> Actor:
    """Return a saved policy, which was read from ``folder``, ready to act. Raises ``DamagedFile``."""
    parameters, moments = parameters_of(saved, folder)
    return Actor(
        saved.policy, parameters, moments, saved.spaces, algorithm=saved.algorithm, environment=saved.environment
    )
