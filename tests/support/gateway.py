"""What tests of the gateway look at: its refusals, and what it still holds."""

from typing import Any

import httpx

NOTHING = {"inboxes": 0, "exchanges": 0, "listeners": 0, "users": 0}


def refusal(answer: httpx.Response) -> tuple[int, str]:
    """Return status and `group.code` of an answer that must be a refusal of the gateway."""
    body = answer.json()
    code = f"{body['group']}.{body['code']}"
    assert answer.headers["x-rivet-error"] == code
    assert answer.headers["content-type"] == "application/json"
    assert len(answer.headers["x-rivet-ray-id"]) == 30
    return answer.status_code, code


def count_held() -> dict[str, int]:
    """Count what the gateway of this loop has not let go of: `NOTHING` once every request is over."""
    from gateway.hub import open_hub

    hub: Any = open_hub()
    watches = [] if hub is None else list(hub.watches._watches.values())
    return {
        "inboxes": 0 if hub is None else len(hub._inboxes),
        "exchanges": sum(len(watch.exchanges) for watch in watches),
        "listeners": sum(len(watch.listeners) for watch in watches),
        "users": sum(watch.users for watch in watches),
    }
