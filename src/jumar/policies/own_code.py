"""Code of the user's that a policy is made of. Files keep only its name: it is passed again in each process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from jumar.errors import UsageError
from jumar.networks.own import OwnEncoder
from jumar.policies.features import Features, name_of


class OwnNames(NamedTuple):
    """What the user's code is called; ``None`` where there is none."""

    features: str | None = None
    encoder: str | None = None


@dataclass(frozen=True)
class OwnCode:
    """The user's code that a policy is made of."""

    features: Features | None = None
    """The function that the policy is linear in (:mod:`jumar.policies.features`)."""
    encoder: OwnEncoder | None = None
    """The network that encodes observations (:mod:`jumar.networks.own`)."""

    @classmethod
    def passed(cls, features: Features | None, encoder: Any) -> OwnCode:
        """Return what was passed from Python; an encoder that is not an ``OwnEncoder`` is called what Python calls it."""
        if encoder is None or isinstance(encoder, OwnEncoder):
            return cls(features, encoder)
        return cls(features, OwnEncoder(_name_of(encoder), encoder))

    @property
    def names(self) -> OwnNames:
        """What a file keeps of it."""
        features = None if self.features is None else name_of(self.features)
        return OwnNames(features, self.encoder.name if self.encoder else None)

    def check(self, names: OwnNames, whose: str) -> None:
        """Refuse to make a policy without the code that it was made of, or with other code.

        Args:
            names: those that were kept.
            whose: the policy, in words.

        Raises:
            UsageError: the message says what would be right.
        """
        if self.features is None and names.features is not None:
            raise UsageError(
                f"{whose} is linear in features of your own ({names.features}), which no file can bring back: pass them again "
                "from Python, jumar.load(path, features=...) or jumar.load_policy(path, features=...)."
            )
        if self.features is not None and names.features is None:
            raise UsageError(f"{whose} is not made of features; leave features={name_of(self.features)} out.")
        if self.encoder is None and names.encoder is not None:
            again = f"repeat --encoder {names.encoder}, or " if ":" in names.encoder else ""
            raise UsageError(
                f"{whose} has an encoder of your own ({names.encoder}), and nothing named by a file is imported; {again}pass "
                "encoder=... from Python."
            )
        if self.encoder is not None and names.encoder is None:
            raise UsageError(f"{whose} has no encoder of your own; leave {self.encoder.name} out.")
        typed, kept = self.encoder.name if self.encoder else "", names.encoder or ""
        if ":" in typed and ":" in kept and typed != kept:
            raise UsageError(f"--encoder {typed} is not the encoder of {whose}, which is {kept}.")


NO_CODE = OwnCode()


def _name_of(encoder: Any) -> str:
    if isinstance(encoder, tuple) and encoder:
        return str(getattr(encoder[-1], "__qualname__", "a pair of functions"))
    return str(getattr(encoder, "__qualname__", type(encoder).__qualname__))
