"""The one datacenter an engine of ours consists of (API §2)."""

from collections.abc import Iterable

from django.conf import settings

from orchestrator.errors import DatacenterNotFound

LABEL = 1
NAME = "default"


def datacenter_url() -> str:
    """Return how runners and clients reach it, with a trailing slash."""
    return f"{settings.ENV.public_url}/"


def check_datacenters(names: Iterable[str | None]) -> None:
    """Raise DatacenterNotFound for a name that is not ours; None asks for any."""
    if any(name not in (None, NAME) for name in names):
        raise DatacenterNotFound
