"""`manage.py serve`: one web process."""

from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from orchestrator.server import SERVERS, serve
from orchestrator.server.limits import Pings
from orchestrator.server.listening import PortInUse


class Command(BaseCommand):
    """Serve HTTP and WebSockets until SIGTERM or SIGINT."""

    help = "Serve HTTP and WebSockets until SIGTERM or SIGINT."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Where to listen, and by what."""
        parser.add_argument("--host", default=settings.ENV.host, help="default: TORPOR_HOST, or %(default)s")
        parser.add_argument("--port", type=int, default=6420)
        parser.add_argument("--server", choices=sorted(SERVERS), default="daphne")

    def handle(self, *_: Any, host: str, port: int, server: str, **__: Any) -> None:
        """Serve; a port in use, or a host where everybody could come in, is an error with status 1."""
        if trouble := settings.ENV.exposure(host):
            raise CommandError(trouble)
        if settings.ENV.auth_required and not settings.SECRET_KEY_LASTS:
            raise CommandError(settings.NO_SECRET_KEY)
        settings.ENV = settings.ENV.model_copy(update={"host": host})
        env = settings.ENV
        pings = Pings(env.websocket_ping_ms / 1000, env.websocket_pong_ms / 1000)
        try:
            serve(host, port, server, body_bytes=env.gateway_body_bytes, pings=pings if pings.interval else None)
        except PortInUse as error:
            raise CommandError(str(error)) from error
        except OSError as error:
            raise CommandError(f"cannot listen on {host} port {port}: {error.strerror or error}") from error
