"""`manage.py runworker`: Channels' command, ending in order, and loading only what background consumers need."""

import asyncio
import signal
from typing import Any

from channels.layers import get_channel_layer
from channels.management.commands import runworker
from channels.worker import Worker
from django.conf import settings
from django.utils.module_loading import import_string

END_SECONDS = 2.0
"""A task that was cancelled and has not ended by then is cancelled again."""
END_ATTEMPTS = 4


class Command(runworker.Command):
    """Run background consumers: `serverless` holds the `/start` requests of pools."""

    requires_system_checks = []  # they load all views, which only web processes need; those check

    def handle(self, *_: Any, **options: Any) -> None:
        """Serve the channels until SIGTERM or SIGINT."""
        application = import_string(settings.BACKGROUND_APPLICATION)
        layer = get_channel_layer(options["layer"])
        assert layer is not None, "the settings configure a channel layer"
        worker = self.worker_class(application=application, channels=options["channels"], channel_layer=layer)
        asyncio.run(_serve(worker))


async def _serve(worker: Worker) -> None:
    """Run a worker until it is told to end; then have its consumers end, each with its `finally`.

    Channels' own way ends the process where it stands: what a connector holds would wait for its lease to lapse.
    """
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    serving = asyncio.ensure_future(worker.arun())  # type: ignore[no-untyped-call]
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
    await _end({serving})
    await _end({instance["future"] for instance in worker.application_instances.values()})
    if not stop.is_set():
        stopping.cancel()
        await serving  # which has failed


async def _end(tasks: set[asyncio.Future[Any]]) -> None:
    """Cancel tasks and wait for them; again if one does not end, as a client of Redis may take it for its own."""
    for _ in range(END_ATTEMPTS):
        if tasks:
            for task in tasks:
                task.cancel()
            _, tasks = await asyncio.wait(tasks, timeout=END_SECONDS)
