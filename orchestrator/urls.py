"""Which Django view answers which path. The gateway and the runner socket never come here (`asgi.py`)."""

from django.contrib import admin
from django.urls import URLPattern, URLResolver, path

urlpatterns: list[URLPattern | URLResolver] = [
    path("admin/", admin.site.urls),
]
