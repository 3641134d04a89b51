"""What a runner can do beyond the protocol, as it says in the metadata of its init. Does no I/O.

The metadata is JSON of the runner's own; ours stands under `torpor`. A runner that says nothing, like npm clients,
gets nothing it does not know.
"""

from dataclasses import dataclass

LEAST_WINDOW_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Features:
    """`response_window` is how many bytes of a streamed answer may be on their way; None: it waits for nobody.

    `numbered`: the runner numbers the messages of a request without gaps.
    """

    request_streaming: bool = False
    multi_headers: bool = False
    response_window: int | None = None
    numbered: bool = False


NONE = Features()


def read_features(metadata: object) -> Features:
    """Return the features of a runner's metadata; what is not as it should be counts as not said."""
    told = metadata.get("torpor") if isinstance(metadata, dict) else None
    if not isinstance(told, dict):
        return NONE
    window = told.get("response_window")
    return Features(
        request_streaming=told.get("request_streaming") is True,
        multi_headers=told.get("multi_headers") is True,
        response_window=window if type(window) is int and window >= LEAST_WINDOW_BYTES else None,
        numbered=True,
    )
