"""Pools, runners, the `/start` requests that bring runners, and the commands they are given."""

from datetime import timedelta

from django.db import models
from django.db.models import F, Q

from orchestrator.ids import new_id
from orchestrator.models import Namespace


class RunnerConfig(models.Model):
    """One pool: how to get runners of one name. Its workflow's state is in the columns after `error`.

    A deleted configuration stays until its last `/start` request has ended, under `deleted_at`.
    """

    class Kind(models.TextChoices):
        """Who starts runners: the application, or the engine through an HTTP endpoint."""

        NORMAL = "normal"
        SERVERLESS = "serverless"

    id = models.CharField(primary_key=True, max_length=30, default=new_id, editable=False)
    namespace = models.ForeignKey(Namespace, on_delete=models.PROTECT)
    name = models.TextField()
    kind = models.CharField(max_length=10, choices=Kind.choices)
    url = models.TextField(default="", blank=True)
    headers = models.JSONField(default=dict, blank=True)
    slots_per_runner = models.PositiveIntegerField(default=1)
    min_runners = models.PositiveIntegerField(default=0)
    max_runners = models.PositiveIntegerField(default=1000)
    runners_margin = models.PositiveIntegerField(default=0)
    request_lifespan = models.DurationField(null=True, blank=True)
    drain_grace_period = models.DurationField(null=True, blank=True)
    drain_on_version_upgrade = models.BooleanField(default=True)
    metadata_poll_interval = models.DurationField(null=True, blank=True)
    paused = models.BooleanField(default=False)  # by hand: no runner is started
    options = models.JSONField(default=dict, blank=True)  # accepted and shown again, without effect here
    metadata = models.JSONField(null=True, blank=True)
    endpoint_epoch = models.PositiveIntegerField(default=0)  # grows when url or headers change
    created_at = models.DateTimeField(auto_now_add=True)
    updated_at = models.DateTimeField(auto_now=True)
    deleted_at = models.DateTimeField(null=True, blank=True)

    error = models.JSONField(null=True, blank=True)  # the API's `runner_pool_error`
    error_at = models.DateTimeField(null=True, blank=True)
    successes = models.PositiveIntegerField(default=0)  # good inits in a row since the last failure
    failures = models.PositiveIntegerField(default=0)  # failed starts, for the backoff
    failed_at = models.DateTimeField(null=True, blank=True)
    retry_at = models.DateTimeField(null=True, blank=True)  # no start before
    desired = models.PositiveIntegerField(default=0)  # runners wanted by the last plan
    poll_at = models.DateTimeField(null=True, blank=True)  # when to ask for the endpoint's metadata; null: now
    poll_failures = models.PositiveIntegerField(default=0)  # in a row
    due_at = models.DateTimeField(null=True, blank=True, db_index=True)
    version = models.PositiveBigIntegerField(default=0)

    class Meta:
        permissions = [
            ("pause_runnerconfig", "Can pause pools"),
            ("resume_runnerconfig", "Can end the pause of pools"),
            ("retry_runnerconfig", "Can have pools call their endpoints now"),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["namespace", "name"], condition=Q(deleted_at=None), name="runner_config_one_per_name"
            ),
            models.CheckConstraint(
                condition=Q(kind="normal")
                | (Q(kind="serverless") & ~Q(url="") & Q(request_lifespan__isnull=False)),
                name="runner_config_serverless_is_complete",
            ),
            models.CheckConstraint(condition=Q(slots_per_runner__gte=1), name="runner_config_has_slots"),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def grace(self) -> timedelta:
        """How long a draining runner of this pool may take (DESIGN §6)."""
        if self.drain_grace_period is not None:
            return self.drain_grace_period
        lifespan = self.request_lifespan or timedelta(seconds=30)
        return min(timedelta(seconds=10), lifespan / 3)


class Runner(models.Model):
    """A process that hosts actors, known by its key. Slots are taken and given back with the actor's row."""

    class State(models.TextChoices):
        """Where a runner is in its life (`runners/lifecycle.py`)."""

        LIVE = "live"
        DRAINING = "draining"
        EVICTING = "evicting"
        STOPPED = "stopped"

    id = models.CharField(primary_key=True, max_length=30, default=new_id, editable=False)
    namespace = models.ForeignKey(Namespace, on_delete=models.PROTECT)
    name = models.TextField()  # its pool
    key = models.TextField()
    runner_version = models.PositiveBigIntegerField()  # the runner's own; the highest present is served first
    total_slots = models.PositiveBigIntegerField()
    used_slots = models.PositiveBigIntegerField(default=0)
    metadata = models.JSONField(null=True, blank=True)
    protocol_version = models.PositiveSmallIntegerField()
    created_at = models.DateTimeField(auto_now_add=True)

    state = models.CharField(max_length=10, choices=State.choices, default=State.LIVE)
    cordoned = models.BooleanField(default=False)  # by hand: gets no new actors
    holds_key = models.BooleanField(default=True)  # a reconnect with its key finds it
    socket_id = models.CharField(max_length=30, default="", blank=True)  # its socket; empty: none
    connected_at = models.DateTimeField()
    last_ping_at = models.DateTimeField()
    last_rtt_ms = models.PositiveIntegerField(default=0)
    drain_at = models.DateTimeField(null=True, blank=True)
    evict_at = models.DateTimeField(null=True, blank=True)  # end of the drain's grace
    stop_at = models.DateTimeField(null=True, blank=True)
    stop_reason = models.CharField(max_length=40, default="", blank=True)
    command_seq = models.PositiveBigIntegerField(default=0)  # of its newest command
    due_at = models.DateTimeField(null=True, blank=True, db_index=True)
    version = models.PositiveBigIntegerField(default=0)

    class Meta:
        permissions = [
            ("cordon_runner", "Can cordon runners"),
            ("uncordon_runner", "Can uncordon runners"),
            ("drain_runner", "Can drain runners"),
            ("evict_runner", "Can evict runners"),
        ]
        constraints = [
            models.UniqueConstraint(
                fields=["namespace", "name", "key"], condition=Q(holds_key=True), name="runner_one_per_key"
            ),
            models.CheckConstraint(condition=Q(used_slots__lte=F("total_slots")), name="runner_slots_hold"),
            models.CheckConstraint(
                condition=Q(state="stopped") | Q(due_at__isnull=False), name="runner_unsettled_has_deadline"
            ),
        ]
        indexes = [
            models.Index(fields=["namespace", "name"], name="runner_allocatable", condition=Q(state="live")),
            models.Index(fields=["namespace", "-created_at"], name="runner_newest"),
            models.Index(fields=["namespace", "name", "-created_at"], name="runner_newest_of_pool"),
            models.Index(fields=["namespace", "-created_at"], name="runner_present", condition=Q(stop_at=None)),
        ]

    def __str__(self) -> str:
        return f"{self.name}/{self.key}"


class ServerlessConnection(models.Model):
    """One `/start` request, from the wish for it to its end. A connector claims it and holds its stream."""

    class State(models.TextChoices):
        """Where the request is."""

        WANTED = "wanted"  # no connector has it yet
        STARTING = "starting"  # sent, no answer yet
        OPEN = "open"  # 200, no init payload yet
        READY = "ready"  # the payload named its runner
        DRAINING = "draining"  # its runner was told to go
        CLOSING = "closing"  # the connector is to end it
        ENDED = "ended"

    id = models.CharField(primary_key=True, max_length=30, default=new_id, editable=False)
    pool = models.ForeignKey(RunnerConfig, on_delete=models.CASCADE, related_name="connections")
    state = models.CharField(max_length=10, choices=State.choices, default=State.WANTED)
    endpoint_epoch = models.PositiveIntegerField()
    runner_id = models.CharField(max_length=30, default="", blank=True)
    created_at = models.DateTimeField(auto_now_add=True)
    claimed_by = models.CharField(max_length=30, default="", blank=True)  # the connector
    claimed_until = models.DateTimeField(null=True, blank=True)
    started_at = models.DateTimeField(null=True, blank=True)  # GET /start was sent
    opened_at = models.DateTimeField(null=True, blank=True)
    ready_at = models.DateTimeField(null=True, blank=True)
    drain_at = models.DateTimeField(null=True, blank=True)  # while ready: its runner was asked to go if idle
    close_at = models.DateTimeField(null=True, blank=True)  # end of the drain's grace
    ended_at = models.DateTimeField(null=True, blank=True)
    status = models.PositiveSmallIntegerField(null=True, blank=True)  # of the HTTP answer
    error = models.JSONField(null=True, blank=True)

    class Meta:
        indexes = [
            models.Index(fields=["claimed_until"], name="connection_unended", condition=~Q(state="ended")),
            models.Index(fields=["pool", "-created_at"], name="connection_of_pool"),
            models.Index(fields=["runner_id"], name="connection_of_runner", condition=~Q(runner_id="")),
        ]
        constraints = [
            models.CheckConstraint(
                condition=Q(state__in=["wanted", "ended"]) | Q(claimed_until__isnull=False),
                name="connection_unsettled_has_deadline",
            ),
        ]

    def __str__(self) -> str:
        return f"{self.pool_id} {self.state}"


class Command(models.Model):
    """One entry of a runner's command log, kept until it has taken effect or can no longer.

    `seq` counts the runner's commands without a gap, in the order of their commits; `index` counts those of
    one generation of an actor (PROTOCOL §4.3). `frame` is the message to send, encoded in the newest version
    of the protocol.
    """

    class Kind(models.TextChoices):
        """What the runner is told."""

        START = "start"
        STOP = "stop"

    id = models.BigAutoField(primary_key=True)
    runner = models.ForeignKey(Runner, on_delete=models.CASCADE, related_name="commands")
    seq = models.PositiveBigIntegerField()
    actor_id = models.CharField(max_length=30)
    generation = models.BigIntegerField()
    index = models.BigIntegerField()
    kind = models.CharField(max_length=5, choices=Kind.choices)
    frame = models.BinaryField()
    created_at = models.DateTimeField()

    class Meta:
        constraints = [
            models.UniqueConstraint(fields=["runner", "seq"], name="command_log_has_order"),
            models.UniqueConstraint(fields=["actor_id", "generation", "kind"], name="command_once_per_generation"),
        ]

    def __str__(self) -> str:
        return f"{self.kind} {self.actor_id}/{self.generation}"


class ActorName(models.Model):
    """A name actors may have: one ever used, or announced by a runner, with its metadata (API §3.8)."""

    namespace = models.ForeignKey(Namespace, on_delete=models.PROTECT)
    name = models.TextField()
    metadata = models.JSONField(default=dict)

    class Meta:
        constraints = [models.UniqueConstraint(fields=["namespace", "name"], name="actor_name_once")]

    def __str__(self) -> str:
        return self.name
