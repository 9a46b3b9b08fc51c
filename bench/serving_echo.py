"""An echo on the same parser and loop as ours, and nothing else: `python serving_echo.py PORT`."""

from __future__ import annotations

import asyncio
import gc
import sys

import httptools

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"


class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
        self.parser = httptools.HttpRequestParser(self)
        self.parts = []

    def data_received(self, data):
        self.parser.feed_data(data)

    def on_body(self, body):
        self.parts.append(body)

    def on_message_complete(self):
        self.parts = []
        self.transport.write(ANSWER)


async def main(port):
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, "127.0.0.1", port)
    gc.freeze()
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
