"""Who may see the console."""

from typing import Any


def may_watch(user: Any) -> bool:
    """Say whether a user may see the console: staff who may see actors and runners."""
    allowed = user.is_active and user.is_staff
    return bool(allowed and user.has_perms(("actors.view_actor", "runners.view_runner")))
