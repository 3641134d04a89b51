"""The Celery app. Tasks carry hints only, so nothing here decides whether something is lost.

Celery's own Django fixup is left out on purpose: it closes every database connection before and after each
task, which costs a wake on PostgreSQL more than 10 ms. `workflow.pump` recovers from a stale connection.
"""

import os
from typing import Any

import django
from celery import Celery, signals
from django.conf import settings
from django.db import connections
from kombu.transport import TRANSPORT_ALIASES

from orchestrator.broker import Reconnect
from orchestrator.redis import celery_broker_url

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "orchestrator.settings")

# By its alias, as the URL of a socket names its transport itself and `broker_transport` would not be asked.
TRANSPORT_ALIASES |= dict.fromkeys(("redis", "rediss"), "orchestrator.broker:Transport")

app = Celery("torpor", fixups=[])
app.conf.update(
    broker_url=celery_broker_url(settings.REDIS_URL),
    broker_connection_retry_on_startup=True,
    broker_connection_max_retries=None,
    broker_channel_error_retry=True,  # a store that is full, or a replica for a moment, refuses commands
    broker_transport_options={
        "visibility_timeout": 90,
        "socket_keepalive": True,
        "health_check_interval": 10,
        "global_keyprefix": "torpor:celery:",
    },
    task_default_queue="torpor",
    task_ignore_result=True,
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    task_time_limit=60,
    task_serializer="json",
    accept_content=["json"],
    worker_prefetch_multiplier=1,
    worker_enable_remote_control=False,
    worker_send_task_events=False,
    worker_soft_shutdown_timeout=5,
    worker_hijack_root_logger=False,
    imports=[
        "orchestrator.retention",
        "orchestrator.workflow.echo",
        "runners.tasks",
        "runners.pool_tasks",
        "actors.tasks",
        "actors.hosting",
    ],
)
app.steps["consumer"].add(Reconnect)


@signals.import_modules.connect
def _start_django(**_: Any) -> None:
    django.setup()


@signals.worker_process_init.connect
def _forget_inherited_connections(**_: Any) -> None:
    connections.close_all()
