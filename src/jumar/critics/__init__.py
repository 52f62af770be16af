"""Critics: what states and actions are worth."""

from jumar.critics.state_values import (
    TIME,
    ActionValueCritic,
    Critic,
    CriticPair,
    LayerPerStep,
    NeuralCritic,
    NoCritic,
    ScaledTime,
    TakenActionCritic,
    Timeless,
    Timing,
    TorsoCritic,
    make_action_value_critic,
    make_critic,
    make_taken_action_critic,
)

__all__ = [
    "TIME",
    "ActionValueCritic",
    "Critic",
    "CriticPair",
    "LayerPerStep",
    "NeuralCritic",
    "NoCritic",
    "ScaledTime",
    "TakenActionCritic",
    "Timeless",
    "Timing",
    "TorsoCritic",
    "make_action_value_critic",
    "make_critic",
    "make_taken_action_critic",
]
