"""The Hub on loopback: an HTTP server that keeps repositories in memory and speaks what huggingface_hub's client asks.

Repositories of models and data sets with branches and commits, LFS uploads with verification, `resolve` with ETag and
commit, the model card's check, tokens, and faults on demand: `hub.fail("PUT", "/lfs/", times=2, status=503)`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import socket
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from hub_card_check import errors_of_card

# By name as on the Hub's .gitattributes; everything else is text in git.
LFS_NAMES = re.compile(r"\.(safetensors|parquet|png|bin|onnx)$")


def git_oid(content: bytes) -> str:
    """What git calls a file's content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


@dataclass
class Repo:
    """Branches and commits: a commit is the files of its tree."""

    kind: str
    name: str
    private: bool
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def commit(self, branch: str, files: dict[str, bytes], message: str) -> str:
        parent = self.branches.get(branch, "")
        digest = hashlib.sha1(f"{parent}{len(self.commits)}{message}{sorted(files)}".encode()).hexdigest()
        self.commits[digest] = files
        self.branches[branch] = digest
        self.messages.append(message)
        return digest

    def at(self, revision: str) -> str | None:
        """The commit of a branch or of itself."""
        revision = self.branches.get(revision, revision)
        return revision if revision in self.commits else None

    @property
    def files(self) -> dict[str, bytes]:
        return self.commits[self.branches["main"]]


@dataclass
class Fault:
    """What goes wrong with the next `times` requests of a method whose path holds a text."""

    method: str
    path: str
    times: int
    status: int | None  # None: the connection is dropped in the middle of the body
    headers: dict[str, str]
    body: dict[str, str]


class LoopbackHub(ThreadingHTTPServer):
    """`with LoopbackHub() as hub: hub.url`, for HF_ENDPOINT."""

    daemon_threads = True

    def __init__(self, tokens: dict[str, str] | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.tokens = {} if tokens is None else tokens  # token -> owner
        self.repos: dict[tuple[str, str], Repo] = {}
        self.lfs: dict[str, bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self.faults: list[Fault] = []
        self.lock = threading.RLock()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self) -> LoopbackHub:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()

    def fail(self, method: str, path: str, *, times: int = 1, status: int | None = None, body=None, **headers: str):
        """The next `times` such requests fail; without a status the connection breaks off."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.faults.append(Fault(method, path, times, status, named, body or {"error": f"told to answer {status}"}))

    def asked(self, method: str, path: str) -> int:
        """How many such requests there were."""
        return sum(each == method and path in where for each, where in self.requests)

    def repo(self, name: str, kind: str = "model") -> Repo:
        return self.repos[kind, name]

    def add(self, name: str, files: dict[str, bytes], kind: str = "model") -> Repo:
        """A repository that is there already."""
        made = self.repos[kind, name] = Repo(kind, name, private=False)
        made.commit("main", files, "initial commit")
        return made

    def fault_for(self, method: str, path: str) -> Fault | None:
        with self.lock:
            self.requests.append((method, path))
            for fault in self.faults:
                if fault.times and fault.method == method and fault.path in path:
                    fault.times -= 1
                    return fault
        return None


class _Answer(Exception):
    def __init__(self, status: int, value: Any = None, **headers: str) -> None:
        self.status, self.value = status, value
        self.headers = {name.replace("_", "-"): text for name, text in headers.items()}


_REPO = r"(?P<repo>[^/]+/[^/]+)"
_API = rf"/api/(?P<kind>model|dataset|space)s/{_REPO}"
_ROUTES = [
    ("GET", r"/api/whoami-v2", "whoami"),
    ("POST", r"/api/repos/create", "create"),
    ("POST", r"/api/validate-yaml", "validate"),
    ("GET", rf"{_API}/refs", "refs"),
    ("GET", rf"{_API}(/revision/(?P<revision>[^/]+))?", "info"),
    ("GET", rf"{_API}/tree/(?P<revision>[^/]+)(/(?P<path>.*))?", "tree"),
    ("POST", rf"{_API}/paths-info/(?P<revision>[^/]+)", "paths_info"),
    ("POST", rf"{_API}/branch/(?P<revision>[^/]+)", "branch"),
    ("POST", rf"{_API}/preupload/(?P<revision>[^/]+)", "preupload"),
    ("POST", rf"{_API}/commit/(?P<revision>[^/]+)", "commit"),
    ("POST", rf"(/(?P<kind>dataset)s)?/{_REPO}\.git/info/lfs/objects/batch", "lfs_batch"),
    ("PUT", r"/lfs/(?P<oid>\w+)", "lfs_put"),
    ("POST", r"/lfs/verify", "lfs_verify"),
    ("GET", rf"(/(?P<kind>dataset)s)?/{_REPO}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "resolve"),
]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: LoopbackHub

    def log_message(self, *_: object) -> None:
        """Says nothing on the console."""

    def _serve(self) -> None:
        url = urlsplit(self.path)
        self.query = parse_qs(url.query)
        fault = self.server.fault_for(self.command, url.path)
        length = int(self.headers.get("Content-Length") or 0)
        if fault is not None and fault.status is None:
            self.rfile.read(length // 2)
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
            return
        self.body = self._chunks() if self.headers.get("Transfer-Encoding") == "chunked" else self.rfile.read(length)
        try:
            if fault is not None:
                raise _Answer(fault.status, fault.body, **fault.headers)
            method = "GET" if self.command == "HEAD" else self.command
            for verb, pattern, name in _ROUTES:
                if verb == method and (found := re.fullmatch(pattern, url.path)):
                    with self.server.lock:
                        getattr(self, f"_{name}")(**{k: unquote(v) if v else v for k, v in found.groupdict().items()})
            raise _Answer(404, {"error": f"no such route: {method} {url.path}"})
        except _Answer as answer:
            self._send(answer)

    do_GET = do_HEAD = do_POST = do_PUT = _serve

    def _chunks(self) -> bytes:
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _send(self, answer: _Answer) -> None:
        content = answer.value if isinstance(answer.value, bytes) else json.dumps(answer.value).encode()
        headers = {"Content-Type": "application/json", "Content-Length": str(len(content)), **answer.headers}
        if isinstance(answer.value, dict) and "error" in answer.value:
            headers["X-Error-Message"] = answer.value["error"]
        self.send_response(answer.status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    # --- who, and what repository ---

    def _user(self) -> str:
        """The owner of the token; 401 where it is none of ours."""
        given = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if given not in self.server.tokens:
            raise _Answer(401, {"error": f"Invalid username or password: {given}"})  # as rude as a server can be
        return self.server.tokens[given]

    def _found(self, repo: str, kind: str | None) -> Repo:
        found = self.server.repos.get((kind or "model", repo))
        if found is None and "Authorization" in self.headers:
            self._user()
        if found is None or (found.private and self._user() != repo.split("/")[0]):
            raise _Answer(404, {"error": "Repository not found"}, X_Error_Code="RepoNotFound")
        return found

    def _at(self, repo: str, kind: str | None, revision: str | None) -> tuple[Repo, str]:
        found = self._found(repo, kind)
        commit = found.at(revision or "main")
        if commit is None:
            raise _Answer(404, {"error": f"Invalid rev id: {revision}"}, X_Error_Code="RevisionNotFound")
        return found, commit

    def _may_write(self, repo: str) -> None:
        if self._user() != repo.split("/")[0]:
            raise _Answer(403, {"error": "Forbidden: pass a token with write access to this repository"})

    def _whoami(self) -> None:
        raise _Answer(200, {"type": "user", "name": self._user(), "auth": {"accessToken": {"role": "write"}}})

    def _create(self) -> None:
        asked = json.loads(self.body)
        user = self._user()
        name, kind = f"{asked.get('organization') or user}/{asked['name']}", asked.get("type", "model")
        self._may_write(name)
        if (kind, name) in self.server.repos:
            raise _Answer(409, {"error": "You already created this model repo", "url": f"{self.server.url}/{name}"})
        private = asked.get("private") is True or asked.get("visibility") == "private"
        made = self.server.repos[kind, name] = Repo(kind, name, private)
        made.commit(
            "main", {".gitattributes": b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"}, "initial commit"
        )
        raise _Answer(200, {"url": f"{self.server.url}/{name}", "name": name})

    def _validate(self) -> None:
        errors = errors_of_card(json.loads(self.body)["content"])
        raise _Answer(400 if errors else 200, {"errors": [{"message": each} for each in errors], "warnings": []})

    # --- reading ---

    def _info(self, kind: str, repo: str, revision: str | None = None) -> None:
        found, commit = self._at(repo, kind, revision)
        files = found.commits[commit]
        card = re.match(rb"---\n(.*?)\n---", files.get("README.md", b""), re.DOTALL)
        import yaml

        raise _Answer(
            200,
            {
                "_id": "1",
                "id": repo,
                "modelId": repo,
                "sha": commit,
                "private": found.private,
                "tags": [],
                "downloads": 0,
                "likes": 0,
                "siblings": [{"rfilename": path} for path in sorted(files)],
                "cardData": yaml.safe_load(card.group(1)) if card else {},
            },
        )

    def _refs(self, kind: str, repo: str) -> None:
        branches = self._found(repo, kind).branches.items()
        listed = [{"name": name, "ref": f"refs/heads/{name}", "targetCommit": sha} for name, sha in branches]
        raise _Answer(200, {"branches": listed, "tags": [], "converts": []})

    def _entry(self, path: str, content: bytes) -> dict[str, Any]:
        entry = {"type": "file", "path": path, "size": len(content), "oid": git_oid(content)}
        if LFS_NAMES.search(path):
            entry["lfs"] = {"oid": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 130}
        return entry

    def _tree(self, kind: str, repo: str, revision: str, path: str | None = None) -> None:
        found, commit = self._at(repo, kind, revision)
        inside = f"{path.rstrip('/')}/" if path else ""
        listed = {name: content for name, content in sorted(found.commits[commit].items()) if name.startswith(inside)}
        if path and not listed:
            raise _Answer(404, {"error": "no such folder"}, X_Error_Code="EntryNotFound")
        below = lambda name: name.removeprefix(inside).partition("/")  # noqa: E731
        deep = self.query.get("recursive", ["false"])[0].lower() in ("true", "1")
        entries = [self._entry(name, listed[name]) for name in listed if deep or not below(name)[1]]
        folders = sorted({inside + below(name)[0] for name in listed if below(name)[1]})
        entries += [{"type": "directory", "path": name, "oid": git_oid(name.encode()), "size": 0} for name in folders]
        raise _Answer(200, entries)

    def _paths_info(self, kind: str, repo: str, revision: str) -> None:
        found, commit = self._at(repo, kind, revision)
        asked = parse_qs(self.body.decode()).get("paths") or json.loads(self.body or b"{}").get("paths", [])
        files = found.commits[commit]
        raise _Answer(200, [self._entry(path, files[path]) for path in asked if path in files])

    def _resolve(self, kind: str | None, repo: str, revision: str, path: str) -> None:
        found, commit = self._at(repo, kind, revision)
        files = found.commits[commit]
        if path not in files:
            raise _Answer(404, {"error": "Entry not found"}, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
        content = files[path]
        etag = hashlib.sha256(content).hexdigest() if LFS_NAMES.search(path) else git_oid(content)
        headers = {"X-Repo-Commit": commit, "ETag": f'"{etag}"', "Accept-Ranges": "bytes"}
        start = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if start and self.command == "GET":
            first, last = int(start[1]), int(start[2] or len(content) - 1)
            headers["Content-Range"] = f"bytes {first}-{last}/{len(content)}"
            raise _Answer(206, content[first : last + 1], **headers)
        raise _Answer(200, content, **headers)

    # --- writing ---

    def _branch(self, kind: str, repo: str, revision: str) -> None:
        self._may_write(repo)
        found = self._found(repo, kind)
        if revision in found.branches:
            raise _Answer(409, {"error": "Reference already exists"})
        found.branches[revision] = found.at(json.loads(self.body or b"{}").get("startingPoint") or "main")
        raise _Answer(200, {})

    def _preupload(self, kind: str, repo: str, revision: str) -> None:
        self._may_write(repo)
        found, commit = self._at(repo, kind, revision)
        there = found.commits[commit]
        raise _Answer(200, {"files": [self._mode(each["path"], there) for each in json.loads(self.body)["files"]]})

    def _mode(self, path: str, there: dict[str, bytes]) -> dict[str, Any]:
        is_lfs, content = bool(LFS_NAMES.search(path)), there.get(path)
        known = {}
        if content is not None:
            known["oid"] = hashlib.sha256(content).hexdigest() if is_lfs else git_oid(content)
        return {"path": path, "uploadMode": "lfs" if is_lfs else "regular", "shouldIgnore": False, **known}

    def _lfs_batch(self, repo: str, kind: str | None = None) -> None:
        self._may_write(repo)
        objects = []
        for each in json.loads(self.body)["objects"]:
            if each["oid"] not in self.server.lfs:
                each["actions"] = {
                    "upload": {"href": f"{self.server.url}/lfs/{each['oid']}?X-Signature=secret-of-the-storage"},
                    "verify": {"href": f"{self.server.url}/lfs/verify"},
                }
            objects.append(each)
        raise _Answer(200, {"transfer": "basic", "objects": objects})

    def _lfs_put(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            raise _Answer(400, {"error": "the content is not what was announced"})
        self.server.lfs[oid] = self.body
        raise _Answer(200, {})

    def _lfs_verify(self) -> None:
        asked = json.loads(self.body)
        stored = self.server.lfs.get(asked["oid"])
        raise _Answer(200 if stored is not None and len(stored) == asked["size"] else 404, {})

    def _commit(self, kind: str, repo: str, revision: str) -> None:
        self._may_write(repo)
        found, commit = self._at(repo, kind, revision)
        files = dict(found.commits[commit])
        message = ""
        for line in self.body.splitlines():
            part = json.loads(line)
            value = part["value"]
            if part["key"] == "header":
                message = value["summary"]
                if value.get("parentCommit", commit) != commit:
                    raise _Answer(412, {"error": "A commit has happened since. Please refresh and try again."})
            elif part["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif part["key"] == "lfsFile":
                if value["oid"] not in self.server.lfs:
                    raise _Answer(400, {"error": f"{value['path']}: no such LFS object"})
                files[value["path"]] = self.server.lfs[value["oid"]]
            elif part["key"] == "deletedFile":
                del files[value["path"]]
        made = found.commit(revision, files, message)
        raise _Answer(200, {"success": True, "commitOid": made, "commitUrl": f"{self.server.url}/{repo}/commit/{made}"})
