"""A server of a folder as an S3 bucket that can be read, with a latency; for benchmarks on one machine.

    python benchmarks/bucket.py FOLDER --latency-ms 20    prints the value for AWS_ENDPOINT_URL

It serves GET and HEAD of objects, with ranges, of one bucket of any name. Each answer is sent `latency`
after its request has come; as many as come are answered at once.
"""

from __future__ import annotations

import argparse
import asyncio
from email.utils import formatdate
from functools import cache
from pathlib import Path
from urllib.parse import unquote

NO_SUCH_KEY = b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code></Error>"


@cache
def read(path: Path) -> memoryview:
    """A file, kept in memory: the server is not what is measured."""
    return memoryview(path.read_bytes())


class Answering(asyncio.Protocol):
    """One connection, kept alive."""

    def __init__(self, folder: Path, latency: float) -> None:
        self.folder, self.latency, self.received = folder, latency, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data
        while b"\r\n\r\n" in self.received:
            head, _, self.received = self.received.partition(b"\r\n\r\n")
            asyncio.get_running_loop().call_later(self.latency, self.answer, head.decode())

    def answer(self, head: str) -> None:
        request, *lines = head.split("\r\n")
        method, target, _ = request.split(" ")
        headers = dict(line.lower().split(": ", 1) for line in lines)
        _, _, key = unquote(target.split("?")[0]).removeprefix("/").partition("/")
        try:
            content = read(self.folder / key)
        except OSError:
            self.send("404 Not Found", NO_SUCH_KEY, {})
            return
        start, stop, status = 0, len(content), "200 OK"
        extra = {"ETag": f'"{len(content)}"', "Last-Modified": formatdate(0, usegmt=True)}
        if wanted := headers.get("range", "").removeprefix("bytes="):
            first, _, last = wanted.partition("-")
            start = int(first) if first else max(len(content) - int(last), 0)
            stop = min(int(last) + 1, len(content)) if first and last else len(content)
            extra["Content-Range"] = f"bytes {start}-{stop - 1}/{len(content)}"
            status = "206 Partial Content"
        self.send(status, content[start:stop], extra, with_body=method == "GET")

    def send(
        self, status: str, body: bytes | memoryview, extra: dict[str, str], with_body: bool = True
    ) -> None:
        lines = [
            f"HTTP/1.1 {status}",
            f"Content-Length: {len(body)}",
            *(f"{k}: {v}" for k, v in extra.items()),
        ]
        self.transport.write("\r\n".join(lines).encode() + b"\r\n\r\n" + (bytes(body) if with_body else b""))


async def serve(folder: Path, latency: float) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Answering(folder, latency), "127.0.0.1", 0, backlog=1000)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--latency-ms", type=float, default=20.0)
    options = parser.parse_args()
    asyncio.run(serve(options.folder, options.latency_ms / 1000))


if __name__ == "__main__":
    main()
