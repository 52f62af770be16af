"""Weights & Biases: what is sent goes to their service, or to a folder in offline mode."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from jumar.errors import UsageError
from jumar.tracking.trackers import TrackerFailed, Wanted

SETTINGS = {
    "silent": True,
    "host": "jumar",
    "console": "off",
    "disable_code": True,
    "disable_git": True,
    "save_code": False,
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_disable_machine_info": True,
    "x_save_requirements": False,
}
"""Only the run's numbers are sent: not the name of this machine, and nothing of this process or its folder, which are not those
that train. The settings with an ``x_`` may be missing in other versions."""


class OnWandb:
    """A run in Weights & Biases. ``WANDB_MODE``, ``WANDB_DIR`` and their like say where it goes, as always."""

    last_step = None
    """It cannot tell: what was handed over is kept by a process of its own."""

    def __init__(self, wanted: Wanted) -> None:
        import wandb
        from wandb.errors import UsageError as Refused

        known = {name: value for name, value in SETTINGS.items() if name in wandb.Settings.model_fields}
        try:
            self._run = wandb.init(
                project=wanted.project,
                name=wanted.name,
                id=wanted.run_id,
                resume="allow",
                config=dict(wanted.settings),
                settings=wandb.Settings(**known),
            )
        except Refused as error:
            raise UsageError(f"wandb refuses: {_line(error)}. {LOG_IN}") from None
        except Exception as error:
            raise TrackerFailed(f"wandb cannot be reached: {_line(error)}. {OFFLINE}") from None
        if self._run.disabled:
            raise UsageError(f"WANDB_MODE is disabled, so nothing would be kept; unset it. {OFFLINE}")
        offline = f"Send it by: wandb sync {shlex.quote(str(Path(self._run.dir).parent))}"
        self.place = offline if self._run.offline else f"See it at {self._run.url}"

    def send(self, step: int, numbers: Mapping[str, float]) -> None:
        """Hand over a row."""
        try:
            self._run.log(dict(numbers), step=step, commit=True)
        except Exception as error:
            raise TrackerFailed(f"wandb takes no more: {_line(error)}. The same command goes on.") from None

    def settle(self) -> None:
        """Wait for nothing: wandb's own process keeps and sends what it was handed."""

    def close(self) -> None:
        """Wait until everything is sent."""
        try:
            self._run.finish()
        except Exception as error:
            raise TrackerFailed(f"wandb could not end the run: {_line(error)}. The same command goes on.") from None


LOG_IN = "Log in by `wandb login`, or set WANDB_MODE=offline to keep everything here."
OFFLINE = "With WANDB_MODE=offline everything is kept here, to be sent later by `wandb sync`."


def _line(error: Exception) -> str:
    """Return what an exception says, in one line without a full stop."""
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__).rstrip(".")
