"""`torpor-runner module:registry`, or `python -m runners.sdk`: host actors until told not to."""

import argparse
import asyncio
import importlib
import logging
import os
import sys
from collections.abc import Mapping, Sequence

from runners.sdk.actor import Actor, Registry
from runners.sdk.runner import Runner
from runners.sdk.session.reconnect import engine_endpoint


class Unusable(Exception):
    """What the command line names cannot be hosted."""


def load(target: str) -> Registry:
    """Return the actors that `module:name` stands for: a Registry, a mapping, or a single Actor class.

    Raises Unusable.
    """
    module_name, _, name = target.partition(":")
    try:
        found = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise  # it is there; what it imports is not
        raise Unusable(f"there is no module {module_name!r}") from None
    actors = getattr(found, name or "actors", None)
    if isinstance(actors, type) and issubclass(actors, Actor):
        return Registry({actors.__name__.lower(): actors})
    if not isinstance(actors, Registry | Mapping):
        raise Unusable(f"{module_name}:{name or 'actors'} is no Registry, mapping of names to actors, or Actor")
    try:
        registry = Registry(actors)
    except TypeError as error:
        raise Unusable(str(error)) from None
    if not registry.names:
        raise Unusable(f"there are no actors in {module_name}:{name or 'actors'}")
    return registry


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    command = argparse.ArgumentParser(prog="torpor-runner", description="Host actors until SIGTERM or Ctrl-C.")
    command.add_argument("actors", help="module:name of a Registry, a dict of actors, or an Actor class")
    command.add_argument("--pool", help="which pool to join (default: the name of the first actor)")
    endpoint = engine_endpoint(None, os.environ)
    command.add_argument("--endpoint", default=endpoint, help="the engine (TORPOR_ENDPOINT; now %(default)s)")
    namespace = os.environ.get("TORPOR_NAMESPACE", "default")
    command.add_argument("--namespace", default=namespace, help="TORPOR_NAMESPACE; now %(default)s")
    command.add_argument("--slots", type=int, default=100, help="how many actors fit (default: %(default)s)")
    command.add_argument("--version", type=int, default=1, help="of the actors' code (default: %(default)s)")
    command.add_argument("--log-level", default="INFO", help="default: %(default)s")
    command.epilog = "A token for the engine is taken from TORPOR_TOKEN."
    return command


def main(arguments: Sequence[str] | None = None) -> None:
    """Run; what cannot be hosted is an error with status 2."""
    command = parser()
    options = command.parse_args(arguments)
    logging.basicConfig(level=options.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    sys.path.insert(0, os.getcwd())
    try:
        registry = load(options.actors)
        runner = Runner(
            actors=registry,
            pool=options.pool or registry.names[0],
            endpoint=options.endpoint,
            namespace=options.namespace,
            total_slots=options.slots,
            version=options.version,
            token=os.environ.get("TORPOR_TOKEN"),
        )
    except (Unusable, ValueError) as error:
        command.error(str(error))
    asyncio.run(runner.run())


if __name__ == "__main__":
    main()
