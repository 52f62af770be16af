"""What an iteration tells: episode statistics, the metrics by their public names, and health in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

Metrics = Mapping[str, float | None]
"""An iteration's numbers by the names of ``metrics.jsonl``; ``None`` for what is not known."""

WINDOW = 100
"""Over how many of the last episodes ``rollout/*`` are means, as in Stable-Baselines3."""


class EpisodeState(NamedTuple):
    """Open and recent episodes of one run, as arrays that go into a checkpoint."""

    open_returns: np.ndarray
    """Undiscounted return so far of each environment's open episode, ``[N]`` float64."""
    open_lengths: np.ndarray
    """Steps so far, ``[N]`` int64."""
    returns: np.ndarray
    """Returns of the last episodes, oldest first, NaN where there were none yet, ``[WINDOW]`` float64."""
    lengths: np.ndarray
    """Their lengths, ``[WINDOW]`` float64."""
    open_costs: np.ndarray
    """Undiscounted cost so far of each environment's open episode, ``[N]`` float64."""
    costs: np.ndarray
    """Costs of the last episodes, NaN where there is no cost, ``[WINDOW]`` float64."""


class Ended(NamedTuple):
    """The whole episodes that ended in one rollout."""

    episodes: int
    mean_cost: float | None
    """``None`` where none ended, or where there are no costs."""


class EpisodeStatistics:
    """Follows whole episodes through rollouts: raw rewards, time limits included, cut episodes left out."""

    def __init__(self, n_envs: int) -> None:
        nothing = np.full(WINDOW, np.nan)
        self.state = EpisodeState(
            open_returns=np.zeros(n_envs),
            open_lengths=np.zeros(n_envs, np.int64),
            returns=nothing,
            lengths=nothing.copy(),
            open_costs=np.zeros(n_envs),
            costs=nothing.copy(),
        )

    def restart(self) -> None:
        """Forget the open episodes: they were cut, and do not count."""
        state = self.state
        self.state = state._replace(
            open_returns=np.zeros_like(state.open_returns),
            open_lengths=np.zeros_like(state.open_lengths),
            open_costs=np.zeros_like(state.open_costs),
        )

    def add(self, rewards: np.ndarray, ended: np.ndarray, valid: np.ndarray, costs: np.ndarray | None = None) -> Ended:
        """Take in a rollout of ``[T, N]`` arrays, and return what ended in it.

        Several costs a step, ``[T, N, C]``, are left out.
        """
        state = self.state
        paid = costs if costs is not None and costs.shape == rewards.shape else None
        told = rewards, np.ones_like(rewards), np.zeros_like(rewards) if paid is None else paid
        sums = np.cumsum(np.where(valid[..., None], np.stack(told, axis=-1), 0.0), axis=0, dtype=np.float64)
        before = -np.stack([state.open_returns, state.open_lengths, state.open_costs], axis=-1)
        episodes = []
        for t, n in np.argwhere(ended):
            episodes.append(sums[t, n] - before[n])
            before[n] = sums[t, n]
        returns, lengths, totals = np.array(episodes).reshape(-1, 3).T
        totals = np.full_like(totals, np.nan) if paid is None else totals
        open_returns, open_lengths, open_costs = np.moveaxis(sums[-1] - before, -1, 0)
        self.state = EpisodeState(
            open_returns=open_returns,
            open_lengths=open_lengths.astype(np.int64),
            returns=np.concatenate([state.returns, returns])[-WINDOW:],
            lengths=np.concatenate([state.lengths, lengths])[-WINDOW:],
            open_costs=open_costs,
            costs=np.concatenate([state.costs, totals])[-WINDOW:],
        )
        return Ended(len(episodes), _mean(totals))

    @property
    def mean_return(self) -> float | None:
        """The mean return of the last episodes; ``None`` before the first has ended."""
        return _mean(self.state.returns)

    @property
    def mean_length(self) -> float | None:
        """The mean length of the last episodes in steps; ``None`` before the first has ended."""
        return _mean(self.state.lengths)

    @property
    def mean_cost(self) -> float | None:
        """The mean cost of the last episodes; ``None`` before the first that has any has ended."""
        return _mean(self.state.costs)


def _mean(values: np.ndarray) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None


class Health:
    """Watches the flight record and says in words when something is off; each complaint at most once in a while.

    Args:
        symptoms: what a method knows of troubles: for each a sentence if an iteration's metrics show it, else an empty text.
    """

    PATIENCE = 10
    """How many iterations in a row something must be off before it is said."""
    SILENCE = 200
    """How many iterations a complaint is not repeated."""

    def __init__(self, symptoms: Callable[[Metrics], dict[str, str]]) -> None:
        self._symptoms = symptoms
        self._streaks: dict[str, int] = {}
        self._silent: dict[str, int] = {}

    def check(self, metrics: Metrics) -> list[str]:
        """Return what is off after this iteration, in words."""
        complaints = []
        for name, words in self._symptoms(metrics).items():
            self._streaks[name] = self._streaks.get(name, 0) + 1 if words else 0
            self._silent[name] = max(self._silent.get(name, 0) - 1, 0)
            if words and self._streaks[name] >= self.PATIENCE and not self._silent[name]:
                complaints.append(f"{words} ({self._streaks[name]} iterations in a row)")
                self._silent[name] = self.SILENCE
        return complaints
