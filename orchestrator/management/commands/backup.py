"""`manage.py backup FILE`: a copy of the SQLite database, taken while the engine runs (docs/reliability.md)."""

import sqlite3
from argparse import ArgumentParser
from contextlib import closing
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import connection

PAGES = 1_000
"""So many are copied at a time; writers go on in between, and SQLite copies again what they change."""


class Command(BaseCommand):
    """Writes one file that is whole: what was committed when it was finished, and nothing by halves."""

    help = "Copy the SQLite database to a new file, while the engine runs. PostgreSQL has pg_dump."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take the name of the file."""
        parser.add_argument("file", type=Path)

    def handle(self, *args: Any, file: Path, **options: Any) -> None:
        """Copy, then give the copy its name: a copy that was broken off has another."""
        if connection.vendor != "sqlite":
            raise CommandError("this engine's database is PostgreSQL: use pg_dump, and pg_restore")
        if file.exists():
            raise CommandError(f"{file} exists already")
        unfinished = file.with_name(f"{file.name}.unfinished")
        unfinished.unlink(missing_ok=True)
        name = str(connection.settings_dict["NAME"])
        with (
            closing(sqlite3.connect(f"{Path(name).resolve().as_uri()}?mode=ro", uri=True)) as source,
            closing(sqlite3.connect(unfinished)) as copy,
        ):
            source.backup(copy, pages=PAGES)
            copy.execute("PRAGMA journal_mode=DELETE")  # one file, without a log beside it
        unfinished.rename(file)
        self.stdout.write(f"{file}: {file.stat().st_size} bytes")
