"""An S3 server on 127.0.0.1, and before it a proxy that answers as networks and stores do on a bad day."""

import http.client
import os
import threading
from collections import deque
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from unittest import mock
from uuid import uuid4

import pytest

from vidlat.store.storage import objects as object_storage

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_REGION": "us-east-1",
    "AWS_METADATA_ENDPOINT": "http://127.0.0.1:9",  # nothing outside this machine is asked for credentials
}


@contextmanager
def s3_server():
    """The address of a server that lasts as long as the block, or that of VIDLAT_TEST_S3, if that is set."""
    if given := os.environ.get("VIDLAT_TEST_S3"):
        yield given
        return
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    class Silent(WSGIRequestHandler):
        def log(self, *arguments):
            pass

    # One request at a time: moto compares a condition and stores the content in two steps.
    application = DomainDispatcherApplication(create_backend_app)
    with serving(make_server("127.0.0.1", 0, application, request_handler=Silent)) as server:
        yield f"http://127.0.0.1:{server.server_port}"


@contextmanager
def serving(server):
    """`server`, which serves in a thread as long as the block lasts."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def environment(endpoint, **others):
    """The environment variables of a user of the store at `endpoint`, and of nobody else."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "GOOGLE_"))}
    with mock.patch.dict(
        os.environ, kept | ENVIRONMENT | {"AWS_ENDPOINT_URL": endpoint} | others, clear=True
    ):
        yield


def new_bucket(server):
    """The address of a folder in a new bucket."""
    name = f"bucket-{uuid4().hex}"
    _client(server).create_bucket(Bucket=name)
    return f"s3://{name}/x.zarr"


def publish(server, address):
    """Let everyone read the object at an address, and list its bucket: else a missing one is forbidden."""
    bucket, _, key = address.removeprefix("s3://").partition("/")
    _client(server).put_bucket_acl(Bucket=bucket, ACL="public-read")
    _client(server).put_object_acl(Bucket=bucket, Key=key, ACL="public-read")


def _client(server):
    import boto3

    return boto3.client(
        "s3",
        endpoint_url=server,
        region_name=ENVIRONMENT["AWS_REGION"],
        aws_access_key_id=ENVIRONMENT["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=ENVIRONMENT["AWS_SECRET_ACCESS_KEY"],
    )


def be_patient(monkeypatch, seconds, request_seconds=0.15):
    """Let requests take so long, and be repeated for so long: brief, since that is how a stall ends."""
    monkeypatch.setattr(object_storage, "REQUEST_SECONDS", request_seconds)
    monkeypatch.setattr(object_storage, "RETRY_SECONDS", seconds)
    monkeypatch.setattr(object_storage, "FIRST_PAUSE_SECONDS", 0.005)
    monkeypatch.setattr(object_storage, "LONGEST_PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(object_storage, "NUM_RETRIES", 4)


@contextmanager
def bucket_behind_proxy():
    """A proxy, to which the environment leads, before a server with a new bucket: its address is `bucket`."""
    pytest.importorskip("moto", reason="needs moto, which is installed with vidlat[dev]")
    with s3_server() as server, serving(Proxy(server)) as proxy, environment(proxy.address):
        proxy.bucket = new_bucket(server)
        yield proxy


class Proxy(ThreadingHTTPServer):
    """Passes requests on to the server at `behind`, and answers some of them by a fault.

    faults: pairs of a method, or "any", and a fault, met in this order by such requests; the last one
    stays if `stays`. A fault is a text or a function that is called first and returns one, or None.
    requests: the method of each request, and whether it met a fault.
    unread: headers that are not passed on. compares_raw: refuse an ETag in quotes, as Ceph 16 does.
    late: what a request with the fault "late" waits for; arrived: set when it was passed on.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, behind):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behind, self.released = behind.removeprefix("http://"), threading.Event()
        self.lock, self.unread, self.compares_raw = threading.Lock(), (), False
        self.set()

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_port}"

    def set(self, *faults, stays=False):
        with self.lock:
            self.faults, self.stays, self.requests = deque(faults), stays, []
            self.late, self.arrived = threading.Event(), threading.Event()

    @property
    def num_gets(self):
        """Requests that read, since `set`."""
        return sum(method == "GET" for method, _ in self.requests)

    def next_fault(self, method):
        with self.lock:
            fault = None
            if self.faults and self.faults[0][0] in (method, "any"):
                fault = self.faults[0][1]
                if not (self.stays and len(self.faults) == 1):
                    self.faults.popleft()
            self.requests.append((method, fault is not None))
            return fault

    def handle_error(self, request, client_address):
        pass  # the client has gone

    def server_close(self):
        self.released.set()
        self.late.set()
        super().server_close()


REFUSED = {
    "400": "InvalidRequest",
    "401": "Unauthorized",
    "403": "AccessDenied",
    "409": "ConditionalRequestConflict",
    "412": "PreconditionFailed",
    "429": "TooManyRequests",
    "500": "InternalError",
    "501": "NotImplemented",
    "503": "SlowDown",
}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_any(self):
        self.close_connection = True
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        fault = self.server.next_fault(self.command)
        if callable(fault):
            fault = fault()
        if self.server.compares_raw and self.headers.get("if-match", "").startswith('"'):
            fault = "412"
        match (fault or "").split():
            case [] | ["cut"] | ["slow"] | ["stalled-body"]:
                self.answer(*self.passed_on(body), fault)
            case ["lost"]:  # the request is applied, and the connection drops before the answer
                self.passed_on(body)
            case ["lost", "stalled"]:
                self.passed_on(body)
                self.server.released.wait()
            case ["lost", status]:
                self.passed_on(body)
                self.refuse(status)
            case ["dropped"]:
                pass
            case ["stalled"]:
                self.server.released.wait()
            case ["late"]:  # applied when its sender has given it up
                late, arrived = self.server.late, self.server.arrived
                late.wait()
                self.passed_on(body)
                arrived.set()
            case [status]:
                self.refuse(status)

    do_GET = do_any  # noqa: N815
    do_HEAD = do_any  # noqa: N815
    do_PUT = do_any  # noqa: N815
    do_POST = do_any  # noqa: N815

    def passed_on(self, body):
        connection = http.client.HTTPConnection(self.server.behind)
        unread = {"connection", *self.server.unread}
        headers = {name: value for name, value in self.headers.items() if name.lower() not in unread}
        connection.request(self.command, self.path, body, headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, answer.getheaders(), content

    def answer(self, status, headers, content, fault=None):
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in ("connection", "transfer-encoding", "content-length", "date", "server"):
                self.send_header(name, value)
        size = dict(headers).get("Content-Length", "0") if self.command == "HEAD" else str(len(content))
        self.send_header("content-length", size)
        self.send_header("connection", "close")
        self.end_headers()
        match fault:
            case "cut":
                self.wfile.write(content[: len(content) // 2])
            case "stalled-body":
                self.wfile.write(content[: len(content) // 2])
                self.server.released.wait()
            case "slow":
                for i in range(0, len(content), 7):
                    self.wfile.write(content[i : i + 7])
                    self.wfile.flush()
                    self.server.released.wait(0.001)
            case _:
                self.wfile.write(content)

    def refuse(self, status):
        code = REFUSED[status]
        body = (
            f"<?xml version='1.0'?>\n<Error><Code>{code}</Code><Message>Not\nnow</Message></Error>".encode()
        )
        self.answer(int(status), [("content-type", "application/xml")], body)

    def log_message(self, *arguments):
        pass
