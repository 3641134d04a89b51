"""What the engine counts and measures, for Prometheus at `/metrics`.

Each process counts in files of its own in `TORPOR_METRICS`; whoever answers `/metrics` on the same machine adds
them up. What the rows and Redis can tell is read when asked for, by the sources that the houses register.
Counters of the hot path are plain numbers that a thread carries over every second: a counter in a file costs as
much as 2 % of a request.
"""

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Iterable
from typing import Any

from django.conf import settings

# The library looks for this once, when it is imported.
os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(settings.METRICS_DIR)

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import Metric
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

logger = logging.getLogger(__name__)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
FLUSH_SECONDS = 1.0
FLUSHES_PER_COUNT = 5
"""Tasks of the event loop are counted this often: to find them all takes a while where there are many."""

# From a warm wake to an endpoint that takes a minute.
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Meter:
    """A metric of the library, made when it is first needed: with it are made its files, and their directory.

    A directory that cannot be used is logged once, and nothing is counted: the engine goes on.
    """

    def __init__(
        self, kind: type[Any], name: str, meaning: str, labels: Iterable[str] = (), **options: Any
    ) -> None:
        self._make: Callable[[], Any] = lambda: kind(name, meaning, tuple(labels), **options)
        self._made: Any = None
        _meters.append(self)

    def labels(self, *values: str) -> Any:
        """Return the child of these labels, to be counted with."""
        return self.made().labels(*values)

    def inc(self, amount: float = 1) -> None:
        """Count."""
        self.made().inc(amount)

    def dec(self, amount: float = 1) -> None:
        """Count down."""
        self.made().dec(amount)

    def observe(self, value: float) -> None:
        """Measure."""
        self.made().observe(value)

    def set(self, value: float) -> None:
        """Note how much there is."""
        self.made().set(value)

    def made(self) -> Any:
        """Return the metric."""
        if self._made is None:
            with _making:
                if self._made is None:
                    self._made = self._try()
        return self._made

    def _try(self) -> Any:
        try:
            settings.METRICS_DIR.mkdir(mode=0o700, parents=True, exist_ok=True)
            return self._make()
        except OSError:
            logger.exception("cannot count in %s", settings.METRICS_DIR, extra={"action": "metrics_failed"})
            return _Deaf()


class _Deaf:
    """Counts nothing."""

    def labels(self, *_: str) -> "_Deaf":
        return self

    def inc(self, _: float = 1) -> None:
        pass

    dec = observe = set = inc


_meters: list[Meter] = []
_making = threading.Lock()

WAKES = Meter(Counter, "torpor_wakes", "Ends of waits for a slot", ["cause", "outcome"])
PHASE_SECONDS = Meter(Histogram, "torpor_phase_seconds", "Phases of a wake", ["phase"], buckets=_SECONDS)
FAILURES = Meter(Counter, "torpor_actor_failures", "Failures of actors; a lost runner is one of each", ["kind"])
RETRIES = Meter(Counter, "torpor_actor_retries", "Attempts that followed a failure")
SLEEPS = Meter(Counter, "torpor_actor_sleeps", "Actors that fell asleep")
STARTS = Meter(Counter, "torpor_start_requests", "Ends of /start requests", ["outcome"])
EVICTIONS = Meter(Counter, "torpor_runner_evictions", "Runners that were told to go at once")
RUNNER_ENDS = Meter(Counter, "torpor_runner_ends", "Runners that have ended", ["reason"])
SIGNALS = Meter(Counter, "torpor_signals", "Signals carried out", ["workflow"])
SWEEP_REPAIRS = Meter(Counter, "torpor_sweep_repairs", "Overdue rows that were signalled again", ["workflow"])
LOST_TASKS = Meter(Counter, "torpor_lost_tasks", "Mailboxes nobody drained and a task was sent for", ["workflow"])
GATEWAY_ERRORS = Meter(Counter, "torpor_gateway_errors", "Requests that were refused or broke off", ["error"])
GATEWAY_RETRIES = Meter(Counter, "torpor_gateway_retries", "Further attempts of requests", ["reason"])
GATEWAY_WAIT_SECONDS = Meter(
    Histogram, "torpor_gateway_wait_seconds", "Waits of requests for their actors", buckets=_SECONDS
)
GATEWAY_SOCKETS = Meter(Gauge, "torpor_gateway_sockets", "WebSockets of clients", multiprocess_mode="livesum")
GATEWAY_SOCKET_ENDS = Meter(
    Counter, "torpor_gateway_socket_ends", "Ends of clients' WebSockets, by who or what ended them", ["by"]
)
TASKS = Meter(Gauge, "torpor_event_loop_tasks", "Tasks of a web process's event loop", multiprocess_mode="liveall")
RUNNER_SOCKETS = Meter(Gauge, "torpor_runner_sockets", "Sockets of runners", multiprocess_mode="livesum")


class HotCounter:
    """A counter for the hot path of one event loop: `n += 1` and no more; carried over every second."""

    __slots__ = ("_done", "_labels", "_meter", "n")

    def __init__(self, meter: Meter, *labels: str) -> None:
        self.n = 0
        self._done = 0
        self._meter = meter
        self._labels = labels
        _hot.append(self)

    def flush(self) -> None:
        """Carry over what was counted since the last time."""
        new, self._done = self.n - self._done, self.n
        if new:
            (self._meter.labels(*self._labels) if self._labels else self._meter).inc(new)


_hot: list[HotCounter] = []
_flusher: threading.Thread | None = None
_flushing = threading.Lock()

_frames = Meter(Counter, "torpor_tunnel_frames", "Tunnel frames", ["direction"])
_bytes = Meter(Counter, "torpor_tunnel_bytes", "Bytes of tunnel frames", ["direction"])
GATEWAY_REQUESTS = HotCounter(Meter(Counter, "torpor_gateway_requests", "Requests that came to the gateway"))
_messages = Meter(Counter, "torpor_gateway_socket_messages", "Messages of clients' WebSockets", ["direction"])
SOCKET_MESSAGES_TO_CLIENTS, SOCKET_MESSAGES_FROM_CLIENTS = (
    HotCounter(_messages, way) for way in ("to_client", "from_client")
)
FRAMES_TO_RUNNERS, FRAMES_FROM_RUNNERS = (HotCounter(_frames, way) for way in ("to_runner", "from_runner"))
BYTES_TO_RUNNERS, BYTES_FROM_RUNNERS = (HotCounter(_bytes, way) for way in ("to_runner", "from_runner"))


def start_flushing() -> None:
    """Have the hot counters of this process carried over; called in its event loop by whoever begins to count."""
    global _flusher
    if _flusher is None or not _flusher.is_alive():
        loop = asyncio.get_running_loop()
        _flusher = threading.Thread(target=_keep_flushing, args=(loop,), name="metrics", daemon=True)
        _flusher.start()


def flush() -> None:
    """Carry all hot counters over now."""
    with _flushing:
        for counter in _hot:
            counter.flush()


def _keep_flushing(loop: asyncio.AbstractEventLoop) -> None:
    pause = threading.Event()
    flushes = 0
    while not pause.wait(FLUSH_SECONDS):
        if flushes % FLUSHES_PER_COUNT == 0:
            TASKS.set(len(asyncio.all_tasks(loop)))
        flushes += 1
        flush()


Source = Callable[[], Iterable[Metric]]

_sources: list[Source] = []


def register_source(*sources: Source) -> None:
    """Have functions asked for metrics whenever somebody asks for all of them."""
    _sources.extend(sources)


class _Sources:
    """What is read when asked for, as a collector."""

    def collect(self) -> Iterable[Metric]:
        for source in _sources:
            yield from source()


def exposition() -> bytes:
    """Return all metrics as Prometheus reads them. Asks the database and Redis; raises what they raise."""
    for meter in _meters:
        meter.made()
    flush()
    _bury_the_dead()
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    registry.register(_Sources())
    return generate_latest(registry)


def _bury_the_dead() -> None:
    """Take the gauges of processes out that have ended without a word."""
    pids = {int(file.stem.rpartition("_")[2]) for file in settings.METRICS_DIR.glob("gauge_live*_*.db")}
    for pid in pids:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            mark_process_dead(pid)  # type: ignore[no-untyped-call]
        except PermissionError:
            pass  # it lives, as somebody else
