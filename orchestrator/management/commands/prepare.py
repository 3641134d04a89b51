"""`manage.py prepare`: what the stores need before the engine starts on them. May run again and again."""

import os
import secrets
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import redis
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import IntegrityError, OperationalError

from orchestrator.redis import get_redis

ADMIN = "admin"


class Command(BaseCommand):
    """Bring the tables up to date, create the first administrator and see whether Redis answers."""

    help = "Bring the tables up to date, create the first administrator and see whether Redis answers."
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Where the first administrator's password goes."""
        parser.add_argument("--admin-password-file", type=Path, required=True)

    def handle(self, *_: Any, admin_password_file: Path, verbosity: int, **__: Any) -> None:
        """Migrate, then create the administrator if nobody is one. A store out of reach is an error."""
        try:
            call_command("migrate", interactive=False, verbosity=0 if verbosity < 2 else verbosity)
            _create_admin(admin_password_file)
        except OperationalError as error:
            raise CommandError(f"the database is out of reach: {error}") from None
        try:
            get_redis().ping()
        except redis.RedisError as error:
            raise CommandError(f"redis is out of reach: {error}") from None


def _create_admin(password_file: Path) -> None:
    users = get_user_model().objects
    if users.filter(is_superuser=True).exists():
        return
    if not password_file.exists():
        with open(os.open(password_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_urlsafe(15) + "\n")
    try:
        users.create_superuser(ADMIN, password=password_file.read_text().strip())
    except IntegrityError:
        raise CommandError(f"there is a user {ADMIN!r} who is no administrator") from None
