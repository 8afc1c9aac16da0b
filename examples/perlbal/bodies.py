"""The body of a request, read by a task: what a PUT and a collected upload have in common.

What does not belong here: where the body goes, and bodies that callbacks pass on (proxying).
"""

from __future__ import annotations

from collections.abc import Iterator

from perlbal.chunks import ChunkDecoder
from perlbal.clients import Client

PIECE = 262_144  # bytes that are read, and written to disk, at once


def read_body(client: Client, most: int) -> Iterator[bytes]:
    """Parks for each piece of what is left of the body; `client.body_left` counts those that were dealt with.

    Raises ConnectionError if the client leaves before its end, and BadChunk for what is no chunked body, or one of more
    than `most` bytes.
    """
    decoder = ChunkDecoder(most) if client.body_left < 0 else None
    while client.body_left:
        data = client.read_some(PIECE if decoder is not None else min(PIECE, client.body_left))
        if not data:
            client.close("the client has left in the middle of its request")
            raise ConnectionResetError("the client has left")
        client.active = client.loop.now
        if decoder is None:
            yield data
            client.body_left -= len(data)
            continue
        if data := decoder.feed(data):
            yield data
        if decoder.done:
            client.body_left = 0
            client.push_back_read(decoder.rest)
