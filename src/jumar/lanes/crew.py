"""Who steps the lanes: this process, or runners on Ray."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from jumar.envs.host import Warn
from jumar.errors import UsageError
from jumar.lanes.executor import LaneExecutor
from jumar.lanes.lane import not_deterministic
from jumar.lanes.records import Failed, LaneMaking, Request, Rows


@dataclass(frozen=True)
class Spread:
    """Over what the lanes of a run are spread. It changes nothing of the result.

    Attributes:
        runners: how many processes step them; 0: this one does.
        address: ``HOST:PORT`` of a Ray cluster; ``None``: runners are on this machine.
    """

    runners: int = 0
    address: str | None = None


HERE = Spread()


def spread_over(runners: int | None, address: str | None) -> Spread:
    """Return over what lanes are spread. Raises ``UsageError`` for an address without runners."""
    if address is not None and not runners:
        raise UsageError(
            f"the address {address} says where runners are; say how many too, --runners 2 (runners=2), say."
        )
    return Spread(runners or 0, address)


def check_has_lanes(lanes: bool, runners: int | None, run: str) -> None:
    """Refuse runners for a run that was begun without lanes. Raises ``UsageError``."""
    if runners is not None and not lanes:
        raise UsageError(
            f"runners={runners}, but {run} was begun without lanes, and runners would change its result; a run that is begun "
            "with --runners (0 is enough) can be resumed with any number of them."
        )


class Crew(Protocol):
    """Those who step the lanes."""

    moves_lanes: bool
    """Whether a lane may be rebuilt elsewhere, so that its actions must be kept."""

    def answer(self, acting: Any, request: Request) -> Sequence[Rows | Failed]:
        """Do what a request to all lanes asks for; return the parts of the answer in the order of the lanes.

        The records in the request have all actions; what is known already need not be sent.
        """
        ...

    def close(self) -> None:
        """Release the environments, and whoever steps them."""
        ...


class OwnCrew:
    """Steps all lanes in this process.

    Args:
        making: what is needed for it.
        warn: hears of a step that does not return.
    """

    moves_lanes = False

    def __init__(self, making: LaneMaking, warn: Warn | None = None) -> None:
        self._making, self._executor = making, LaneExecutor(making, warn)
        self._proven = False

    def answer(self, acting: Any, request: Request) -> Sequence[Rows | Failed]:
        """Do what a request asks for."""
        if not self._proven:
            prove(self._executor, self._making, acting)
            self._proven = True
        return [self._executor.answer(acting, request)]

    def close(self) -> None:
        """Close the environments."""
        self._executor.close()


def prove(executor: LaneExecutor, making: LaneMaking, acting: Any) -> bytes:
    """Try a lane twice, before any other; return the digest of what it shows.

    Raises:
        NotDeterministic: it shows something else the second time.
    """
    shown = executor.canary(acting)
    if executor.canary(acting) != shown:
        raise not_deterministic(making.name, 0, "two episodes with the same seed and the same policy differ")
    return shown


def make_crew(making: LaneMaking, n_lanes: int, spread: Spread, warn: Warn) -> Crew:
    """Return those who step lanes.

    Args:
        making: what is needed for it.
        n_lanes: how many lanes there are.
        spread: over what they are spread.
        warn: hears of steps that do not return, and of runners that are lost.

    Raises:
        UsageError: Ray is missing, cannot be joined, or a node of it is not fit.
    """
    if spread.runners == 0:
        return OwnCrew(making, warn)
    from jumar.lanes.ray_crew import RayCrew

    return RayCrew(making, n_lanes, spread, warn)
