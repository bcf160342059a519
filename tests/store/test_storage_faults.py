"""What a network and a store do wrong: no write is lost or made twice, and nobody waits without end."""

import math
import os
import queue
import random
import re
import signal
import ssl
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from uuid import uuid4

import pytest
from obstore.store import MemoryStore

from tests.store.object_store import Proxy, be_patient, environment, new_bucket, publish, s3_server, serving
from tests.thorough import some_of
from vidlat.errors import StoreError
from vidlat.store.storage import objects as object_storage
from vidlat.store.storage.interface import Changed, Exists, Missing, Unreachable, Version
from vidlat.store.storage.objects import ObjectStorage
from vidlat.store.storage.opening import open_storage

APPLIED = ("lost", "lost 500", "lost 503", "lost stalled")
NOT_APPLIED = ("409", "429", "500", "503", "dropped", "stalled")
OF_ANSWERS = ("cut", "slow", "stalled-body")
METHODS = {"create": "PUT", "replace": "PUT", "delete": "POST", "read": "GET", "list": "GET"}
OLD, NEW, OTHER = b"old" * 100, b"new" * 100, b"other" * 100


@pytest.fixture(scope="module")
def server():
    pytest.importorskip("moto", reason="needs moto, which is installed with vidlat[dev]")
    with s3_server() as address:
        yield address


@pytest.fixture(scope="module")
def bucket(server):
    return new_bucket(server)


@pytest.fixture(scope="module")
def running_proxy(server):
    with serving(Proxy(server)) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def storage(running_proxy, bucket):
    """A storage behind the proxy. A client takes as long to build as many requests, so the tests share it."""
    with pytest.MonkeyPatch.context() as patch, environment(running_proxy.address):
        be_patient(patch, 10)
        return open_storage(bucket, write=True)


@pytest.fixture(scope="module")
def direct(server, bucket):
    """The same storage without the proxy."""
    with environment(server):
        return open_storage(bucket, write=True)


@pytest.fixture
def key():
    return uuid4().hex


@pytest.fixture
def proxy(running_proxy, monkeypatch):
    """The proxy, to which the environment leads."""
    running_proxy.set()
    be_patient(monkeypatch, 10)
    with environment(running_proxy.address):
        yield running_proxy
    running_proxy.set()  # `storage` may be opened for the next test before this fixture is


def stored_in(storage, key):
    try:
        return storage.read(key)
    except Missing:
        return None


def do(verb, storage, direct, proxy, *faults, stays=False):
    """Do something through the proxy to a new key, which is OLD unless it is created.

    Returns what it gave or the error that it ended in, and what is stored then.
    """
    folder = uuid4().hex
    key = f"{folder}/a"
    version = None if verb == "create" else direct.create(key, OLD)
    proxy.set(*((METHODS[verb], fault) for fault in faults), stays=stays)
    try:
        match verb:
            case "create":
                result = storage.create(key, NEW)
            case "replace":
                result = storage.replace(key, NEW, version)
            case "delete":
                result = storage.delete(key)
            case "read":
                result = storage.read(key)
            case "list":
                result = dict(storage.list(folder))[key]
    except StoreError as error:
        result = error
    return result, stored_in(direct, key)


def is_right(verb, result, stored):
    """Whether it is as it is without faults."""
    match verb:
        case "create" | "replace":
            return stored == (NEW, result)
        case "delete":
            return result is None and stored is None
        case "read":
            return result == stored and stored[0] == OLD
        case "list":
            return result == len(OLD)


PASSING = [
    *((verb, fault) for verb in ("create", "replace", "delete") for fault in (*APPLIED, *NOT_APPLIED)),
    *((verb, fault) for verb in ("read", "list") for fault in (*NOT_APPLIED[1:], *OF_ANSWERS)),
]


@pytest.mark.parametrize(("verb", "fault"), some_of(PASSING))
def test_a_fault_that_passes_is_not_noticed(storage, direct, proxy, verb, fault):
    assert is_right(verb, *do(verb, storage, direct, proxy, fault))
    assert (METHODS[verb], True) in proxy.requests


def test_pauses_before_repetitions_take_no_numbers_from_random(storage, direct, proxy):
    """A program may have seeded it, and Hypothesis refuses an example while a thread draws from it."""
    faults = ["503"] * (object_storage.NUM_RETRIES + 1)  # more than obstore repeats by itself
    before = random.getstate()
    assert is_right("read", *do("read", storage, direct, proxy, *faults))
    assert random.getstate() == before


@pytest.mark.slow
@pytest.mark.parametrize(("verb", "fault"), PASSING)
def test_a_fault_is_never_noticed(storage, direct, proxy, verb, fault):
    """One to three times in a row, 50 times."""
    tried = [[fault] * (1 + i % 3) for i in range(50)]
    right = sum(is_right(verb, *do(verb, storage, direct, proxy, *faults)) for faults in tried)
    print(f"{verb}, {fault}: {right} of {len(tried)} right")
    assert right == len(tried)


LASTING = {
    "400": r"got 400 Bad Request \(InvalidRequest\); .*look at the address",
    "401": r"got 401 Unauthorized \(Unauthorized\); .*look at the credentials in the environment",
    "403": r"got 403 Forbidden \(AccessDenied\); .*look at the credentials in the environment",
    "429": r"got 429 Too Many Requests \(TooManyRequests\); .*start again later",
    "503": r"got 503 Service Unavailable \(SlowDown\); .*start again later",
    "dropped": r"got a broken connection; .*start again later",
    "stalled": r"got no answer in time; .*start again later",
}


@pytest.mark.parametrize("fault", some_of(LASTING))
@pytest.mark.parametrize("verb", METHODS)
def test_a_fault_that_lasts_ends_in_one_line(bucket, direct, proxy, monkeypatch, verb, fault):
    be_patient(monkeypatch, 0.1, 0.15 if fault == "stalled" else 30)
    result, stored = do(verb, open_storage(bucket), direct, proxy, fault, stays=True)
    assert type(result) is Unreachable
    assert re.fullmatch(rf"s3://\S+: cannot be reached: {LASTING[fault]}.*", str(result))
    assert (stored and stored[0]) == (None if verb == "create" else OLD)


@pytest.mark.parametrize("fault", ["cut", "stalled-body"])
@pytest.mark.parametrize("verb", ["read", "list"])
def test_an_answer_that_is_always_cut_ends_in_one_line(bucket, direct, proxy, monkeypatch, verb, fault):
    be_patient(monkeypatch, 0.1, 0.15 if fault == "stalled-body" else 30)
    result, _ = do(verb, open_storage(bucket), direct, proxy, fault, stays=True)
    assert type(result) is Unreachable
    assert re.search(r"cannot be reached: got (no answer in time|a broken connection); ", str(result))


@pytest.mark.parametrize("fault", some_of(APPLIED))
@pytest.mark.parametrize("verb", ["create", "replace"])
def test_a_write_of_which_every_answer_is_lost_has_happened(storage, direct, proxy, verb, fault):
    assert is_right(verb, *do(verb, storage, direct, proxy, fault, stays=True))


@pytest.mark.parametrize("fault", [*APPLIED, *NOT_APPLIED])
def test_what_another_creates_meanwhile_stays(storage, direct, key, proxy, fault):
    """The other writes, or writes over ours, between the fault and whatever is asked next."""

    def other():
        stored = stored_in(direct, key)
        direct.replace(key, OTHER, stored[1]) if stored else direct.create(key, OTHER)

    proxy.set(("PUT", fault), ("any", other))
    with pytest.raises(Exists, match=r": exists; expected no such object"):
        storage.create(key, NEW)
    assert direct.read(key)[0] == OTHER


@pytest.mark.parametrize("fault", [*APPLIED, *NOT_APPLIED])
def test_what_another_puts_in_place_meanwhile_stays(storage, direct, key, proxy, fault):
    version = direct.create(key, OLD)
    proxy.set(("PUT", fault), ("any", lambda: direct.replace(key, OTHER, direct.read(key)[1])))
    with pytest.raises(Changed, match=r": was changed by another process"):
        storage.replace(key, NEW, version)
    assert direct.read(key)[0] == OTHER


@pytest.mark.parametrize("verb", ["create", "replace"])
def test_a_write_that_arrives_after_it_was_given_up_changes_nothing(storage, direct, key, proxy, verb):
    version = direct.create(key, OLD) if verb == "replace" else None
    proxy.set(("PUT", "late"))
    written = storage.create(key, NEW) if verb == "create" else storage.replace(key, NEW, version)
    last = direct.replace(key, OTHER, written)
    proxy.late.set()
    assert proxy.arrived.wait(60)
    assert direct.read(key) == (OTHER, last)


@pytest.mark.parametrize("new", [b"", b"newer", NEW, NEW * 50])
def test_a_read_that_goes_on_does_not_join_two_contents(storage, direct, key, proxy, new):
    version = direct.create(key, OLD)
    proxy.set(("GET", "cut"), ("GET", lambda: direct.replace(key, new, version)))
    assert storage.read(key) == direct.read(key)
    assert direct.read(key)[0] == new


def test_four_writers_on_a_bad_day_add_everything_once(bucket, direct, proxy, key):
    """As commits will be added: after a refusal, a writer reads whether its own was added after all."""
    check_additions(bucket, direct, proxy, key, num_each=5)


@pytest.mark.slow
def test_four_writers_on_a_bad_month_add_everything_once(bucket, direct, proxy, key):
    check_additions(bucket, direct, proxy, key, num_each=100)


def check_additions(bucket, direct, proxy, key, num_each):
    direct.create(key, b"")
    faults = [fault for fault in (*APPLIED, *NOT_APPLIED) if "stalled" not in fault]
    chance = random.Random(0)
    proxy.set(*(("PUT", chance.choice([None, *faults])) for _ in range(12 * num_each)))

    def write(name):
        storage = open_storage(bucket)
        for i in range(num_each):
            token = b"%s-%03d " % (name, i)
            while token not in (read := storage.read(key))[0]:
                try:
                    storage.replace(key, read[0] + token, read[1])
                except Changed:
                    continue

    names = [b"a", b"b", b"c", b"d"]
    with ThreadPoolExecutor(4) as pool:
        [*pool.map(write, names)]
    tokens = direct.read(key)[0].split()
    assert sorted(tokens) == [b"%s-%03d" % (name, i) for name in names for i in range(num_each)]
    for name in names:
        assert [token for token in tokens if token.startswith(name)] == sorted(
            token for token in tokens if token.startswith(name)
        )


def test_a_store_that_compares_etags_without_quotes_is_written_to(bucket, proxy, direct, key, monkeypatch):
    monkeypatch.setattr(proxy, "compares_raw", True)
    storage = open_storage(f"{bucket}/{key}", write=True)
    assert [*direct.list(key)] == []
    first = storage.create("a", b"1")
    second = storage.replace("a", b"2", first)
    with pytest.raises(Changed):
        storage.replace("a", b"3", first)
    assert direct.read(f"{key}/a") == (b"2", second)


def test_a_store_that_refuses_its_own_versions_is_named(bucket, proxy, direct, key, monkeypatch):
    be_patient(monkeypatch, 1)
    proxy.set(("PUT", None), ("PUT", None), ("PUT", "412"), stays=True)
    with pytest.raises(Unreachable, match=r"got 412 .*\(PreconditionFailed\); .*a condition that holds"):
        open_storage(f"{bucket}/{key}", write=True)
    assert [*direct.list(key)] == []


@pytest.mark.skipif("VIDLAT_TEST_S3" in os.environ, reason="the signature covers the headers")
def test_a_store_without_conditional_writes_is_refused(bucket, proxy, direct, key, monkeypatch):
    for unread in (("if-match", "if-none-match"), ("if-none-match",), ("if-match",)):
        monkeypatch.setattr(proxy, "unread", unread)
        with pytest.raises(
            StoreError, match=r"no conditional writes, .*; encode into a folder and push that"
        ):
            open_storage(f"{bucket}/{key}", write=True)
        assert [*direct.list(key)] == []


def test_a_store_that_says_it_has_no_conditional_writes_is_refused(bucket, proxy, key):
    proxy.set(("PUT", "501"), stays=True)
    with pytest.raises(StoreError, match=r"got 501 Not Implemented .*: encode into a folder") as caught:
        open_storage(f"{bucket}/{key}", write=True)
    assert type(caught.value) is StoreError


@pytest.mark.parametrize("fault", some_of(["lost", "lost 503", "lost stalled", "409", "503", "dropped"]))
def test_the_probe_for_conditional_writes_outlives_faults(bucket, proxy, direct, key, fault):
    proxy.set(*[("PUT", fault), ("PUT", None)] * 3)
    open_storage(f"{bucket}/{key}", write=True)
    assert [*direct.list(key)] == []


def test_a_missing_bucket_is_told_from_a_missing_key(proxy):
    storage = ObjectStorage.at(f"s3://{uuid4().hex}/x.zarr")
    verbs = [
        lambda: storage.read("a"),
        lambda: storage.create("a", b"1"),
        lambda: storage.replace("a", b"1", Version('"1"')),
        lambda: [*storage.list()],
        lambda: storage.delete("a"),
        lambda: storage.delete("a", "b"),
    ]
    for verb in verbs:
        with pytest.raises(
            Unreachable, match=r"got 404 Not Found \(NoSuchBucket\); .*the name of the bucket"
        ):
            verb()


def test_missing_credentials_are_named(proxy, bucket, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(Unreachable, match=r"got no credentials; .* AWS_ACCESS_KEY_ID"):
        ObjectStorage.at(bucket).read("a")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(Unreachable, match=r"got no credentials; .* AWS_SECRET_ACCESS_KEY"):
        ObjectStorage.at(bucket).read("a")


def test_a_store_that_is_not_there_is_unreachable(proxy, bucket, monkeypatch):
    be_patient(monkeypatch, 0.1)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    storage = ObjectStorage.at(bucket)
    for verb in (lambda: storage.read("a"), lambda: storage.create("a", b"1")):
        with pytest.raises(
            Unreachable, match=r"got no connection; .*look at the network and at the endpoint"
        ):
            verb()


def test_a_certificate_of_nobody_known_is_named(tmp_path, monkeypatch):
    be_patient(monkeypatch, 1)
    certificate, key = own_certificate()
    (tmp_path / "both.pem").write_bytes(certificate + key)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "both.pem")
    with serving(ThreadingHTTPServer(("127.0.0.1", 0), SimpleHTTPRequestHandler)) as web:
        web.handle_error = lambda *_: None  # the client has hung up
        web.socket = tls.wrap_socket(web.socket, server_side=True, do_handshake_on_connect=False)
        storage = ObjectStorage.at(f"https://localhost:{web.server_port}/x")
        with pytest.raises(Unreachable, match=r"got a certificate that is not trusted; .* in SSL_CERT_FILE$"):
            storage.read("a")


def own_certificate():
    """A certificate of localhost that only its own key has signed, and the key."""
    x509 = pytest.importorskip("cryptography.x509", reason="needs cryptography, which moto needs")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return certificate.public_bytes(pem), key.private_bytes(pem, *private)


def test_a_web_server_is_read(server, bucket, direct, key):
    version = direct.create(key, b"0123456")
    address = bucket.replace("s3:/", server)
    publish(server, f"{bucket}/{key}")
    storage = ObjectStorage.at(address)
    assert storage.read(key) == (b"0123456", version)
    assert storage.read(key, (2, 4)) == (b"23", version)
    assert storage.read(key, (-3, None)) == (b"456", version)
    with pytest.raises(Missing):
        storage.read(f"{key}/c")
    for verb in (
        lambda: storage.create("a", b"1"),
        lambda: storage.replace(key, b"1", version),
        lambda: storage.delete(key),
        lambda: [*storage.list()],
    ):
        with pytest.raises(StoreError, match=r"can be read, not written or listed; expected a folder, s3://"):
            verb()
    assert direct.read(key) == (b"0123456", version)


def test_a_web_server_without_ranges_is_refused(tmp_path):
    class Plain(SimpleHTTPRequestHandler):
        def __init__(self, *arguments):
            super().__init__(*arguments, directory=tmp_path)

        def log_message(self, *arguments):
            pass

    (tmp_path / "a").write_bytes(b"0123456")
    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Plain)) as plain:
        storage = ObjectStorage.at(f"http://127.0.0.1:{plain.server_port}")
        assert storage.read("a")[0] == b"0123456"
        with pytest.raises(StoreError, match=r"Range request not supported .*: copy all of it into a folder"):
            storage.read("a", (2, 4))


def test_a_forked_child_is_refused_instead_of_waiting(storage, direct, key):
    direct.create(key, b"1")
    assert storage.read(key)[0] == b"1"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # what it warns of is what is tested
        child = os.fork()
    if not child:
        signal.alarm(20)
        try:
            storage.read(key)
        except StoreError as error:
            os._exit(7 if "forked" in str(error) else 8)
        os._exit(9)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


@pytest.mark.usefixtures("signals_as_in_a_terminal")
@pytest.mark.parametrize("verb", ["read", "list", "create", "delete"])
def test_ctrl_c_does_not_wait_for_an_answer(bucket, direct, key, proxy, monkeypatch, verb):
    be_patient(monkeypatch, 60, request_seconds=60)
    storage, is_caught, answered = ObjectStorage.at(bucket), threading.Event(), queue.Queue()

    def interrupt():
        os.kill(os.getpid(), signal.SIGINT)
        answered.put("after Ctrl-C" if is_caught.wait(20) else "before Ctrl-C")

    requests = {
        "read": lambda: storage.read(key),
        "list": lambda: list(storage.list()),
        "create": lambda: storage.create(key, b"x"),
        "delete": lambda: storage.delete(key),
    }
    proxy.set(("any", interrupt))
    with pytest.raises(KeyboardInterrupt):
        requests[verb]()
    is_caught.set()
    assert answered.get(timeout=60) == "after Ctrl-C"


@pytest.mark.parametrize("generation", [None, "17"])
def test_a_generation_that_a_store_lacks_is_left_out(generation):
    """Google's store refuses one that is None."""
    stated = {"e_tag": '"1"', "version": generation}

    def put(key, content, *, mode, use_multipart):
        assert mode == {name: value for name, value in stated.items() if value}
        return {"e_tag": '"2"', "version": "18"}

    storage = ObjectStorage(SimpleNamespace(put=put), "gs://bucket")
    assert storage.replace("a", b"1", Version('"1"', generation)) == Version('"2"', "18")


def test_a_store_that_complains_of_a_missing_key_deletes_the_others():
    """Google's and Azure's do; MemoryStore stands for their contents."""
    store = MemoryStore()

    def delete(keys):
        for key in keys:
            store.head(key)
            store.delete(key)

    storage = ObjectStorage(SimpleNamespace(put=store.put, list=store.list, delete=delete), "gs://bucket")
    for key in "acd":
        storage.create(key, b"1")
    storage.delete("a", "b", "c")
    assert [*storage.list()] == [("d", 1)]


def test_a_user_is_told_once_that_a_store_gives_no_answer(storage, proxy, key, monkeypatch, caplog):
    be_patient(monkeypatch, 0.5)
    monkeypatch.setattr(object_storage, "PATIENCE_SECONDS", 0.05)
    monkeypatch.setattr(object_storage._Patience, "told_at", -math.inf)
    proxy.set(("any", "503"), stays=True)
    with ThreadPoolExecutor(8) as pool:
        waits = [pool.submit(storage.read, key) for _ in range(8)]
        assert all(isinstance(each.exception(), Unreachable) for each in waits)
    told = [record.message for record in caplog.records if "asked again" in record.message]
    assert 1 <= len(told) <= 2  # a second one where the machine was busy for longer than the patience
    assert re.fullmatch(r"s3://\S+: 503 \w.*; it is asked again for up to \d+ s", told[0])
