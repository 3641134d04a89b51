"""The smallest actor on the Python SDK: `/` answers two bytes, `/sleep` also asks for sleep, a WebSocket echoes.

    python benchmarks/runner_app.py --endpoint http://127.0.0.1:6420 --pool bench --slots 500    a runner
    python benchmarks/runner_app.py --port 0                                     an endpoint that starts runners

Says `{"event": "connected"}`, or `{"event": "listening", "port": …}`, once it is ready.
"""

import argparse
import asyncio
import json
import socket
import sys
from pathlib import Path

import uvicorn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from runners.sdk import Actor, Context, Request, Response, Runner, WebSocket, serverless_app


class Small(Actor):
    """Answers `ok`, and echoes."""

    async def fetch(self, ctx: Context, request: Request) -> Response:
        if request.path == "/sleep":
            ctx.sleep()
        return Response(body=b"ok")

    async def websocket(self, ctx: Context, socket: WebSocket) -> None:
        async for message in socket:
            await socket.send(message)


ACTORS = {"counter": Small}


def say(event: str, **fields: object) -> None:
    print(json.dumps({"event": event} | fields), flush=True)


async def be_a_runner(endpoint: str, pool: str, slots: int) -> None:
    runner = Runner(actors=ACTORS, endpoint=endpoint, pool=pool, total_slots=slots)
    await runner.start()
    await runner.wait_ready()
    say("connected")
    await runner.run()


def serve(port: int) -> None:
    listener = socket.create_server(("127.0.0.1", port))
    say("listening", port=listener.getsockname()[1])
    config = uvicorn.Config(serverless_app(ACTORS), log_level="warning", timeout_graceful_shutdown=1)
    uvicorn.Server(config).run(sockets=[listener])


def main() -> None:
    parser = argparse.ArgumentParser(description="The smallest actor on the Python SDK.")
    parser.add_argument("--endpoint", help="connect to this engine instead of waiting to be called")
    parser.add_argument("--pool", default="bench")
    parser.add_argument("--slots", type=int, default=500)
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    if options.endpoint is None:
        serve(options.port)
    else:
        asyncio.run(be_a_runner(options.endpoint, options.pool, options.slots))


if __name__ == "__main__":
    main()
