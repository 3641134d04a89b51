"""A whole engine on SQLite whose disk is full: every API says so, nothing acknowledged is lost, and it goes on."""

import resource
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support import valkey
from tests.support.api import wait_until
from tests.support.cluster import Cluster
from tests.support.endpoint import sdk_runner

pytestmark = [pytest.mark.e2e, pytest.mark.faults, pytest.mark.xdist_group("faults"), pytest.mark.timeout(200)]

AWAY = (503, "store_unavailable")
LARGEST_BYTES = 128 * 1024
"""Less than the database has, so that nothing of its log can be moved there; what else is written is shorter."""


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Cluster]:
    with tempfile.TemporaryDirectory(prefix="torpor-disk-") as home, valkey.running(Path(home)) as redis_url:
        url = f"sqlite:///{tmp_path / 'torpor.sqlite3'}"
        with Cluster(tmp_path, url, redis_url, "uvicorn", webs=1) as cluster:
            yield cluster


def limit(engine: Cluster, largest: int) -> None:
    """Let no file of the engine's processes grow beyond so many bytes; -1 for no limit."""
    for child in engine.children:
        _, hard = resource.prlimit(child.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(child.pid, resource.RLIMIT_FSIZE, (largest, hard))


def refusal(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, str(answer.json()["code"])


def test_a_full_disk_is_told_by_every_api_and_nothing_acknowledged_is_lost(engine, tmp_path):
    api = engine.api
    with sdk_runner(tmp_path, engine.urls[0], "sdk", 10) as runner:
        runner.wait("connected")
        actor_id = api.create_actor("sdk")
        count = api.call(actor_id, "/count").json()["durable"]
        new = {"name": "counter", "runner_name_selector": "sdk", "crash_policy": "sleep"}
        limit(engine, LARGEST_BYTES)
        wait_until(lambda: api.send("POST", "/actors", json=new).status_code != 200, lambda: "the disk is full")

        assert refusal(api.send("POST", "/actors", json=new)) == AWAY
        assert refusal(api.send("PUT", "/actors", json=new | {"key": "k"})) == AWAY
        assert refusal(api.send("POST", "/namespaces", json={"name": "n", "display_name": "n"})) == AWAY
        config = {"datacenters": {"default": {"normal": {}}}}
        assert refusal(api.send("PUT", "/runner-configs/other", json=config)) == AWAY
        assert api.call(actor_id).status_code == 200  # it is awake, and nothing is written for it
        assert (
            api.call(actor_id, "/count").status_code == 500
        )  # the application's own, which lets the error through
        limit(engine, resource.RLIM_INFINITY)

        wait_until(lambda: api.call(actor_id, "/count").status_code == 200, lambda: "the storage is back")
        assert api.call(actor_id, "/count").json()["durable"] > count
        assert api.send("POST", "/actors", json=new).status_code == 200
        assert api.call(api.create_actor("sdk")).status_code == 200
