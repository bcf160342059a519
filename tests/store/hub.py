"""A hub on 127.0.0.1 with the part of its protocol that a dataset needs: commits, files in LFS, trees."""

import base64
import hashlib
import json
import re
from collections import deque
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock
from urllib.parse import unquote, urlsplit

from tests.store.object_store import serving

REPO = "owner/echo"
TEXT = (".json", ".md", ".gitattributes")
"""Files in plain git; others are in LFS."""


class Hub(ThreadingHTTPServer):
    """One dataset, REPO.

    commits: its files by path, oldest commit first; the number of one, in hexadecimal, is its hash. uploads:
    hashes of files that were sent to LFS. refused: statuses of answers, the last one for ever; None for none.
    before_commit: called before a commit is applied.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.commits, self.lfs, self.uploads = [{".gitattributes": b"*"}], {}, []
        self.refused, self.lock, self.before_commit = deque(), Lock(), lambda: None
        self.endpoint = f"http://127.0.0.1:{self.server_port}"

    def commit_at(self, revision):
        """The number of a commit, None for an unknown revision."""
        if revision == "main":
            return len(self.commits) - 1
        number = int(revision, 16) if re.fullmatch("[0-9a-f]{40}", revision) else len(self.commits)
        return number if number < len(self.commits) else None

    def files(self, folder=""):
        """The present files in a folder but for git's, by their path in it."""
        files = self.commits[-1].items()
        return {
            path.removeprefix(folder): content
            for path, content in files
            if path.startswith(folder) and not path.startswith(".git")
        }

    def handle_error(self, request, client_address):
        pass  # the client has gone


@contextmanager
def dataset_hub():
    """A hub that lasts as long as the block."""
    with serving(Hub()) as hub:
        yield hub


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *arguments):
        pass

    def do_any(self):
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        path = unquote(urlsplit(self.path).path)
        refused = self.server.refused
        if refused and (status := refused[0] if len(refused) == 1 else refused.popleft()):
            self.answer(status)
        elif match := re.fullmatch("/lfs/([0-9a-f]{64})", path):
            assert hashlib.sha256(body).hexdigest() == match[1]
            self.server.lfs[match[1]] = body
            self.server.uploads.append(match[1])
            self.answer(200)
        elif path == "/api/validate-yaml":
            self.answer(200, {"errors": [], "warnings": []})
        elif path.startswith((f"/api/datasets/{REPO}", f"/datasets/{REPO}")):
            self.of_repo(path.partition(REPO)[2], body)
        else:
            self.answer(404, code="RepoNotFound")

    do_GET = do_POST = do_PUT = do_any  # noqa: N815

    def of_repo(self, path, body):
        match path.strip("/").split("/", 2):
            case [".git", *_]:
                self.lfs_batch(json.loads(body))
            case ["preupload", _]:
                asked = json.loads(body)
                is_ignored = asked.get("gitIgnore", "*") != ""  # the dataset has a .gitignore for everything
                files = [{**file, "shouldIgnore": is_ignored} for file in asked["files"]]
                modes = ["regular" if file["path"].endswith(TEXT) else "lfs" for file in files]
                pairs = zip(files, modes, strict=True)
                self.answer(200, {"files": [{**file, "uploadMode": mode} for file, mode in pairs]})
            case ["commit", _]:
                self.commit(body)
            case [""]:
                self.revision("main")
            case ["revision", revision]:
                self.revision(revision)
            case ["tree", revision, *folder]:
                self.tree(revision, *folder)
            case ["resolve", revision, name]:
                self.file(revision, name)

    def revision(self, revision):
        number = self.server.commit_at(revision)
        if number is None:
            self.answer(404, code="RevisionNotFound")
        else:
            self.answer(200, {"id": REPO, "sha": f"{number:040x}"})

    def tree(self, revision, folder=""):
        files = self.server.commits[self.server.commit_at(revision)]
        found = [
            {"type": "file", "path": path, "size": len(content), "oid": "0" * 40}
            for path, content in files.items()
            if not folder or path.startswith(f"{folder}/")
        ]
        if folder and not found:
            self.answer(404, code="EntryNotFound")
        else:
            self.answer(200, found)

    def file(self, revision, name):
        content = self.server.commits[self.server.commit_at(revision)].get(name)
        if content is None:
            self.answer(404, code="EntryNotFound")
        else:
            self.answer(200, content)

    def lfs_batch(self, asked):
        href = f"{self.server.endpoint}/lfs/"
        objects = [
            file
            if file["oid"] in self.server.lfs
            else {**file, "actions": {"upload": {"href": href + file["oid"]}}}
            for file in asked["objects"]
        ]
        self.answer(200, {"transfer": "basic", "objects": objects})

    def commit(self, body):
        self.server.before_commit()
        header, *operations = map(json.loads, body.splitlines())
        with self.server.lock:
            if header["value"].get("parentCommit") != f"{len(self.server.commits) - 1:040x}":
                self.answer(412)
                return
            files = dict(self.server.commits[-1])
            for operation in operations:
                value = operation["value"]
                match operation["key"]:
                    case "file":
                        files[value["path"]] = base64.b64decode(value["content"])
                    case "lfsFile":
                        files[value["path"]] = self.server.lfs[value["oid"]]
                    case "deletedFile":
                        del files[value["path"]]
            self.server.commits.append(files)
            number = len(self.server.commits) - 1
        url = f"{self.server.endpoint}/datasets/{REPO}/commit/{number:040x}"
        self.answer(200, {"commitUrl": url, "commitOid": f"{number:040x}"})

    def answer(self, status, content=b"", code=None):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        if isinstance(content, bytes):
            self.send_header("X-Linked-Etag", f'"{hashlib.sha256(body).hexdigest()}"')
        else:
            self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
