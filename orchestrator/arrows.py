"""The arrows of the pictures in DESIGN §1: who told whom what. No I/O; `timeline.py` stores them."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class Participant(StrEnum):
    """Who can be at either end of an arrow."""

    USER = "User"
    GATEWAY = "Gateway"
    ACTOR = "Actor workflow"
    SERVERLESS = "Serverless"
    ENDPOINT = "Serverless endpoint"
    RUNNER = "Runner"
    RUNNER_WS = "Runner WS"
    RUNNER_WORKFLOW = "Runner workflow"


@dataclass(frozen=True, slots=True)
class Arrow:
    """One arrow. It may pass through others on its way; `data` holds only what JSON can."""

    source: Participant
    target: Participant
    label: str
    via: tuple[Participant, ...] = ()
    actor_id: str = ""
    generation: int | None = None
    runner_id: str = ""
    connection_id: str = ""
    pool_id: str = ""
    data: dict[str, Any] = field(default_factory=dict)
