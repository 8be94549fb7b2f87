"""An application of WebSockets, written with `websockets`: sends back what it hears, but for a few commands."""

import asyncio

from websockets.asyncio.server import serve
from websockets.exceptions import ConnectionClosed

last_close = "none"


async def talk(connection):
    global last_close
    closed_by_us = False
    try:
        async for message in connection:
            words = message.split(" ", 2) if isinstance(message, str) else [""]
            if words[0] == "close":
                closed_by_us = True
                await connection.close(int(words[1]), words[2])
            elif message == "ping me":
                await (await connection.ping(b"from the application"))
                await connection.send("pong heard")
            elif message == "last close":
                await connection.send(last_close)
            elif message == "who":
                await connection.send(connection.request.headers.get("X-Forwarded-User", "nobody"))
            else:
                await connection.send(message)
    except ConnectionClosed:
        pass
    if not closed_by_us:
        last_close = f"{connection.close_code} {connection.close_reason}"


async def main():
    async with serve(talk, "127.0.0.1", 0, max_size=4 << 20, ping_interval=None) as server:
        print("listening on", server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()


asyncio.run(main())
