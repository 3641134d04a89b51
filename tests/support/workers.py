"""A Celery worker and a sweeper in a thread of the test's own process: the real tasks, off the real queue."""

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis
from django.conf import settings
from django.db import connections
from django.utils import timezone

SWEEP_SECONDS = 0.1


class Worker:
    """Takes tasks as they come and sweeps in between; may be told to pause, and fails the test if a task does."""

    def __init__(self, *, sweeping: bool = True) -> None:
        self._sweeping = sweeping
        self.tasks = 0
        self.sweeps = 0
        self.errors: list[BaseException] = []
        self._ended = threading.Event()
        self._going = threading.Event()
        self._going.set()
        self._idle = threading.Event()
        self._thread = threading.Thread(target=self._run, name="worker")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._going.set()
        self._thread.join()
        if self.errors:
            raise self.errors[0]

    def pause(self) -> None:
        """Finish the task in hand and take no more until `go`."""
        self._idle.clear()
        self._going.clear()
        self._idle.wait()

    def go(self) -> None:
        """Go on."""
        self._going.set()

    def _run(self) -> None:
        from orchestrator.celery import app

        app.loader.import_default_modules()
        queue = app.conf.broker_transport_options["global_keyprefix"] + app.conf.task_default_queue
        try:
            with redis.Redis.from_url(settings.REDIS_URL) as client:
                self._work(app, client, queue)
        except BaseException as error:
            self.errors.append(error)
            self._idle.set()
        finally:
            connections.close_all()

    def _work(self, app: Any, client: redis.Redis, queue: str) -> None:
        sweep_at = 0.0
        while not self._ended.is_set():
            if not self._going.is_set():
                self._idle.set()
                self._going.wait()
                continue
            if self._sweeping and time.monotonic() >= sweep_at:
                _sweep()
                self.sweeps += 1
                sweep_at = time.monotonic() + SWEEP_SECONDS
            taken: Any = client.brpop([queue], timeout=SWEEP_SECONDS)  # type: ignore[arg-type]
            if taken:
                message = json.loads(taken[1])
                arguments = json.loads(base64.b64decode(message["body"]))[0]
                app.tasks[message["headers"]["task"]](*arguments)
                self.tasks += 1


def _sweep() -> None:
    from orchestrator.workflow import mailbox, timers
    from orchestrator.workflow.sweep import sweep

    mailbox.post_all(timers.take_due())
    sweep(timezone.now())


@contextmanager
def working(*, sweeping: bool = True) -> Iterator[Worker]:
    """Have tasks carried out meanwhile."""
    worker = Worker(sweeping=sweeping)
    worker.start()
    try:
        yield worker
    finally:
        worker.stop()
