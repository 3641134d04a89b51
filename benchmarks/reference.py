"""The reference engine beside ours: its npm package, at its best (data in memory, no load shedding)."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx

from benchmarks.engine import Engine, RunnerKind, start_applications
from tests.support.api import Api, wait_until
from tests.support.child import Child
from tests.support.npm import package_directory
from tests.support.processes import free_port

NAME = "reference"
PACKAGE, RELEASE = "@rivetkit/engine-cli", "2.3.19"
MEMORY = Path("/dev/shm")


@contextmanager
def running(runner: RunnerKind) -> Iterator[Engine]:
    """Run the reference engine, with actors in Python or in Node."""
    directory = Path(tempfile.mkdtemp(prefix="torpor-reference-", dir=MEMORY if MEMORY.is_dir() else None))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, directory)
        ports = {service: free_port() for service in ("guard", "api_peer", "metrics")}
        url = f"http://127.0.0.1:{ports['guard']}"
        home = {"name": "default", "datacenter_label": 1, "is_leader": True, "public_url": url}
        home["peer_url"] = f"http://127.0.0.1:{ports['api_peer']}"
        config = {service: {"host": "127.0.0.1", "port": port} for service, port in ports.items()} | {
            "file_system": {"path": str(directory / "data")},
            "runtime": {"worker_cpu_max": 100_000},
            "telemetry": {"enabled": False},
            "topology": {"datacenter_label": 1, "datacenters": [home]},
        }
        settings = directory / "config.json"
        settings.write_text(json.dumps(config))
        command = [str(_binary()), "--config", str(settings), "start"]
        child = Child(NAME, command, directory / "engine.log", {"HOME": str(directory)})
        stack.callback(child.kill)
        child.start()
        api = stack.enter_context(Api(url))
        wait_until(lambda: _answers(child, url), lambda: f"the reference engine answers:\n{child.output()}", 60)
        endpoint, long_lived = start_applications(stack, directory, runner, api, [url])
        roles: dict[str, list[Child]] = {"web": [child], "worker": [], "stores": []}
        yield Engine(NAME, [url], api, endpoint.url, roles | {"runner": [endpoint, *long_lived]})


def _binary() -> Path:
    packages = package_directory(PACKAGE, RELEASE) / "node_modules" / PACKAGE.partition("/")[0]
    [found] = [path for path in packages.glob("*/rivet-engine*") if os.access(path, os.X_OK)]
    return found


def _answers(child: Child, url: str) -> bool:
    assert child.alive, f"the reference engine has ended:\n{child.output()}"
    try:
        return bool(httpx.get(f"{url}/namespaces", params={"name": "default"}, timeout=5).json()["namespaces"])
    except (httpx.TransportError, ValueError, KeyError):
        return False
