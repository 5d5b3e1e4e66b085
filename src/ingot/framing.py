"""Messages between a process and its compile server: JSON with byte strings beside it, over a stream socket.

A message is 4 bytes of length (little endian), a JSON object, and the byte strings, whose lengths stand in its `blobs`.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from typing import Any

MAX_TEXT, MAX_BLOB = 1 << 28, 1 << 34


def send(sock: socket.socket, message: dict[str, Any], blobs: Sequence[bytes] = ()) -> None:
    """Send one message. Raises OSError where the other end is gone."""
    text = json.dumps({**message, "blobs": [len(b) for b in blobs]}).encode()
    sock.sendall(len(text).to_bytes(4, "little") + text)
    for blob in blobs:
        sock.sendall(blob)


def receive(sock: socket.socket) -> tuple[dict[str, Any], list[bytes]] | None:
    """Receive one message, or None where the other end has closed. Raises ConnectionError for a torn or foreign message."""
    head = _exactly(sock, 4, may_end=True)
    if head is None:
        return None
    length = int.from_bytes(head, "little")
    if length > MAX_TEXT:
        raise ConnectionError(f"a message of {length} bytes")
    text = _exactly(sock, length)
    assert text is not None
    try:
        message = json.loads(text)
        sizes = message.pop("blobs")
        if not all(type(n) is int and 0 <= n <= MAX_BLOB for n in sizes):
            raise ValueError("impossible lengths")
    except (ValueError, KeyError, AttributeError, TypeError) as e:
        raise ConnectionError(f"a foreign message: {e}") from None
    return message, [_exactly(sock, n) or b"" for n in sizes]


def _exactly(sock: socket.socket, count: int, *, may_end: bool = False) -> bytes | None:
    out = bytearray(count)
    view = memoryview(out)
    done = 0
    while done < count:
        got = sock.recv_into(view[done:])
        if not got:
            if may_end and not done:
                return None
            raise ConnectionError("the other end closed in the middle of a message")
        done += got
    return bytes(out)
