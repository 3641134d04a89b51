"""Which Django view answers which path. The gateway and the runner socket never come here (`asgi.py`)."""

from django.contrib import admin
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, URLResolver, include, path
from django.views.decorators.http import require_safe

from orchestrator.api.app import make_api
from orchestrator.views import show_metrics, show_readiness


@require_safe
def home(request: HttpRequest) -> HttpResponse:
    """Lead a browser to the pages for people, for good (308)."""
    return HttpResponse(status=308, headers={"location": "/admin/"})


urlpatterns: list[URLPattern | URLResolver] = [
    path("", home),
    path("admin/", admin.site.urls),
    path("console/", include("console.urls")),
    path("metrics", show_metrics),
    path("ready", show_readiness),
    path("", make_api().urls),
]
