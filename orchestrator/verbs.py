"""What the commands for people have in common: verbs, tables and JSON, work on many rows at once.

A command is a class with a method per verb. Everything goes through the services that the API uses.
"""

import json
import sys
import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import UTC, datetime
from typing import Any, TextIO

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import connection

from orchestrator.errors import OrchestratorError
from orchestrator.namespaces import DEFAULT

AT_ONCE = 8
"""Rows that are worked on at the same time."""
LIMIT = 100
PROGRESS_SECONDS = 0.1
_BAR = 30


class Verbs(BaseCommand):
    """`manage.py NOUN VERB …`; the method of a verb is `do_VERB`, and `declare` says what it takes."""

    requires_system_checks: list[str] = []
    in_namespace = True
    """Whether the verbs are about what belongs to a namespace."""

    def add_arguments(self, parser: CommandParser) -> None:
        """Declare the verbs, each with the options all have."""
        verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=CommandParser)
        for name in sorted(
            attribute.removeprefix("do_") for attribute in dir(self) if attribute.startswith("do_")
        ):
            help_line = (getattr(self, f"do_{name}").__doc__ or "").splitlines()[0].rstrip(".")
            verb = verbs.add_parser(name, help=help_line, description=help_line)
            if self.in_namespace:
                verb.add_argument("--namespace", default=DEFAULT, help="its name (default: %(default)s)")
            verb.add_argument("--json", action="store_true", help="print JSON")
            self.declare(name, verb)

    def declare(self, verb: str, parser: ArgumentParser) -> None:
        """Declare the arguments of one verb."""

    def handle(self, *args: Any, **options: Any) -> None:
        """Do what the verb says; what the engine refuses ends with its code and status 1."""
        self.as_json: bool = options["json"]
        try:
            getattr(self, f"do_{options['verb']}")(options)
        except OrchestratorError as error:
            raise CommandError(told(error)) from None

    def show(self, value: Mapping[str, Any]) -> None:
        """Print one object, a line per field."""
        if self.as_json:
            return self._print_json(value)
        width = max(len(name) for name in value)
        for name, field in value.items():
            self.stdout.write(f"{name:<{width}}  {_cell(name, field)}".rstrip())
        return None

    def show_list(self, rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
        """Print objects: as a table of some columns, or whole as JSON."""
        if self.as_json:
            return self._print_json(rows)
        for line in table([columns, *([_cell(name, row[name]) for name in columns] for row in rows)]):
            self.stdout.write(line)
        return None

    def work_through(self, ids: Sequence[str], done: str, act: Callable[[str], None]) -> None:
        """Do something to many rows, several at a time, and say how far it is; one that fails stops no other.

        `done` is what has then happened to each, as in "17 destroyed".
        """
        failed: dict[str, str] = {}
        with Progress(len(ids), done, sys.stderr) as progress, ThreadPoolExecutor(AT_ONCE) as threads:
            running = {threads.submit(_in_thread, act, id_): id_ for id_ in ids}
            for future in as_completed(running):
                error = future.exception()
                if error is not None:
                    failed[running[future]] = told(error)
                progress.step()
        if self.as_json:
            self._print_json([{"id": id_, "ok": id_ not in failed, "error": failed.get(id_)} for id_ in ids])
        else:
            self.stdout.write(f"{len(ids) - len(failed)} {done}")
        if failed:
            raise CommandError("\n".join(f"{id_}: {why}" for id_, why in sorted(failed.items())))

    def _print_json(self, value: Any) -> None:
        self.stdout.write(json.dumps(value, indent=2, ensure_ascii=False))


class Progress:
    """A bar on a terminal; elsewhere nothing."""

    def __init__(self, total: int, done: str, output: TextIO) -> None:
        self._total, self._done_word, self._output = total, done, output
        self._shown = output.isatty() and total > 1
        self._count = 0
        self._drawn_at = 0.0

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            self._draw()
            self._output.write("\n")

    def step(self) -> None:
        """Count one more."""
        self._count += 1
        if self._shown and time.monotonic() - self._drawn_at >= PROGRESS_SECONDS:
            self._draw()

    def _draw(self) -> None:
        self._drawn_at = time.monotonic()
        filled = _BAR * self._count // self._total
        bar = "#" * filled + "." * (_BAR - filled)
        self._output.write(f"\r[{bar}] {self._count}/{self._total} {self._done_word}")
        self._output.flush()


def add_choice(parser: ArgumentParser, noun: str, filters: Mapping[str, str]) -> None:
    """Declare which rows are meant: ids, or all that some filters (name and help) leave."""
    parser.add_argument("ids", nargs="*", metavar=noun.upper(), help=f"ids of {noun}s")
    parser.add_argument("--all", action="store_true", help=f"all {noun}s that the filters leave, instead of ids")
    add_filters(parser, filters)


def add_filters(parser: ArgumentParser, filters: Mapping[str, str]) -> None:
    """Declare filters, by name and help."""
    for name, help_line in filters.items():
        parser.add_argument(f"--{name}", help=help_line)


def chosen(options: Mapping[str, Any], filters: Iterable[str]) -> list[str] | None:
    """Return the ids that were given, None if all are meant. CommandError for neither, and for both."""
    ids: list[str] = list(dict.fromkeys(options["ids"]))
    filtered = any(options[name] is not None for name in filters)
    if options["all"] and not ids:
        return None
    if not ids or options["all"] or filtered:
        raise CommandError("give either ids, or --all and whatever filters")
    return ids


def table(lines: Iterable[Sequence[str]]) -> list[str]:
    """Return lines of cells as text in columns."""
    cells = [list(line) for line in lines]
    widths = [max(len(cell) for cell in column) for column in zip(*cells, strict=True)]
    return [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells
    ]


def told(error: BaseException) -> str:
    """Return an error in a line: its code, what it says, and the facts."""
    if not isinstance(error, OrchestratorError):
        return str(error) or type(error).__name__
    facts = ", ".join(f"{name}={value}" for name, value in error.metadata.items())
    return f"{error.group}.{error.code}: {error.message}" + (f" ({facts})" if facts else "")


def _in_thread(act: Callable[[str], None], id_: str) -> None:
    try:
        act(id_)
    finally:
        connection.close()


def _cell(name: str, value: Any) -> str:
    if value is None:
        return "-"
    if name.endswith("_ts") and isinstance(value, int):
        return f"{datetime.fromtimestamp(value / 1000, UTC):%Y-%m-%d %H:%M:%S}"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
