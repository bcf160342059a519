"""A hub on 127.0.0.1 with the part of the Hugging Face protocol that downloading one file needs."""

import hashlib
import socket
import threading
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Request:
    method: str
    path: str
    range: str | None


@dataclass
class Hub:
    """What the hub serves, how it misbehaves, and which requests it received.

    files: content by (repository, file name), at any revision; JSON and Markdown are in plain git, others in
    LFS. stated_sha256: a false hash to state for every
    file. cuts: how many bytes of the body each of the next GETs sends before the connection closes. refusal:
    status and X-Error-Code of every response. headless: responds without the hub's headers.
    """

    files: dict[tuple[str, str], bytes] = field(default_factory=dict)
    stated_sha256: str | None = None
    cuts: list[int] = field(default_factory=list)
    refusal: tuple[int, str] | None = None
    headless: bool = False
    never_answers: bool = False
    requests: list[Request] = field(default_factory=list)
    endpoint: str = ""
    stopped: threading.Event = field(default_factory=threading.Event)

    def downloads(self):
        return [request for request in self.requests if request.method == "GET"]


@contextmanager
def serve_hub():
    """A running hub; it ends with the block."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(hub))
    server.daemon_threads = True
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        hub.stopped.set()
        server.shutdown()
        server.server_close()
        thread.join()


def closed_port():
    """An endpoint where nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def _handler_of(hub):
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *args):
            pass

        def do_HEAD(self):
            self.answer()

        def do_GET(self):
            self.answer()

        def answer(self):
            # Only requests for files count: huggingface_hub makes some of its own.
            if "/resolve/" in self.path:
                hub.requests.append(Request(self.command, self.path, self.headers.get("Range")))
            if hub.never_answers:
                hub.stopped.wait()
                return
            repo, _, rest = self.path.strip("/").partition("/resolve/")
            content = hub.files.get((repo, rest.partition("/")[2]))
            if hub.refusal or content is None:
                status, code = hub.refusal or (404, "EntryNotFound")
                self.send_response(status)
                self.send_header("X-Error-Code", code)
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            self.send_file(content)

        def send_file(self, content):
            start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").partition("-")[0])
            body = content[start:]
            self.send_response(206 if start else 200)
            if not hub.headless:
                self.send_header("X-Repo-Commit", COMMIT)
                if self.path.endswith((".json", ".md")):
                    blob = f"blob {len(content)}\0".encode() + content
                    self.send_header("ETag", f'"{hashlib.sha1(blob).hexdigest()}"')
                else:
                    self.send_header("X-Linked-Size", str(len(content)))
                    stated = hub.stated_sha256 or hashlib.sha256(content).hexdigest()
                    self.send_header("X-Linked-Etag", f'"{stated}"')
                    self.send_header("ETag", '"of the redirect, not of the file"')
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body[: hub.cuts.pop(0)] if hub.cuts else body)

    return Handler
