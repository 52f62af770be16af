"""What the newest checkpoint of a run says of itself: by which rule it was ended, for one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from jumar.errors import DamagedFile
from jumar.runs import checkpoints
from jumar.runs.at_work import with_parent
from jumar.runs.entries import is_folder
from jumar.runs.files import read_json
from jumar.runs.run_directory import RunDirectory


def newest_record(run: RunDirectory) -> Mapping[str, Any]:
    """Return what the newest checkpoint of a run, or of the run of several seeds that it is a part of, says of itself."""
    for place in with_parent(run):
        try:
            names = [name for name in os.listdir(place.checkpoints) if checkpoints.STEP_NAME.fullmatch(name)]
            if is_folder(place.checkpoints) and names:
                newest = place.checkpoints / max(names)
                if is_folder(newest):
                    found = read_json(newest / checkpoints.DESCRIPTION, checkpoints.KIND).get("record")
                    return found if isinstance(found, dict) else {}
        except (OSError, DamagedFile):
            continue
    return {}


def ended_by(run: RunDirectory) -> str | None:
    """Return the rule that ended a run before its total (``stop_at_return``, say), as its newest checkpoint has it."""
    rule = newest_record(run).get("stopped_by")
    return rule if isinstance(rule, str) and rule.isidentifier() else None
