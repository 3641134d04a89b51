"""The walk of examples/node-runner/storage.mjs once more, on our own SDK."""

from typing import Any

from runners.sdk import Kv, KvError


async def walk(kv: Kv) -> dict[str, Any]:
    """Write, read, list and delete what an actor keeps under `walk/`, and return what was seen."""
    seen: dict[str, Any] = {}
    names = ["walk/a", "walk/b", "walk/c", "walk/d"]
    await kv.put_many({name: str(number) for number, name in enumerate(names)})
    got = await kv.get_many([names[2], "walk/none", names[0]])
    seen["got"] = [_text(got.get(name.encode())) for name in (names[2], "walk/none", names[0])]
    seen["prefix"] = _pairs(await kv.list("walk/"))
    seen["range"] = _pairs(await kv.list_range(names[0], names[2]))
    seen["last"] = _pairs(await kv.list("walk/", reverse=True, limit=1))
    await kv.delete(names[0], "walk/none")
    await kv.delete_range(names[1], names[2])
    seen["left"] = _pairs(await kv.list("walk/"))
    try:
        await kv.put("k" * 2047, "")
    except KvError as error:
        seen["refused"] = str(error)
    await kv.drop()
    seen["all"] = _pairs(await kv.list())
    return seen


def _pairs(entries: Any) -> list[str]:
    return [f"{key.decode()}={value.decode()}" for key, value in entries]


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode()
