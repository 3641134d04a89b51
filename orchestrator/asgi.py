"""Which application answers which path. Gateway and runner socket come before Django (DESIGN §4)."""

import os
from typing import Any

from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "orchestrator.settings")
django: Any = ASGIStaticFilesHandler(get_asgi_application())  # the admin's and /docs' own files too

from console.socket import console_socket  # noqa: E402  # needs Django's apps, as do the next
from gateway.asgi import GatewayRouter  # noqa: E402
from orchestrator.api.bounded import bounded  # noqa: E402

django_application = bounded(django)
application = GatewayRouter(django_application, {"/console/updates": console_socket})
