"""Actors with storage on runners that have them, for tests that call it as a function."""

from typing import Any

from runners.protocol.messages import KvGetRequest, KvListAllQuery, KvListRequest, KvPutRequest
from runners.storage import Caller
from tests.support.management import NOON, make_actor, make_runner


def make_hosted_actor(namespace: Any, runner: Any, **columns: Any) -> Any:
    """Store an actor that runs on a runner."""
    due = {"due_at": NOON, "state_due_at": NOON}
    hosted = due | {"status": "running", "runner_id": runner.pk, "generation": 0, "connectable_at": NOON}
    return make_actor(namespace, slept_at=None, **hosted | columns)


class Hosted:
    """An actor, the runner that has it, and what it asks of its storage."""

    def __init__(self, namespace: Any, key: str = "host") -> None:
        self.runner = make_runner(namespace, key, socket_id="socket", used_slots=1)
        self.actor = make_hosted_actor(namespace, self.runner)
        self.caller = Caller(self.runner.pk, "socket", None)

    def ask(self, request: Any, *, caller: Caller | None = None, actor_id: str | None = None) -> Any:
        from actors import storage

        return storage.serve(caller or self.caller, actor_id or self.actor.pk, request)

    def put(self, **entries: str) -> Any:
        """Put texts under names."""
        return self.ask(KvPutRequest([k.encode() for k in entries], [v.encode() for v in entries.values()]))

    def get(self, key: str) -> bytes | None:
        """Return the value under a name, None if there is none."""
        values = self.ask(KvGetRequest([key.encode()])).values
        return values[0] if values else None

    def everything(self) -> dict[bytes, bytes]:
        """Return all entries, in order."""
        answer = self.ask(KvListRequest(KvListAllQuery(), reverse=None, limit=None))
        return dict(zip(answer.keys, answer.values, strict=True))
