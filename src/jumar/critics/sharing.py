"""What of their networks policy and critic share: nothing, or the convolutional networks of images.

Convolutions cost so much more than all else that methods which climb one joint gradient have them once. The shared networks
are the policy's: they lie among its parameters, and the critic's loss moves them with the policy's objective. A trust region
or any other measure of the policy's own step does not see what the critic would do to them, so methods with one never share.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

from jumar.critics.state_values import Critic, TorsoCritic
from jumar.networks.layers import Torso
from jumar.policies.policy import Policy
from jumar.trajectory import Batch

Features = Any
Parameters = Any


class Sharing(Protocol):
    """A part that says what the critic is given of the policy's networks."""

    def rows(self, parameters: Parameters, batch: Batch) -> Batch:
        """Return a batch as both networks take it; ``parameters`` are the policy's."""
        ...

    def sequences(self, parameters: Parameters, features: Features, successors: Features) -> tuple[Features, Features]:
        """Return the features of observations and of true successors, ``[N, T, ...]``, as the critic takes them."""
        ...


@dataclass(frozen=True)
class Unshared:
    """The part by which each has networks of its own."""

    def rows(self, parameters: Parameters, batch: Batch) -> Batch:
        """Return the batch as it is."""
        return batch

    def sequences(self, parameters: Parameters, features: Features, successors: Features) -> tuple[Features, Features]:
        """Return both as they are."""
        return features, successors


@dataclass(frozen=True)
class SharedTrunk:
    """The part by which the critic takes what the policy's convolutional networks make of images."""

    torso: Torso
    """The policy's."""

    def rows(self, parameters: Parameters, batch: Batch) -> Batch:
        """Return the batch with its images embedded, once for both."""
        return batch._replace(features=self.torso.embed(parameters["torso"], batch.features))

    def sequences(self, parameters: Parameters, features: Features, successors: Features) -> tuple[Features, Features]:
        """Return both with their images embedded."""
        return self.torso.embed_sequences(parameters["torso"], features, successors)


def share_trunk(policy: Policy, critic: Critic) -> tuple[Critic, Sharing]:
    """Return a critic that takes the policy's convolutional networks where there are any, and the part that says so."""
    torso = policy.torso
    if not (isinstance(torso, Torso) and torso.images and isinstance(critic, TorsoCritic)):
        return critic, Unshared()
    if torso.places != critic.torso.places:  # they see different images
        return critic, Unshared()
    return replace(critic, torso=replace(critic.torso, embeds=False)), SharedTrunk(torso)
