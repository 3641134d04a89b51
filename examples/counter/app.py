"""A counter behind a serverless endpoint: an engine starts a runner here whenever somebody calls an actor.

python examples/counter/app.py --port 8700
"""

import argparse
import logging
import os
import sys
from pathlib import Path

import uvicorn

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # the checkout, where Torpor is not installed

from runners.sdk import Actor, Context, Request, Response, serverless_app


class Counter(Actor):
    """Counts the requests to it, over all its lives."""

    initial_state = {"count": 0}

    async def fetch(self, ctx: Context, request: Request) -> Response:
        """Count, or ask for sleep or for the end."""
        match request.path:
            case "/":
                ctx.state["count"] += 1
            case "/sleep":
                ctx.sleep()
            case "/destroy":
                ctx.destroy()
            case _:
                return Response.text("Not Found\n", status=404)
        return Response.json({"count": ctx.state["count"], "generation": ctx.generation})


app = serverless_app({"counter": Counter})


def main() -> None:
    """Serve until SIGTERM or Ctrl-C, then let the actors say goodbye."""
    parser = argparse.ArgumentParser(description="A counter behind a serverless endpoint.")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=int(os.environ.get("PORT", "8700")))
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # The engine's start requests are open as long as their runners live. After this second they are cut, and the
    # end of the app's lifespan drains the runners.
    uvicorn.run(app, host=options.host, port=options.port, log_level="warning", timeout_graceful_shutdown=1)


if __name__ == "__main__":
    main()
