"""Celery's messages for tasks, ready to be put into the workers' queue.

To have Celery publish a task costs more than all else that is done to post a signal, and the messages for one
task with the same arguments differ only in their ids. So Celery writes each message once per process, and what it
has written serves as the form for all others. A worker cannot tell them from those that Celery has published.
"""

import json
import threading
import uuid
from functools import cache
from typing import Any

from kombu import Connection

from orchestrator.celery import app
from orchestrator.redis import get_redis

_TASK_ID, _DELIVERY_TAG = str(uuid.UUID(int=1)), str(uuid.UUID(int=2))
_writing = threading.Lock()


def queue_name() -> str:
    """Return the Redis key of the workers' queue: a list, the newest message first."""
    return f"{app.conf.broker_transport_options['global_keyprefix']}{app.conf.task_default_queue}"


def enqueue(task: str, *args: str | int) -> None:
    """Send a task, by name; raises `redis.RedisError` if the store is away."""
    get_redis().lpush(queue_name(), task_message(task, *args))


def task_message(task: str, *args: str | int) -> str:
    """Return a new message for a task by name. There is to be a bounded number of different arguments."""
    form = _form(task, args)
    return form.replace(_TASK_ID, str(uuid.uuid4())).replace(_DELIVERY_TAG, str(uuid.uuid4()))


@cache
def _form(task: str, args: tuple[str | int, ...]) -> str:
    """Have Celery publish the task, to a broker in memory, and return what it has sent."""
    with _writing, Connection("memory://") as connection:
        app.send_task(task, args=args, task_id=_TASK_ID, ignore_result=True, connection=connection)
        channel: Any = connection.default_channel
        message = channel._get(app.conf.task_default_queue)
    message["headers"] |= {"root_id": _TASK_ID, "parent_id": None}  # it may be a task that runs this very moment
    message["properties"]["delivery_tag"] = _DELIVERY_TAG
    return json.dumps(message)
