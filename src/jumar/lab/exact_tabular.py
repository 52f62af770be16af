r"""What an update of the book knows of a tabular process, exactly: the expectations of what rollouts estimate.

With it Algorithms 12.1 to 12.6 of :mod:`jumar.lab.textbook` run without noise in any tabular process with a horizon.
"""

from __future__ import annotations

from dataclasses import dataclass

import jax.numpy as jnp
from jax import Array

from jumar.lab import gradients
from jumar.lab.local_models import LocalModel, TabularProcess
from jumar.lab.precision import in_double
from jumar.lab.tabular import action_values, advantages, visitation
from jumar.solvers.objectives import clipped_surrogate, surrogate


@dataclass(frozen=True)
class ExactTabular:
    r"""A tabular process exactly; with the horizon :math:`d`, :math:`\rho` the discounted visits, and X for Q or A:

    .. math::
        f(\theta') = \frac1d \sum_{t, s} \rho_t(s) \sum_a \pi'(a|s) X_t(s, a), \qquad
        g(\theta') = \frac1d \sum_{t, s} \rho_t(s) \, KL(\pi(\cdot|s) \| \pi'(\cdot|s))

    The clamped objective has the expectation over actions of :math:`\min(w X, clip(w) X)`. Rollouts clamp by the sign of a
    sampled return instead, so that :class:`~jumar.lab.local_models.Sampled` has another one on average, unless all rewards
    have the same sign.
    """

    process: TabularProcess
    by_advantages: bool = False
    """Whether actions are judged by their advantages (equation 12.22), not by their values (equation 12.18)."""

    @in_double
    def at(self, theta: Array, key: Array) -> LocalModel:
        """Return the exact quantities; the key is not used."""
        mdp, family = self.process.mdp, self.process.family
        depth = mdp.horizon or 0  # which the process has checked that there is
        old = family(theta)
        visits = visitation(mdp, old) / depth
        taken = visits[..., None] * old.probs
        judged = advantages(mdp, old) if self.by_advantages else action_values(mdp, old)

        def objective(new: Array) -> Array:
            return jnp.sum(taken * surrogate(family(new).log_probs, old.log_probs, judged))

        def clamped(new: Array, epsilon: float) -> Array:
            return jnp.sum(taken * clipped_surrogate(family(new).log_probs, old.log_probs, judged, epsilon))

        return LocalModel(
            gradient=gradients.policy_gradient(mdp, family, theta),
            fisher=gradients.trajectory_fisher(mdp, family, theta, depth),
            objective=in_double(objective),
            constraint=in_double(lambda new: jnp.sum(visits * old.kl(family(new)))),
            clamped=in_double(clamped),
        )
