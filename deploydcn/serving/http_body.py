"""Request bodies, read whole and within limits."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

from deploydcn.serving.refusal import Refusal

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

_WINDOW = {b"gzip": zlib.MAX_WBITS | 16, b"deflate": zlib.MAX_WBITS}


async def read_body(headers: Mapping[bytes, bytes], receive: Receive, *, limit: int, timeout: float) -> bytes | bytearray:
    """The body, decompressed. limit: bytes, before and after decompression. timeout: seconds for all of it.

    Raises:
        Refusal: larger (413), slower (408), cut off, or in an encoding other than gzip and deflate (415).
    """
    announced = headers.get(b"content-length")
    if announced is not None and (not announced.isdigit() or int(announced[:20]) > limit):
        raise _too_large(limit)
    encoding = headers.get(b"content-encoding", b"identity").lower()
    if encoding not in (b"identity", *_WINDOW):
        raise Refusal(f"Content-Encoding is {encoding.decode('latin-1')}; wanted gzip, deflate or none", 415)
    task = asyncio.current_task()
    assert task is not None
    late = False

    def stop() -> None:
        nonlocal late
        late = True
        task.cancel()

    timer = asyncio.get_running_loop().call_later(timeout, stop)
    try:
        body = await _read(receive, limit)
    except asyncio.CancelledError:
        if late:
            raise Refusal(f"the body did not arrive within {timeout:g} s", 408) from None
        raise
    finally:
        timer.cancel()
    return body if encoding == b"identity" else _inflate(body, _WINDOW[encoding], limit)


async def _read(receive: Receive, limit: int) -> bytes | bytearray:
    first = await receive()
    _check(first)
    body = first.get("body", b"")
    if not first.get("more_body"):
        if len(body) > limit:
            raise _too_large(limit)
        return bytes(body) if not isinstance(body, bytes) else body
    whole = bytearray(body)
    more = True
    while more:
        message = await receive()
        _check(message)
        whole += message.get("body", b"")
        if len(whole) > limit:
            raise _too_large(limit)
        more = message.get("more_body", False)
    return whole


def _check(message: Mapping[str, Any]) -> None:
    if message["type"] == "http.disconnect":
        raise Refusal("the client left before its request was complete", 400)


def _inflate(body: bytes | bytearray, window: int, limit: int) -> bytes:
    inflater = zlib.decompressobj(window)
    try:
        plain = inflater.decompress(body, limit + 1)
    except zlib.error as error:
        raise Refusal(f"the body cannot be decompressed: {error}") from error
    if len(plain) > limit:
        raise _too_large(limit)
    if not inflater.eof or inflater.unused_data:
        raise Refusal("the body cannot be decompressed: it is cut off, or something follows it")
    return plain


def _too_large(limit: int) -> Refusal:
    return Refusal(f"the body is larger than this server takes: {limit} bytes", 413)
