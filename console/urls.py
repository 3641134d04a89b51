"""Which page of the console answers which path."""

from django.urls import path

from console import views

app_name = "console"
urlpatterns = [
    path("", views.overview, name="overview"),
    path("actors/<str:actor_id>/", views.actor, name="actor"),
    path("runners/<str:runner_id>/", views.runner, name="runner"),
]
