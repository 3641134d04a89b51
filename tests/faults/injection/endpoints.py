"""Endpoints that treat the engine's `GET /start` badly."""

import asyncio

import httpx

from tests.faults.injection.site import Action, Hit, Site
from tests.faults.schedule import Fault

MODES = {
    "fails": "fail",
    "hangs": "hold",
    "ends early": "end",
    "cuts": "go",
    "answers nonsense": "nonsense",
    "never connects": "never",
    "connects to another pool": "stray",
    "connects to no namespace": "stranger",
}
"""By what it does: what the endpoint is told (`sdk_endpoint.py`)."""


def _treat(mode: str) -> Action:
    """Return the action that ends the runner's request, and has those that follow treated as the mode says."""

    async def act(site: Site, fault: Fault) -> Hit:
        endpoint = site.fleet.endpoint
        if not site.is_free(endpoint.name) or not endpoint.alive:
            return []
        with site.holding(endpoint.name):
            try:
                async with httpx.AsyncClient(base_url=f"{endpoint.url}/control", timeout=5) as control:
                    await control.post(f"/{mode}")
                    await control.post("/cut")
                    await asyncio.sleep(fault.seconds)
                    await control.post("/go")
            except httpx.HTTPError:
                return []  # it was just being started
        return [(endpoint.name, endpoint.pid)]

    return act


ACTIONS: dict[str, Action] = {f"endpoint {what}": _treat(mode) for what, mode in MODES.items()}
