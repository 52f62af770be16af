"""What the numbers of a flight record are called on a page, and in which order they stand."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from jumar.report.pictures import LOGARITHMIC


@dataclass(frozen=True)
class Title:
    """A number of the flight record."""

    key: str
    title: str
    words: str = ""
    """What it is, in a line."""

    @property
    def logarithmic(self) -> bool:
        """Whether it is drawn on a logarithmic axis where all of it is positive."""
        return self.key in LOGARITHMIC or self.key in ("train/approx_kl", "train/max_kl")


FIRST = (
    Title("train/entropy", "Entropy", "of the policy, in nats"),
    Title("train/mean_kl", "KL divergence", "KL(old || new), the mean over the rollout"),
    Title("train/clip_fraction", "Clip fraction", "share of ratios outside of the clip range"),
    Title("train/explained_variance", "Explained variance", "share of the returns' variance that the critic explains"),
    Title("train/q_mean", "Q-values", "mean of Q(s, a) over the rows drawn"),
    Title("train/q_overestimation", "Q overestimation", "mean of Q(s, a) minus the discounted return"),
    Title("train/ent_coef", "Temperature", "the entropy coefficient, in return per nat"),
    Title("rollout/ep_len_mean", "Episode length", "mean of the last 100 episodes, in steps"),
    Title("rollout/ep_cost_mean", "Episode cost", "mean of the last 100 episodes"),
    Title("time/steps_per_second", "Steps per second", "without compilation and evaluation"),
)
"""What people look at first."""

SECTIONS: dict[str, tuple[Title, ...]] = {
    "Policy": (
        Title(
            "train/policy_objective_after", "Objective after", "the surrogate on the whole rollout, after the update"
        ),
        Title("train/policy_objective_before", "Objective before", "the surrogate before the update"),
        Title("train/actor_loss", "Actor loss", "minus the objective, mean over minibatches"),
        Title("train/predicted_improvement", "Predicted improvement", "what the linear model promises of the step"),
        Title("train/max_kl", "Largest KL divergence", "KL(old || new), the largest over the rollout"),
        Title("train/approx_kl", "Sampled KL divergence", "mean over the minibatches of the last epoch"),
        Title("train/average_kl", "KL from the average policy", "before the step"),
        Title("train/effective_sample_size", "Effective sample size", "as a share of the rows"),
        Title("train/ent_coef_loss", "Temperature loss"),
        Title("train/entropy_loss", "Entropy loss"),
    ),
    "Critic": (
        Title("train/value_loss", "Value loss"),
        Title("train/critic_loss", "Critic loss"),
        Title("train/td_error", "TD error", "mean of |Q(s, a) - target|"),
    ),
    "Step": (
        Title("train/grad_norm", "Gradient norm", "before it is scaled down"),
        Title("train/actor_grad_norm", "Gradient norm of the actor"),
        Title("train/critic_grad_norm", "Gradient norm of the critic"),
        Title("train/step_norm", "Step norm", "Euclidean norm of the whole step"),
        Title("train/critic_step_norm", "Step norm of the critic"),
        Title("train/step_fraction", "Fraction of the step", "that the line search took; 0 where it took none"),
        Title("train/line_search_tries", "Line search tries"),
        Title("train/cg_residual", "CG residual", "share of the gradient that conjugate gradients leave unsolved"),
        Title("train/cg_iterations", "CG iterations"),
        Title("train/cg_blocked", "CG blocked", "1 where a direction without curvature ended them"),
        Title("train/kl_coef", "KL coefficient"),
        Title("train/gradient_steps", "Gradient steps", "taken in the iteration"),
        Title("train/critic_gradient_steps", "Gradient steps of the critic"),
        Title("train/stopped_early", "Stopped early", "1 where target_kl stopped the update"),
        Title("train/critic_stopped_early", "Critic stopped early"),
        Title("train/unsound_step", "Unsound step", "1 where the step was not a number, and was not taken"),
        Title("train/counted", "Share of rows learnt from"),
    ),
    "Costs": (
        Title("train/cost_value", "Cost of an episode", "that the update went by"),
        Title("train/cost_excess", "Cost beyond the limit"),
        Title("train/cost_change", "Change of the cost"),
        Title("rollout/episode_cost", "Cost of ended episodes"),
    ),
    "Time": (
        Title("time/elapsed", "Time", "in seconds, with compilation and evaluations"),
        Title("time/environment_share", "Share of the environments", "of the time of an iteration"),
        Title("time/policy_share", "Share of the policy", "that acts"),
        Title("time/update_share", "Share of the update"),
        Title("time/rollout_share", "Share of environments and policy", "which are one program"),
        Title("time/learning_share", "Share of policy and update", "which are one program"),
    ),
    "Schedules and counters": (
        Title("train/learning_rate", "Learning rate"),
        Title("train/clip_range", "Clip range"),
        Title("train/n_updates", "Updates", "of the critics since the run began"),
        Title("replay/size", "Replay size", "rows that the memory holds"),
        Title("rollout/episodes", "Episodes", "that ended in the iteration"),
    ),
}

LOGGED, OTHER = "Logged from info", "Other numbers"
NOT_DRAWN = ("time/total_timesteps", "rollout/ep_rew_mean", "eval/mean_reward")
"""What the curves of returns show."""


def arranged(names: Iterable[str]) -> tuple[list[Title], dict[str, list[Title]]]:
    """Return titles of the names that there are: those to look at first, and the others by section."""
    there = [name for name in dict.fromkeys(names) if name not in NOT_DRAWN]
    first = [title for title in FIRST if title.key in there]
    sections = {name: [title for title in titles if title.key in there] for name, titles in SECTIONS.items()}
    known = {title.key for title in (*first, *(title for titles in sections.values() for title in titles))}
    rest = [name for name in there if name not in known]
    sections[LOGGED] = [Title(name, name.removeprefix("info/")) for name in rest if name.startswith("info/")]
    sections[OTHER] = [Title(name, humanised(name)) for name in rest if not name.startswith("info/")]
    return first, {name: titles for name, titles in sections.items() if titles}


def humanised(key: str) -> str:
    """Return a key as a title: ``train/cost_grad_norm`` is ``Cost grad norm``."""
    words = key.rpartition("/")[2].replace("_", " ").strip()
    return words[:1].upper() + words[1:] if words else key
