"""The worked numbers, exercises and formulas of five texts on policy gradients, computed anew.

Each :class:`~jumar.lab.examples.example.Example` has its data, the steps, what is printed, what is right, and a verdict. All
numbers are computed by the functions that the lab and training use; where a text prints no data, a small process whose numbers
are written out stands in (:mod:`~jumar.lab.examples.processes`). ``jumar example NAME`` prints one.
"""

from __future__ import annotations

from jumar.errors import UsageError, nearest
from jumar.lab.examples import choices, gradients, improvement, iteration, safeguards, steps, trust_region
from jumar.lab.examples.example import Example, Findings

MODULES = (trust_region, safeguards, gradients, improvement, steps, iteration, choices)

EXAMPLES: dict[str, Example] = {example.name: example for module in MODULES for example in module.EXAMPLES}
"""All examples by their names."""


def find(name: str) -> Example:
    """Return the example of that name; those of the book and the notes have their numbers as names, too.

    Raises:
        UsageError: there is none; it names the nearest ones.
    """
    if (whole := NUMBERED.get(name, name)) in EXAMPLES:
        return EXAMPLES[whole]
    guesses = nearest(name, EXAMPLES, ALIASES) or [known for known in EXAMPLES if name.lower() in known][:3]
    hint = f"did you mean {' or '.join(guesses)}?" if guesses else "jumar example --list shows all."
    raise UsageError(f"unknown example {name!r}; {hint}")


NUMBERED = {
    "12.1": "example-12.1",
    "12.2": "exercise-12.2",
    "12.3": "exercise-12.3",
    "4.6.1": "example-4.6.1",
}
"""Examples that may be called by their numbers."""

ALIASES = {
    **NUMBERED,
    "bernoulli": "example-4.6.1",
    "fisher": "example-12.1",
    "kl": "exercise-12.3",
    "ppo": "clip-condition",
    "trpo": "example-12.1",
}
"""What else one may type in search of an example."""

__all__ = ["ALIASES", "EXAMPLES", "NUMBERED", "Example", "Findings", "find"]
