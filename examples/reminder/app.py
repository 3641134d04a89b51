"""A reminder: it sleeps until it is time, however long that is.

python -m runners.sdk examples.reminder.app
"""

from datetime import timedelta

from runners.sdk import Actor, Context, Request, Response, scheduled


class Reminder(Actor):
    """The reminders of one person: `POST /` a text and seconds, `DELETE /NAME`, `GET /` for what is and was."""

    sleep_after = timedelta(seconds=10)
    initial_state = {"reminded": []}

    async def fetch(self, ctx: Context, request: Request) -> Response:
        """Plan a reminder, drop one, or list them."""
        match request.method:
            case "POST":
                wish = await request.json()
                delay = timedelta(seconds=wish["seconds"])
                name = await ctx.schedule.after(delay, self.remind, {"text": wish["text"]})
                return Response.json({"name": name}, status=201)
            case "DELETE":
                known = await ctx.schedule.cancel(request.path.removeprefix("/"))
                return Response(204 if known else 404)
            case _:
                pending = {planned.name: planned.payload["text"] for planned in ctx.schedule.pending}
                return Response.json({"pending": pending, "reminded": ctx.state["reminded"]})

    @scheduled
    async def remind(self, ctx: Context, payload: dict[str, str]) -> None:
        """Remind: here this only goes into a list; a mail would be sent from here, too."""
        ctx.state["reminded"].append({"text": payload["text"], "at": ctx.now().isoformat()})


actors = {"reminder": Reminder}
