"""Rows that every house uses: namespaces, the timeline, signals that were set aside, and the audit."""

from django.db import models

from orchestrator.ids import new_id


class Namespace(models.Model):
    """A tenant: pools, runners and actors of two namespaces have nothing in common. Never deleted."""

    id = models.CharField(primary_key=True, max_length=30, default=new_id, editable=False)
    name = models.CharField(max_length=64, unique=True)
    display_name = models.CharField(max_length=128)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["name"]

    def __str__(self) -> str:
        return self.name


class AccessToken(models.Model):
    """A token of a namespace, without the token: only its digest is kept (`orchestrator/tokens.py`)."""

    id = models.CharField(primary_key=True, max_length=30, default=new_id, editable=False)
    namespace = models.ForeignKey(Namespace, on_delete=models.PROTECT)
    label = models.CharField(max_length=100, blank=True)
    scopes = models.JSONField()  # of `orchestrator.access.Scope`
    digest = models.CharField(max_length=64, unique=True, editable=False)
    created_at = models.DateTimeField(auto_now_add=True)
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        ordering = ["-created_at", "-id"]
        indexes = [models.Index(fields=["namespace", "-created_at"], name="token_newest")]

    def __str__(self) -> str:
        return self.label or self.id


class TimelineEntry(models.Model):
    """One arrow: who told whom what, and when. Written in the transaction of the change it tells of.

    It belongs to an actor, a runner, or a `/start` connection; an actor's timeline shows its own
    arrows and those of the runners and connections that served it. Ids are not foreign keys, as the
    timeline may outlive what it tells of.
    """

    id = models.BigAutoField(primary_key=True)
    at = models.DateTimeField()
    source = models.CharField(max_length=24)
    target = models.CharField(max_length=24)
    via = models.JSONField(default=list)  # whom it passes on its way, in order
    label = models.CharField(max_length=200)
    actor_id = models.CharField(max_length=30, default="")
    generation = models.BigIntegerField(null=True)
    runner_id = models.CharField(max_length=30, default="")
    connection_id = models.CharField(max_length=30, default="")
    pool_id = models.CharField(max_length=30, default="")
    data = models.JSONField(default=dict)  # what a reader may want; a signal under "signal" for a replay

    class Meta:
        ordering = ["at", "id"]
        verbose_name_plural = "timeline entries"
        indexes = [
            models.Index(fields=["actor_id", "at"], name="timeline_actor", condition=~models.Q(actor_id="")),
            models.Index(fields=["runner_id", "at"], name="timeline_runner", condition=~models.Q(runner_id="")),
            models.Index(
                fields=["connection_id", "at"],
                name="timeline_connection",
                condition=~models.Q(connection_id=""),
            ),
            models.Index(fields=["pool_id", "at"], name="timeline_pool", condition=~models.Q(pool_id="")),
        ]

    def __str__(self) -> str:
        return f"{self.source} → {self.target}: {self.label}"


class SetAsideSignal(models.Model):
    """A signal whose handling failed every time; it was taken out so that the rest of its shard goes on."""

    id = models.BigAutoField(primary_key=True)
    workflow = models.CharField(max_length=16)
    key = models.CharField(max_length=64)
    signal = models.JSONField()
    error = models.TextField()
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta:
        ordering = ["-id"]

    def __str__(self) -> str:
        return f"{self.workflow} {self.key}"


class AuditEntry(models.Model):
    """What somebody has done by hand: written before it is done, so that nothing is done without it."""

    id = models.BigAutoField(primary_key=True)
    at = models.DateTimeField(auto_now_add=True)
    user = models.CharField(max_length=150)  # the name, which outlives the account
    action = models.CharField(max_length=32)
    model = models.CharField(max_length=32)
    target = models.CharField(max_length=64)
    outcome = models.CharField(max_length=200, default="asked for")

    class Meta:
        verbose_name_plural = "audit entries"

    def __str__(self) -> str:
        return f"{self.user}: {self.action} {self.target}"
