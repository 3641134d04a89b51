"""`manage.py sweeper`: makes deadlines prompt and certain (DESIGN §7)."""

import logging
import signal
import threading
import time
from typing import Any

import redis
from django.conf import settings
from django.core.management.base import BaseCommand
from django.db import DatabaseError, connection

from orchestrator import clock, retention
from orchestrator.db import look_at_the_clock
from orchestrator.workflow import mailbox, timers
from orchestrator.workflow.sweep import ask_for_echoes, look_again, sweep

logger = logging.getLogger(__name__)

PROMPT_SECONDS = 0.05
"""How late a timer may be noticed: an alarm is to fire within 100 ms of its time."""


class Command(BaseCommand):
    """Posts what is due, every 50 ms, and sweeps what is overdue, every second. Any number may run."""

    help = "Signal what is due and what is overdue, until told to stop."
    requires_system_checks = []  # they load all views, which only web processes need; those check

    def handle(self, *args: Any, **options: Any) -> None:
        """Run until SIGTERM or SIGINT."""
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        next_sweep = time.monotonic()
        while not stop.wait(PROMPT_SECONDS):
            try:
                mailbox.post_all(timers.take_due())
                if time.monotonic() >= next_sweep:
                    next_sweep = time.monotonic() + settings.ENV.sweep_interval_ms / 1000
                    look_at_the_clock()
                    sweep(clock.now())
                    ask_for_echoes()
                    retention.begin()
                look_again(time.monotonic())
            except (redis.RedisError, OSError, DatabaseError):
                logger.exception("sweep failed, trying again", extra={"action": "sweep_failed"})
                connection.close()
                stop.wait(settings.ENV.sweep_interval_ms / 1000)
