"""`manage.py runworker`: Channels' command, with no more loaded than background consumers need."""

from typing import Any

from channels.layers import get_channel_layer
from channels.management.commands import runworker
from django.conf import settings
from django.utils.module_loading import import_string


class Command(runworker.Command):
    """Run background consumers: `serverless` holds the `/start` requests of pools."""

    requires_system_checks = []  # they load all views, which only web processes need; those check

    def handle(self, *_: Any, **options: Any) -> None:
        """Serve the channels until told to end."""
        application = import_string(settings.BACKGROUND_APPLICATION)
        layer = get_channel_layer(options["layer"])
        assert layer is not None, "the settings configure a channel layer"
        worker = self.worker_class(application=application, channels=options["channels"], channel_layer=layer)
        worker.run()  # type: ignore[no-untyped-call]
