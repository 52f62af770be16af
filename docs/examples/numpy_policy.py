"""A saved policy without Jumar and JAX: its two files, NumPy and safetensors."""

import hashlib
import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load

ACTIVATIONS = {
    "tanh": np.tanh,
    "relu": lambda x: np.maximum(x, 0.0),
    "silu": lambda x: 0.5 * x * (1.0 + np.tanh(0.5 * x)),
}


class NumpyPolicy:
    """The deterministic action of a Gaussian policy with hidden layers, for numbers (or a Dict of them) and a Box."""

    def __init__(self, folder):
        folder = Path(folder)
        said, data = json.loads((folder / "policy.json").read_text()), (folder / "policy.safetensors").read_bytes()
        if hashlib.sha256(data).hexdigest() != said["arrays"]["policy.safetensors"]:
            raise ValueError(f"{folder / 'policy.safetensors'} is not the file that policy.json describes.")
        made, seen, actions = said["policy"], said["observation_space"], said["action_space"]
        spaces = dict(seen["spaces"] if seen["type"] == "Dict" else [(None, seen)])
        plain = [*spaces.values(), actions]
        if any(made[name] for name in ("recurrent", "squash")) or any(x["type"] != "Box" for x in plain):
            raise ValueError("this is for Gaussian policies without memory and tanh, and Boxes of numbers alone.")
        arrays = load(data)

        # The normaliser knows all parts that policy or critic see, side by side in the order of the space.
        policy_sees, critic_sees = made["policy_observations"], made["critic_observations"]
        known = [x for x in spaces if policy_sees is None or critic_sees is None or x in policy_sees + critic_sees]
        self.names = [name for name in known if policy_sees is None or name in policy_sees]
        columns = np.concatenate([np.full(int(np.prod(spaces[x]["shape"])), x in self.names) for x in known])
        self.normalises, self.clip = made["normalize_observations"], made["clip_observations"]
        self.mean = arrays["observation_moments/mean"][columns]
        self.scale = 1.0 / np.sqrt(arrays["observation_moments/variance"][columns] + 1e-8)

        layers = [f"parameters/torso/mlp/layer_{i}" for i in range(len(made["net_arch"]))]
        weights = [(arrays[f"{x}/kernel"], arrays[f"{x}/bias"]) for x in [*layers, "parameters/head/mean"]]
        self.hidden, self.head = weights[:-1], weights[-1]
        self.activation = ACTIVATIONS[made["activation"]]
        self.low, self.high = np.array(actions["low"], float), np.array(actions["high"], float)

    def __call__(self, observation):
        """Return the action for one observation, a Dict or an array as in training; of a Dict the policy's parts are enough."""
        parts = [observation if name is None else observation[name] for name in self.names]
        x = np.concatenate([np.ravel(part) for part in parts]).astype(np.float32)
        if not np.isfinite(x).all():
            raise ValueError(f"entry {int(np.argmin(np.isfinite(x)))} of the observation is not a finite number.")
        if self.normalises:
            x = np.clip((x - self.mean) * self.scale, -self.clip, self.clip)
        for kernel, bias in self.hidden:
            x = self.activation(x @ kernel + bias)
        return np.clip(x @ self.head[0] + self.head[1], self.low, self.high)
