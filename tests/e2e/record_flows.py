"""Leads an engine through both flows of DESIGN §1 and writes what it recorded to docs/flows.md: `make flows`."""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path

import django

from tests.support import valkey
from tests.support.child import REPOSITORY
from tests.support.cluster import Arrow, Cluster
from tests.support.endpoint import Endpoint, node_endpoint
from tests.support.flows import (
    END_OF_STREAM,
    IDEAL,
    LOST,
    RESPONSE,
    RETRIED,
    Flow,
    laid_out,
    lead_messy_flow,
    messy,
    path,
    recorded_as,
)
from tests.support.stories import sleeping_actor

PAGE = REPOSITORY / "docs" / "flows.md"
ATTEMPTS = 5

TEXT = """\
# The two flows, as recorded

Drawn by the engine from its own timeline (`manage.py timeline ACTOR --mermaid`) while it led an actor on the
npm client 2.2.1 through them; `make flows` does it again. The end-to-end tests compare every arrow with what
is written down in `tests/support/flows.py`.

## Ideal: a request to an actor that sleeps, and no runner is there

```mermaid
{ideal}```

## Messy: everything at once, and no user sees an error

The actor sleeps, and there is no runner.

1. A user calls `/sleep`: the actor is woken as above, says that it wants to sleep, and answers.
2. Another one calls `/sleep` at the same time. That request goes through the tunnel too, and a second intent
   comes.
3. The first intent has the actor stopped; the second one is ignored. The stop takes 1.5 s.
4. A third user calls meanwhile. The wake is deferred until the actor has stopped.
5. It has stopped: the deferred wake starts it at once; the gateway, told that it stopped, tries its wake
   again, which is ignored. The request reaches the actor, and is not answered.
6. The pool is told to have no runner any more: the runner is to stop, the actor on it is told to and does
   not. After the grace the runner is evicted, and the actor is lost with it. The gateway, told that it
   stopped, tries its wake again.
7. The pool may have a runner again: a second runner is started and answers the one request, which was the
   user's only one.
8. A last call to `/sleep`: the actor stops, and its runner, now idle, is let go.

```mermaid
{messy}```
"""


def main() -> None:
    """Lead both flows and write the page."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "orchestrator.settings")
    django.setup()
    with tempfile.TemporaryDirectory(prefix="torpor-flows-") as temporary, valkey.running() as redis_url:
        directory = Path(temporary)
        with (
            Cluster(directory, f"sqlite:///{directory}/torpor.sqlite3", redis_url) as cluster,
            node_endpoint(directory) as endpoint,
        ):
            ideal, messy = lead_ideal(cluster, endpoint), lead_messy(cluster, endpoint)
    PAGE.write_text(TEXT.format(ideal=picture(ideal), messy=picture(messy)))


def lead_ideal(cluster: Cluster, endpoint: Endpoint) -> list[Arrow]:
    """Return what is recorded of the ideal flow."""
    cluster.api.put_serverless_pool("ideal", endpoint.url)
    actor_id = sleeping_actor(cluster, endpoint, "ideal")
    earlier = len(cluster.wait_recorded(actor_id, END_OF_STREAM[0]))
    assert cluster.api.call(actor_id).status_code == 200
    return checked(IDEAL, cluster.wait_recorded(actor_id, RESPONSE[0], since=earlier))


def lead_messy(cluster: Cluster, endpoint: Endpoint) -> list[Arrow]:
    """Return what is recorded of the messy flow, in a run in which the gateway had to try its wake again."""
    for attempt in range(ATTEMPTS):
        run = lead_messy_flow(cluster, endpoint, f"messy-{attempt}")
        recorded = checked(messy(LOST), run.recorded)
        if RETRIED[0] in map(path, recorded):
            return recorded
    raise AssertionError(f"in {ATTEMPTS} runs the actor was always awake before the gateway looked")


def checked(flow: Flow, recorded: list[Arrow]) -> list[Arrow]:
    """Return the record if it is the flow."""
    assert recorded_as(flow, recorded) == laid_out(flow), recorded
    return recorded


def picture(recorded: Sequence[Arrow]) -> str:
    """Return the source of the diagram."""
    from orchestrator.models import TimelineEntry  # models can be imported once Django is set up
    from orchestrator.pictures import mermaid

    names = ("source", "target", "via", "label", "generation")
    return mermaid([TimelineEntry(**{name: arrow[name] for name in names}) for arrow in recorded])


if __name__ == "__main__":
    main()
