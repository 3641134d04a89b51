"""Clients' WebSockets that outlive their actors' lives: which they are, and whose gateway vouches for them.

A StartActor lists the pairs (gateway id, request id) of its actor's WebSockets (PROTOCOL §5.6). A row is there for
as long as a WebSocket that may hibernate is open, so that a start at any moment finds it.
"""

from django.db import models


class GatewayLease(models.Model):
    """A gateway process that holds WebSockets which may hibernate. It renews its lease; a dead one lapses."""

    id = models.CharField(primary_key=True, max_length=8, editable=False)  # the gateway id, in hex
    expires_at = models.DateTimeField(db_index=True)

    def __str__(self) -> str:
        return self.id


class HibernatingPair(models.Model):
    """A WebSocket that may hibernate. `leaving`: its client has left; it is listed once more, to be told so."""

    actor_id = models.CharField(max_length=30, db_index=True)
    gateway_id = models.CharField(max_length=8)
    request_id = models.CharField(max_length=8)
    leaving = models.BooleanField(default=False)

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["gateway_id", "request_id"], name="hibernating_pair_is_one_socket"),
        ]

    def __str__(self) -> str:
        return f"{self.gateway_id}-{self.request_id}"
