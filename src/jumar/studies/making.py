"""How the environments of a comparison are made, as options of ``jumar train``, and what of it ``jumar resume`` needs again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from jumar.envs.sources import FromId
from jumar.studies.compare_request import CompareRequest
from jumar.studies.methods import Method
from jumar.training.plan import Plan

NONE = "none"


def encoder_of(request: CompareRequest, method: Method) -> str | None:
    """Return the encoder that a method is trained with, as ``module:Name``."""
    name = request.encoder if method.encoder is None else method.encoder
    return None if name == NONE else name


def making_words(request: CompareRequest, method: Method) -> list[str]:
    """Return the options of ``train`` that make a method's environments and its encoder."""
    words = [f"--env-kwargs={text}" for text in _assignments(request.env_kwargs)]
    for name, settings in request.wrappers:
        words.append(f"--wrapper={name}" + (f":{','.join(_assignments(dict(settings)))}" if settings else ""))
    words += [f"--frame-stack={request.frame_stack}"] if request.frame_stack is not None else []
    words += ["--atari"] if request.atari else []
    encoder = encoder_of(request, method)
    return words + ([f"--encoder={encoder}"] if encoder is not None else [])


def check_made(request: CompareRequest, plan: Plan) -> None:
    """Make a run's environment once where it is told something, so that a mistake shows before any run.

    Raises:
        UsageError: it cannot be made with these arguments or wrappers.
    """
    if not request.env_kwargs and not request.wrappers:
        return
    assert plan.environment is not None
    source = FromId(plan.environment, plan.cost)
    if source.compiled:
        source.make_compiled()
    else:
        source.make_host(1, 0).close()


def repeated_words(plan: Plan, env: str) -> list[str]:
    """Return the options of ``resume`` that repeat what is code of the user's own in a run in ``env``."""
    assert plan.environment is not None
    words = [f"--env={env}"] if plan.environment.module is not None else []
    words += [f"--wrapper={name}" for name in plan.repeat_wrappers]
    return words + ([f"--encoder={plan.own_names.encoder}"] if plan.own_names.encoder is not None else [])


def _assignments(values: Mapping[str, Any]) -> list[str]:
    """Return values as they are typed: ``key=value``, a text in quotes, so that it is read as nothing else."""
    return [f"{key}={NONE if value is None else json.dumps(value)}" for key, value in values.items()]
