"""Which application answers which path. Gateway and runner socket come before Django (DESIGN §4)."""

import os

from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "orchestrator.settings")
django_application = ASGIStaticFilesHandler(get_asgi_application())  # the admin's and /docs' own files too

from console.socket import console_socket  # noqa: E402  # needs Django's apps, as does the next
from gateway.asgi import GatewayRouter  # noqa: E402

application = GatewayRouter(django_application, {"/console/updates": console_socket})
