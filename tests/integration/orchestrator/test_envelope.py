"""A task that is put into the queue ready-made is what Celery itself would have put there."""

import json
import uuid

from orchestrator.celery import app
from orchestrator.redis import get_redis
from orchestrator.workflow import mailbox
from orchestrator.workflow.envelope import queue_name, task_message

TASK = "test.advance_shard"


def taken():
    """Take the oldest message off the queue."""
    return json.loads(get_redis().rpop(queue_name()))


def without_ids(message):
    """Return the message with what differs between two of Celery's own: its ids."""
    ids = {message["headers"].pop("id"), message["headers"].pop("root_id")}
    ids.add(message["properties"].pop("correlation_id"))
    tag = message["properties"].pop("delivery_tag")
    assert [uuid.UUID(one).version for one in (*ids, tag)] == [4, 4]
    return message


def test_it_is_what_celery_would_have_sent():
    app.send_task(TASK, args=(3,), ignore_result=True)
    mailbox.send_task("test", 3)
    mailbox.post("test", "key", {"n": 1})
    by_celery, by_hand, by_script = taken(), taken(), taken()
    assert without_ids(by_hand) == without_ids(by_celery)
    shard = mailbox.shard_of("key")
    assert by_script["headers"]["argsrepr"] == f"({shard},)"
    assert by_script["headers"].keys() == by_hand["headers"].keys() | {"id", "root_id"}


def test_no_two_are_the_same():
    first, second = (json.loads(task_message(TASK, 3)) for _ in range(2))
    assert first["headers"]["id"] != second["headers"]["id"]
    assert first["properties"]["delivery_tag"] != second["properties"]["delivery_tag"]
    assert without_ids(first) == without_ids(second)


def test_it_has_no_parent_though_it_may_have_been_written_while_a_task_ran():
    written = []

    @app.task(name="test.writer")
    def write() -> None:
        written.append(json.loads(task_message("test.written_in_a_task", 0)))

    try:
        write.apply()
    finally:
        app.tasks.unregister("test.writer")
    [message] = written
    assert message["headers"]["parent_id"] is None
    assert message["headers"]["root_id"] == message["headers"]["id"]
