"""What an error of obstore means: an answer, a refusal, or no answer; in one line for people.

obstore tells statuses and causes apart in the text of its errors only: the answer of the store, and after it
the Rust value, whose first `kind` is that of the failed connection.
"""

from __future__ import annotations

import re

from obstore.exceptions import AlreadyExistsError, PreconditionError

from vidlat.errors import StoreError, printable
from vidlat.store.storage.interface import Unreachable

RETRY_SECONDS = 60.0
"""A request that fails is begun again for this long."""

_PASSING = {408, 409, 412, 416, 425, 429, 500, 502, 503, 504}
"""Statuses after which a repetition may help. 416: the rest of an object was read that has become shorter."""
_KINDS = {
    "Timeout": "no answer in time",
    "Connect": "no connection",
    "Request": "a broken connection",
    "Interrupted": "a broken connection",
    "Decode": "an answer that was cut short",
}
_NO_BUCKET = re.compile("NoSuchBucket|ContainerNotFound|bucket does not exist")
_BEYOND = re.compile("Invalid range|Wanted range starting at|InvalidRange")
_NO_CREDENTIALS = "no credentials"
_UNTRUSTED = "a certificate that is not trusted"
_ADVICE = {
    "RequestTimeTooSkewed": "set the clock of this machine",
    "403": "look at the credentials in the environment and at what they may do; who may not list a bucket is "
    "answered so for a missing object too",
    "404": "look at the name of the bucket and at the endpoint",
    "412": "this store refuses a condition that holds: encode into a folder and push that to another store",
    "501": "this store lacks a request that is needed, such as conditional writes: encode into a folder and "
    "push that",
    "Range request not supported": "this web server sends no parts of files: copy all of it into a folder",
    _NO_CREDENTIALS: "set those of the store in the environment, such as AWS_ACCESS_KEY_ID and "
    "AWS_SECRET_ACCESS_KEY, or AWS_SKIP_SIGNATURE=true for a public bucket",
    "Account must be specified": "set AZURE_STORAGE_ACCOUNT_NAME in the environment",
    _UNTRUSTED: "look at the address; where the store has an authority of its own, name the file of its "
    "certificate in SSL_CERT_FILE",
    "no connection": "look at the network and at the endpoint in the environment, then start again",
}
_ADVICE["401"] = _ADVICE["403"]
_PATIENCE = f"it was asked again for up to {RETRY_SECONDS:.0f} s; start again later"


def may_pass(error: Exception) -> bool:
    """Whether a repetition may have another end: after a refused condition, or no answer."""
    if isinstance(error, AlreadyExistsError | PreconditionError):
        return True
    status = _status(error)
    if status:
        return int(status) in _PASSING
    return _kind(error) is not None and what_was_got(error) not in (_NO_CREDENTIALS, _UNTRUSTED)


def is_missing(error: Exception) -> bool:
    """Whether the store answered that it has no such object, but has the bucket."""
    return isinstance(error, FileNotFoundError) and not _NO_BUCKET.search(str(error))


def is_beyond(error: Exception) -> bool:
    """Whether a range begins where the object has ended."""
    return _status(error) == "416" or _BEYOND.search(_answer(error)) is not None


def is_refused(error: Exception) -> bool:
    """Whether the store answered that the condition of a write does not hold."""
    return _status(error) == "412"


def explained(error: Exception, where: str) -> StoreError:
    """An error that says what was got and what to do; Unreachable, unless the store can never do it."""
    got = what_was_got(error)
    known = next((advice for word, advice in _ADVICE.items() if word in got), None)
    advice = known or (_PATIENCE if may_pass(error) else "look at the address and at the store's settings")
    if "501" in got or "not supported" in got:
        return StoreError(f"{where}: got {got}; expected it to be possible: {advice}")
    return Unreachable(f"{where}: cannot be reached: got {got}; expected an answer: {advice}")


def what_was_got(error: Exception) -> str:
    """The answer of the store, or why there was none, in a few words."""
    answer, kind = _answer(error), _kind(error)
    if "/latest/api/token" in answer or "Missing AccessKeyId" in answer or "metadata.google" in answer:
        return _NO_CREDENTIALS
    if status := re.search(r"status code: (\d{3}[^:<\n]*)", answer):
        code = re.search(r"<Code>(\w+)</Code>", answer)
        return f"{status[1].strip()} ({code[1]})" if code else status[1].strip()
    return kind or printable(" ".join(answer.split()))[:200]


def _answer(error: Exception) -> str:
    return str(error).split("\n\nDebug source")[0]


def _status(error: Exception) -> str | None:
    status = re.search(r"status code: (\d{3})", _answer(error))
    return status[1] if status else None


def _kind(error: Exception) -> str | None:
    if "InvalidCertificate" in str(error):
        return _UNTRUSTED
    kind = re.search(r"\bHttpError \{\s*kind: (\w+)", str(error))
    return _KINDS.get(kind[1]) if kind else None
