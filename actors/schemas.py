"""Shapes of the API of actors (API §3)."""

from typing import Any, Literal

from pydantic import BaseModel

from orchestrator.api.schemas import Pagination
from orchestrator.api.strict import (
    CommaSeparated,
    Flag,
    Id,
    InNamespace,
    Limit,
    Paged,
    Repeated,
    StrictBody,
    Text,
    Whole,
)

Policy = Literal["restart", "sleep", "destroy"]


class ActorAnswer(BaseModel):
    """An actor. Every field is always there, null if unset, except `error`."""

    actor_id: str
    name: str
    key: str | None
    namespace_id: str
    datacenter: str
    runner_name_selector: str
    crash_policy: Policy
    create_ts: int
    start_ts: int | None
    connectable_ts: int | None
    sleep_ts: int | None
    pending_allocation_ts: int | None
    reschedule_ts: int | None
    destroy_ts: int | None
    error: str | dict[str, Any] | None = None


class NewActor(BaseModel):
    """The actor that was made."""

    actor: ActorAnswer


class ActorOfKey(BaseModel):
    """The actor that holds a key, and whether this call has made it."""

    actor: ActorAnswer
    created: bool


class Actors(BaseModel):
    """A page of actors, newest first."""

    actors: list[ActorAnswer]
    pagination: Pagination


class Explanation(BaseModel):
    """Why an actor is where it is; the fields are described in docs/observability.md."""

    explanation: dict[str, Any]


class TimelineAnswer(BaseModel):
    """An actor's arrows, the phases of each of its wakes, and the source of a sequence diagram."""

    arrows: list[dict[str, Any]]
    wakes: list[dict[str, Any]]
    mermaid: str


class StoredValue(BaseModel):
    """A value of an actor's storage in base64, and when it was put there, in ms since the epoch."""

    value: str
    update_ts: int


class NameAnswer(BaseModel):
    """What was announced about an actor name."""

    metadata: dict[str, Any]


class ActorNames(BaseModel):
    """A page of actor names."""

    names: dict[str, NameAnswer]
    pagination: Pagination


class ActorBody(StrictBody):
    """A new actor. `input` is base64; `runner_name_selector` names its pool."""

    name: str
    key: str | None = None
    input: str | None = None
    runner_name_selector: str
    crash_policy: Policy
    datacenter: str | None = None


class KeyedActorBody(ActorBody):
    """An actor known by its key, made if there is none."""

    key: str


class ActorsQuery(Paged, InNamespace):
    """By ids, or by name, or by name and key."""

    name: Text | None = None
    key: Text | None = None
    actor_id: Repeated[Id] = []
    actor_ids: CommaSeparated[Id] = []
    include_destroyed: Flag = False


class TimelineQuery(InNamespace):
    """Which arrows: of a generation, from `since_ts` to before `until_ts` (ms since 1970), the newest `limit`."""

    generation: Whole | None = None
    since_ts: Whole | None = None
    until_ts: Whole | None = None
    limit: Limit = 200


class ActorNamesQuery(InNamespace):
    """A page of names; the cursor is the last name."""

    limit: Limit = 100
    cursor: Text | None = None
