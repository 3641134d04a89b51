"""The rows of actors' key-value storage (PROTOCOL §6)."""

from django.db import models

VERSION_CHARS = 32


class ActorStorage(models.Model):
    """The account of one actor's storage; there is none until its first put.

    `used_bytes` changes with the entries in one transaction, under the lock of the actor's row, and is exactly
    what they amount to. With `erase_at` set, the actor is destroyed and its entries are on their way out.
    """

    actor = models.OneToOneField("actors.Actor", on_delete=models.CASCADE, primary_key=True)
    used_bytes = models.PositiveBigIntegerField(default=0)
    erase_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        indexes = [
            models.Index(
                fields=["erase_at"], name="storage_erasure_due", condition=models.Q(erase_at__isnull=False)
            ),
        ]

    def __str__(self) -> str:
        return f"storage of {self.pk}"


class StoredEntry(models.Model):
    """One value under one key. Both stores keep keys in bytewise order, in this order of the primary key.

    It names no foreign key: the account is locked before any of its entries, and outlives them all.
    """

    pk = models.CompositePrimaryKey("actor_id", "key")
    actor_id = models.CharField(max_length=30)
    key = models.BinaryField()
    value = models.BinaryField()
    version = models.CharField(max_length=VERSION_CHARS)  # of the engine that wrote it
    updated_ms = models.BigIntegerField()  # since the epoch

    def __str__(self) -> str:
        return f"{self.key!r} of {self.actor_id}"
