"""`manage.py pools`: configure pools, look at them, empty them."""

from argparse import ArgumentParser
from datetime import timedelta
from typing import Any

from django.core.management.base import CommandError

from orchestrator.namespaces import find_namespace
from orchestrator.verbs import LIMIT, Verbs
from runners import configs
from runners.models import RunnerConfig
from runners.operations import drain_runner
from runners.selectors import config_json, list_configs, list_configs_by_name, list_runners

COLUMNS = ("name", "kind", "url", "slots_per_runner", "max_runners", "desired", "error")
HIDDEN = "(hidden)"
MOST = 100_000


class Command(Verbs):
    """Pools of one namespace, which the API calls runner configs."""

    help = "List, show, create, drain and destroy pools."

    def declare(self, verb: str, parser: ArgumentParser) -> None:
        """Declare the arguments of one verb."""
        if verb == "list":
            parser.add_argument("--kind", choices=RunnerConfig.Kind.values)
            parser.add_argument("--limit", type=int, default=LIMIT, help="at most so many (default: %(default)s)")
            return
        parser.add_argument("pool", help="the pool's name")
        if verb == "create":
            parser.add_argument("--url", help="its endpoint, if the engine is to start its runners")
            parser.add_argument(
                "--header", action="append", default=[], metavar="NAME:VALUE", help="told the endpoint"
            )
            parser.add_argument("--request-lifespan", type=float, default=900, metavar="SECONDS")
            parser.add_argument("--drain-grace", type=float, metavar="SECONDS")
            parser.add_argument("--slots-per-runner", type=int, default=1)
            parser.add_argument("--min-runners", type=int, default=0)
            parser.add_argument("--max-runners", type=int, default=1000)
            parser.add_argument("--runners-margin", type=int, default=0)

    def do_list(self, options: dict[str, Any]) -> None:
        """List pools by name."""
        rows = list_configs(
            namespace=find_namespace(options["namespace"]),
            kind=options["kind"],
            limit=options["limit"],
            after=None,
        )
        self.show_list([_shown(row) for row in rows], COLUMNS)

    def do_show(self, options: dict[str, Any]) -> None:
        """Show one pool; the values of its headers stay hidden."""
        self.show(_shown(self._pool(options)))

    def do_create(self, options: dict[str, Any]) -> None:
        """Configure a pool, or replace its configuration."""
        configs.upsert_config(
            namespace=find_namespace(options["namespace"]), name=options["pool"], wanted=_settings(options)
        )
        self.do_show(options)

    def do_drain(self, options: dict[str, Any]) -> None:
        """Drain all runners of a pool."""
        rows = list_runners(
            namespace=find_namespace(options["namespace"]),
            name=options["pool"],
            include_stopped=False,
            limit=MOST,
            after=None,
        )
        runners = {row.pk: row for row in rows}
        self.work_through(list(runners), "told to drain", lambda id_: drain_runner(runners[id_]))

    def do_destroy(self, options: dict[str, Any]) -> None:
        """Remove a pool's configuration. Its actors stay; runners the engine has started are drained."""
        pool = self._pool(options)
        namespace = pool.namespace
        self.work_through(
            [pool.name], "removed", lambda name: configs.delete_config(namespace=namespace, name=name)
        )

    def _pool(self, options: dict[str, Any]) -> RunnerConfig:
        rows = list_configs_by_name(namespace=find_namespace(options["namespace"]), names=[options["pool"]])
        if not rows:
            raise CommandError(f"there is no pool {options['pool']!r} in this namespace")
        return rows[0]


def _settings(options: dict[str, Any]) -> configs.PoolSettings:
    if options["url"] is None:
        return configs.PoolSettings(kind=RunnerConfig.Kind.NORMAL)
    grace = options["drain_grace"]
    return configs.PoolSettings(
        kind=RunnerConfig.Kind.SERVERLESS,
        url=options["url"],
        headers=dict(_header(text) for text in options["header"]),
        request_lifespan=timedelta(seconds=options["request_lifespan"]),
        drain_grace_period=None if grace is None else timedelta(seconds=grace),
        slots_per_runner=options["slots_per_runner"],
        min_runners=options["min_runners"],
        max_runners=options["max_runners"],
        runners_margin=options["runners_margin"],
    )


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon:
        raise CommandError("a header is NAME:VALUE")
    return name.strip(), value.strip()


def _shown(row: RunnerConfig) -> dict[str, Any]:
    shown: dict[str, Any] = config_json(row)[row.kind]
    if "headers" in shown:
        shown["headers"] = dict.fromkeys(shown["headers"], HIDDEN)
    fixed = {"name": row.name, "kind": row.kind, "url": None, "slots_per_runner": None, "max_runners": None}
    return fixed | shown | {"desired": row.desired, "error": row.error}
