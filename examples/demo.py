"""Puts an actor to sleep and wakes it: python examples/demo.py, while `manage.py up` runs.

It starts examples/counter, makes it known to the engine as a pool, and says what it asks and what comes back.
"""

import argparse
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

COUNTER = Path(__file__).with_name("counter") / "app.py"
POOL = "demo"
PATIENCE_SECONDS = 30.0


def main() -> None:
    parser = argparse.ArgumentParser(description="Put an actor to sleep and wake it.")
    parser.add_argument("--engine", default="http://127.0.0.1:6420", help="default: %(default)s")
    parser.add_argument("--token", help="the engine's admin token, if it has one")
    options = parser.parse_args()
    headers = {"authorization": f"Bearer {options.token}"} if options.token else {}
    with httpx.Client(base_url=options.engine, headers=headers, timeout=70) as engine:
        try:
            engine.get("/health")
        except httpx.TransportError as error:
            sys.exit(f"no engine at {options.engine} ({error}); start one with: make up")
        with application() as url:
            show(engine, url)


def show(engine: httpx.Client, url: str) -> None:
    print(f"A program that hosts counters listens at {url}. The engine gets to know it as a pool:")
    serverless = {"url": url, "request_lifespan": 300, "slots_per_runner": 10}
    ask(engine, "PUT", f"/runner-configs/{POOL}", {"datacenters": {"default": {"serverless": serverless}}})
    actor_id = None
    try:
        print("\nAn actor of that pool. There is no runner yet; the engine starts one:")
        body = {"name": "counter", "runner_name_selector": POOL, "crash_policy": "sleep"}
        actor_id = ask(engine, "POST", "/actors", body)["actor"]["actor_id"]
        ask(engine, "GET", f"/gateway/{actor_id}/")
        ask(engine, "GET", f"/gateway/{actor_id}/")
        print("\nIt asks to sleep. Then it costs nothing: no process, no connection:")
        ask(engine, "GET", f"/gateway/{actor_id}/sleep")
        wait_until(lambda: is_asleep(engine, actor_id))
        print("\nA request wakes it. It is the next generation, and counts on:")
        ask(engine, "GET", f"/gateway/{actor_id}/")
        print(f"\nThe engine can draw what happened: .venv/bin/python manage.py timeline {actor_id} --mermaid")
    finally:
        if actor_id is not None:
            engine.delete(f"/actors/{actor_id}", params={"namespace": "default"})
        engine.delete(f"/runner-configs/{POOL}", params={"namespace": "default"})


def ask(engine: httpx.Client, method: str, path: str, body: object = None) -> dict[str, Any]:
    """Send a request, show it with its answer, and return the answer."""
    params = {} if path.startswith("/gateway/") else {"namespace": "default"}
    print(f"  {method} {path}" + (f" {json.dumps(body)}" if body else ""))
    began = time.perf_counter()
    answer = engine.request(method, path, params=params, json=body)
    took_ms = (time.perf_counter() - began) * 1_000
    shown = answer.text if len(answer.text) < 200 else f"{answer.text[:200]}…"
    print(f"    {answer.status_code} in {took_ms:.0f} ms: {shown}")
    if not answer.is_success:
        sys.exit("that was not to be")
    return dict(answer.json())


def is_asleep(engine: httpx.Client, actor_id: str) -> bool:
    answer = engine.get("/actors", params={"namespace": "default", "actor_id": actor_id})
    [actor] = answer.raise_for_status().json()["actors"]
    return actor["sleep_ts"] is not None and actor["connectable_ts"] is None


@contextmanager
def application() -> Iterator[str]:
    """Run the counter on a free port and give its URL."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen([sys.executable, str(COUNTER), "--port", str(port)]) as process:
        try:
            wait_until(lambda: listens(url))
            yield url
        finally:
            process.terminate()


def listens(url: str) -> bool:
    try:
        httpx.get(url)
    except httpx.TransportError:
        return False
    return True


def wait_until(look: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not look():
        if time.monotonic() > deadline:
            sys.exit(f"nothing happened for {PATIENCE_SECONDS:g} s")
        time.sleep(0.02)


if __name__ == "__main__":
    main()
