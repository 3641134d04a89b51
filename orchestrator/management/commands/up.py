"""`manage.py up`: the whole engine on one machine, in the foreground (DESIGN §8).

Each child runs the same command an operator would run by hand, with the same environment variables:

    valkey      the embedded store, unless REDIS_URL names another
    prepare     once: migrations and the first administrator
    web         manage.py serve
    connector   manage.py runworker serverless
    worker      python -m celery -A orchestrator.celery worker …
    sweeper     manage.py sweeper
"""

import asyncio
import os
import secrets
import signal
import sys
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.core.management.color import supports_color

from orchestrator import embedded
from orchestrator.console import Console
from orchestrator.server import SERVERS
from orchestrator.server.listening import PortInUse, bind
from orchestrator.supervisor import BootFailed, ChildSpec, Supervisor

READY_SECONDS = 60.0
HEALTH_SECONDS = 5.0  # one question, which asks a worker in turn
# Whether to run as root is the user's business, and said once more by Celery at every start.
WORKER = (
    *("-W", "ignore:You're running the worker with superuser privileges"),
    *("-m", "celery", "--app=orchestrator.celery", "--quiet", "worker"),
    *("--pool=solo", "--concurrency=1", "--queues=torpor", "--loglevel=INFO"),
    *("--without-gossip", "--without-mingle", "--without-heartbeat"),
)


@dataclass(frozen=True, slots=True)
class Plan:
    """What `up` was asked for."""

    host: str
    port: int
    server: str
    workers: int
    state: Path

    @property
    def url(self) -> str:
        """Where this machine reaches the web process."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(self.host, self.host)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    @property
    def password_file(self) -> Path:
        """Where the first administrator's password is kept."""
        return self.state / "admin_password"

    def environment(self) -> dict[str, str]:
        """Return what the children find in their environment beside what we found in ours."""
        chosen = {"TORPOR_STATE": str(self.state), "TORPOR_HOST": self.host}
        if "public_url" not in settings.ENV.model_fields_set:
            chosen["TORPOR_PUBLIC_URL"] = self.url
        return chosen

    def prepare(self) -> ChildSpec:
        """The child that makes the database ready."""
        return ChildSpec("prepare", _manage("prepare", "--admin-password-file", str(self.password_file)))

    def store(self) -> ChildSpec:
        """The embedded Valkey. It is stopped last, and told to save when we are killed."""
        command = embedded.prepare_valkey(self.state)
        return ChildSpec("valkey", command, stage=4, death_signal=signal.SIGTERM)

    def engine(self) -> list[ChildSpec]:
        """The processes of the engine."""
        listen_at = ("--host", self.host, "--port", str(self.port), "--server", self.server)
        names = ["worker"] if self.workers == 1 else [f"worker{number + 1}" for number in range(self.workers)]
        return [
            ChildSpec("web", _manage("serve", *listen_at), stage=0),
            ChildSpec("connector", _manage("runworker", "serverless"), stage=1),
            *(ChildSpec(name, (sys.executable, *WORKER, f"--hostname={name}@%h"), stage=2) for name in names),
            ChildSpec("sweeper", _manage("sweeper"), stage=3),
        ]


class Command(BaseCommand):
    """Run the engine until Ctrl-C or SIGTERM; a second Ctrl-C kills it at once."""

    help = "Run the whole engine on this machine: stores, web, workers, connector, sweeper."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Where to listen, where to keep things, and how many workers."""
        parser.add_argument(
            "--host", default=settings.ENV.host, help="address to listen on (default: %(default)s)"
        )
        parser.add_argument("--port", type=_port, default=6420, help="default: %(default)s")
        parser.add_argument("--state", type=Path, help="directory of the embedded stores (default: .torpor)")
        parser.add_argument("--server", choices=sorted(SERVERS), default="daphne", help="default: %(default)s")
        parser.add_argument("--workers", type=_at_least_one, default=1, help="Celery workers (default: 1)")

    def handle(self, *_: Any, **options: Any) -> None:
        """Run; a state directory or port in use and a failed boot are errors with status 1."""
        state = (options["state"] or settings.STATE_DIR).resolve()
        plan = Plan(options["host"], options["port"], options["server"], options["workers"], state)
        color = options["force_color"] or (supports_color() and not options["no_color"])
        trouble = settings.ENV.exposure(plan.host) or _listening_trouble(plan)
        if trouble and not state.exists():
            raise CommandError(trouble)
        try:
            embedded.make_state(state)
            with embedded.locked(state):
                if trouble:
                    raise CommandError(trouble)
                _make_secret_key(state)
                code = asyncio.run(_Run(plan, Console(self.stdout, color), os.environ).run())
        except (embedded.StateTaken, embedded.NoEmbeddedServer, BootFailed) as error:
            raise CommandError(str(error)) from None
        except OSError as error:
            raise CommandError(f"cannot use the state directory {state}: {error}") from None
        sys.exit(code)


class _Run:
    """One life of the engine."""

    def __init__(self, plan: Plan, console: Console, environment: Mapping[str, str]) -> None:
        self._plan = plan
        self._console = console
        self._supervisor = Supervisor(console.line, {**environment, **plan.environment()}, settings.BASE_DIR)
        self._ask_to_stop = asyncio.Event()
        self._health = "no answer yet"

    async def run(self) -> int:
        """Boot, stay until asked to stop, stop; return the exit code. Raises BootFailed."""
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, self._on_signal)
        boot = asyncio.create_task(self._boot())
        asked = asyncio.create_task(self._ask_to_stop.wait())
        killed = False
        try:
            await asyncio.wait({boot, asked}, return_when=asyncio.FIRST_COMPLETED)
            if not asked.done():
                boot.result()
            await asked
        finally:
            boot.cancel()
            asked.cancel()
            self._console.line("up", "stopping")
            killed = await self._supervisor.stop()
        return 130 if killed else 0

    def _on_signal(self) -> None:
        if self._ask_to_stop.is_set():
            self._supervisor.kill()
        self._ask_to_stop.set()

    async def _boot(self) -> None:
        first_run = not self._plan.password_file.exists()
        if not settings.ENV.redis_url:
            await self._start_store()
        if await self._supervisor.run(self._plan.prepare()) != 0:
            raise BootFailed("the stores could not be made ready")
        embedded.forget_counts(settings.ENV.metrics or self._plan.state / "metrics")
        for spec in self._plan.engine():
            self._supervisor.start(spec)
        try:
            await self._supervisor.until(self._is_healthy, READY_SECONDS)
        except BootFailed as error:
            raise BootFailed(f"{error} (/health: {self._health})") from None
        self._console.text(_welcome(self._plan, first_run))

    async def _start_store(self) -> None:
        self._supervisor.start(self._plan.store())
        socket = embedded.redis_socket(self._plan.state)
        if socket.parent != self._plan.state:
            self._console.line(
                "up", f"the state directory's path is too long for a socket, Valkey listens in {socket}"
            )
        await self._supervisor.until(lambda: embedded.answers(socket), READY_SECONDS)

    async def _is_healthy(self) -> bool:
        status, self._health = await asyncio.to_thread(_ask_for_health, self._plan.url)
        return status == HTTPStatus.OK


def _ask_for_health(url: str) -> tuple[int, str]:
    """Return status and body of the answer; 0 and why if there is none. Without httpx, which takes 14 MB."""
    place = urlsplit(url)
    connection = HTTPConnection(place.hostname or "", place.port, timeout=HEALTH_SECONDS)
    try:
        connection.request("GET", "/health")
        answer = connection.getresponse()
        return answer.status, answer.read().decode(errors="replace")
    except (OSError, HTTPException) as error:
        return 0, str(error) or type(error).__name__
    finally:
        connection.close()


def _welcome(plan: Plan, first_run: bool) -> str:
    pages = [f"  engine  {plan.url}", f"  admin   {plan.url}/admin/", f"  console {plan.url}/console/"]
    lines = ["Torpor is ready.", "", *pages]
    if plan.password_file.exists():
        password = plan.password_file.read_text().strip() if first_run else f"(in {plan.password_file})"
        lines.append(f"  login   admin / {password}")
    next_step = "make demo" if plan.port == 6420 else f"make demo ARGS='--engine {plan.url}'"
    lines += [f"  state   {plan.state}", "", f"  next    {next_step}   wakes an actor, in another terminal", ""]
    return "\n".join(lines)


def _listening_trouble(plan: Plan) -> str | None:
    """Return why we could not listen there, None if we could."""
    try:
        with bind(plan.host, plan.port) as listener:
            listener.listen()  # somebody may boot there already
    except PortInUse as error:
        return f"{error}, choose another with --port"
    except OSError as error:
        return f"cannot listen on {plan.host} port {plan.port}: {error.strerror or error}"
    return None


def _make_secret_key(state: Path) -> None:
    """Store a key for the children to find, unless the environment has one."""
    stored = state / "secret_key"
    if not settings.ENV.secret_key and not stored.exists():
        with open(os.open(stored, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(50))


def _manage(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, str(settings.BASE_DIR / "manage.py"), *arguments)


def _port(text: str) -> int:
    port = int(text)
    if not 1 <= port <= 65_535:
        raise ArgumentTypeError("must be from 1 to 65535")
    return port


def _at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ArgumentTypeError("must be at least 1")
    return number
