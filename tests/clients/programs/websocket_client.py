"""A client of WebSockets, written with `websockets`: a conversation through the edge, or `refused STATUS ORIGIN`."""

import asyncio
import os
import ssl
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

HOST, PORT = os.environ["EDGE_HOST"], int(os.environ["EDGE_PORT"])
CA, COOKIE = os.environ["CA"], os.environ["COOKIE"]
OWN_ORIGIN = f"https://{HOST}:{PORT}"


def dial(origin):
    trust = ssl.create_default_context(cafile=CA)
    cookie = {"Cookie": COOKIE} if COOKIE else {}
    # The address is the edge's, the name is the application's.
    return connect(
        f"wss://{HOST}:{PORT}/ws", host="127.0.0.1", port=PORT, ssl=trust, origin=origin,
        additional_headers=cookie, max_size=4 << 20, ping_interval=None, proxy=None,
    )


async def ask(socket, message):
    await socket.send(message)
    return await asyncio.wait_for(socket.recv(), 20)


async def converse():
    async with dial(OWN_ORIGIN) as socket:
        assert await ask(socket, "who") == "ada"
        for text in ["", "hello", "grüße, 世界", "x" * (1 << 20)]:
            assert await ask(socket, text) == text, f"a text of {len(text)}"
        for data in [b"", bytes(range(256)), os.urandom(1 << 20)]:
            assert await ask(socket, data) == data, f"bytes, {len(data)} of them"
        await asyncio.wait_for(await socket.ping(b"from the client"), 20)
        assert await ask(socket, "ping me") == "pong heard"
        await socket.close(4001, "enough said")
    async with dial(OWN_ORIGIN) as socket:
        while await ask(socket, "last close") != "4001 enough said":
            await asyncio.sleep(0.01)
        try:
            await ask(socket, "close 4002 that is all")
            raise AssertionError("it was to be closed")
        except ConnectionClosed as closed:
            assert (closed.rcvd.code, closed.rcvd.reason) == (4002, "that is all"), closed
    async with dial(OWN_ORIGIN) as socket:
        try:
            await ask(socket, "close 1000 goodbye")
            raise AssertionError("it was to be closed")
        except ConnectionClosed as closed:
            assert (closed.rcvd.code, closed.rcvd.reason) == (1000, "goodbye"), closed


async def refused(status, origin):
    try:
        async with dial(origin or None):
            raise AssertionError("it was to be refused")
    except InvalidStatus as refusal:
        assert refusal.response.status_code == status, refusal


if sys.argv[1:2] == ["refused"]:
    asyncio.run(refused(int(sys.argv[2]), sys.argv[3]))
else:
    asyncio.run(converse())
