"""What the engine counts and measures, for Prometheus at `/metrics`.

Each process counts in files of its own in `TORPOR_METRICS`; whoever answers `/metrics` on the same machine adds
them up. What the rows and Redis can tell is read when asked for, by the sources that the houses register.
Counters of the hot path are plain numbers that a thread carries over every second: a counter in a file costs as
much as 2 % of a request.
"""

import os
import threading
from collections.abc import Callable, Iterable

from django.conf import settings

# The library looks for this once, when it is imported, and wants the directory to be there.
os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(settings.METRICS_DIR)
settings.METRICS_DIR.mkdir(parents=True, exist_ok=True)

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest  # noqa: E402
from prometheus_client.core import Metric  # noqa: E402
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead  # noqa: E402

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
FLUSH_SECONDS = 1.0

# From a warm wake to an endpoint that takes a minute.
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)

WAKES = Counter("torpor_wakes", "Ends of waits for a slot", ["cause", "outcome"])
PHASE_SECONDS = Histogram("torpor_phase_seconds", "Phases of a wake", ["phase"], buckets=_SECONDS)
FAILURES = Counter(
    "torpor_actor_failures", "Actors that failed; a lost runner counts for each of its actors", ["kind"]
)
RETRIES = Counter("torpor_actor_retries", "Attempts that followed a failure")
SLEEPS = Counter("torpor_actor_sleeps", "Actors that fell asleep")
STARTS = Counter("torpor_start_requests", "Ends of /start requests", ["outcome"])
EVICTIONS = Counter("torpor_runner_evictions", "Runners that were told to go at once")
RUNNER_ENDS = Counter("torpor_runner_ends", "Runners that have ended", ["reason"])
SIGNALS = Counter("torpor_signals", "Signals carried out", ["workflow"])
SWEEP_REPAIRS = Counter("torpor_sweep_repairs", "Overdue rows that the sweep signalled again", ["workflow"])
LOST_TASKS = Counter(
    "torpor_lost_tasks", "Mailboxes that nobody drained and the sweep sent a task for", ["workflow"]
)
GATEWAY_ERRORS = Counter("torpor_gateway_errors", "Requests that were refused or broke off", ["error"])
GATEWAY_RETRIES = Counter("torpor_gateway_retries", "Further attempts of requests", ["reason"])
GATEWAY_WAIT_SECONDS = Histogram(
    "torpor_gateway_wait_seconds", "Waits of requests for their actors", buckets=_SECONDS
)
RUNNER_SOCKETS = Gauge("torpor_runner_sockets", "Sockets of runners", multiprocess_mode="livesum")


class HotCounter:
    """A counter for the hot path of one event loop: `n += 1` and no more; carried over every second."""

    __slots__ = ("_counter", "_done", "n")

    def __init__(self, counter: Counter) -> None:
        self.n = 0
        self._done = 0
        self._counter = counter
        _hot.append(self)

    def flush(self) -> None:
        """Carry over what was counted since the last time."""
        new, self._done = self.n - self._done, self.n
        if new:
            self._counter.inc(new)


_hot: list[HotCounter] = []
_flusher: threading.Thread | None = None
_flushing = threading.Lock()

_requests = Counter("torpor_gateway_requests", "Requests that came to the gateway")
_frames = Counter("torpor_tunnel_frames", "Tunnel frames", ["direction"])
_bytes = Counter("torpor_tunnel_bytes", "Bytes of tunnel frames", ["direction"])
GATEWAY_REQUESTS = HotCounter(_requests)
FRAMES_TO_RUNNERS, FRAMES_FROM_RUNNERS = (HotCounter(_frames.labels(way)) for way in ("to_runner", "from_runner"))
BYTES_TO_RUNNERS, BYTES_FROM_RUNNERS = (HotCounter(_bytes.labels(way)) for way in ("to_runner", "from_runner"))


def start_flushing() -> None:
    """Have the hot counters of this process carried over; called by whoever begins to count."""
    global _flusher
    if _flusher is None or not _flusher.is_alive():
        _flusher = threading.Thread(target=_keep_flushing, name="metrics", daemon=True)
        _flusher.start()


def flush() -> None:
    """Carry all hot counters over now."""
    with _flushing:
        for counter in _hot:
            counter.flush()


def _keep_flushing() -> None:
    pause = threading.Event()
    while not pause.wait(FLUSH_SECONDS):
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
    flush()
    _bury_the_dead()
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    registry.register(_Sources())
    return generate_latest(registry)


def forget_all() -> None:
    """Delete the counts of processes that have ended; for when no process of the engine runs here."""
    for file in settings.METRICS_DIR.glob("*.db"):
        file.unlink(missing_ok=True)


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
