"""A W&B server for tests, on this machine: takes what wandb 0.31 and wandb-workspaces send, and shows it.

    with WandbServer() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        ...
        server.runs["classic-0"].history

It answers the GraphQL operations that these clients need, the stream of a run's files and uploads to its storage.
"""

import base64
import gzip
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any

ENTITY = "somebody"
KEY = "f" * 40  # looks like an API key

Json = dict[str, Any]


@dataclass
class ServedRun:
    """What one run sent to the server; the last value of each setting counts.

    Attributes:
        upserts: variables of every ``UpsertBucket``: displayName, groupName, tags, config, ...
        lines: name of a streamed file -> offset -> line of JSON.
        files: uploaded files by name.
        exit_code: None as long as the run has not ended.
    """

    name: str
    upserts: list[Json] = field(default_factory=list)
    lines: dict[str, dict[int, str]] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    exit_code: int | None = None

    @property
    def history(self) -> list[Json]:
        """The run's rows: one dictionary for each call of ``log``."""
        return self._streamed("wandb-history.jsonl")

    @property
    def summary(self) -> Json:
        """The run's summary: the last value of each key."""
        return (self._streamed("wandb-summary.json") or [{}])[-1]

    @property
    def config(self) -> Json:
        """The run's configuration, nested as it was given."""
        sent = json.loads(self.about("config") or "{}")
        return {key: entry["value"] for key, entry in sent.items()}

    def about(self, key: str) -> Any:
        """A setting of the run: displayName, groupName, jobType, tags, ..."""
        return next((one[key] for one in reversed(self.upserts) if one.get(key)), None)

    def _streamed(self, name: str) -> list[Json]:
        return [json.loads(line) for _, line in sorted(self.lines.get(name, {}).items())]


class WandbServer:
    """A W&B server in threads of this process, until the ``with`` block ends.

    Attributes:
        runs: by id.
        views: variables of every saved workspace; ``spec`` is JSON text.
        operations: names of the GraphQL operations, in the order in which they came.
        refuses_views: as a server does that has no such project.
        mood: "well"; "failing" answers with 500, "silent" takes requests and never answers, as does a closed server
            behind a firewall.
    """

    def __init__(self) -> None:
        self.runs: dict[str, ServedRun] = {}
        self.views: list[Json] = []
        self.operations: list[str] = []
        self.refuses_views = False
        self.mood = "well"
        self.left = threading.Event()
        self._http = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"served": self}))
        self._http.daemon_threads = True
        self._http.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients reset idle connections
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> "WandbServer":
        threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, kind: type | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.left.set()
        self._http.shutdown()
        self._http.server_close()

    def run(self, name: str) -> ServedRun:
        """The run of this id, new or known."""
        return self.runs.setdefault(name, ServedRun(name))

    def answer(self, path: str, body: bytes) -> Json:
        """What a request is answered with; it is kept."""
        if path.endswith("/graphql"):
            request = json.loads(body)
            return self._graphql(request["query"], request.get("variables") or {})
        if stream := re.fullmatch(r"/files/[^/]+/[^/]+/([^/]+)/file_stream", path):
            return self._stream(self.run(stream[1]), json.loads(body))
        if upload := re.fullmatch(r"/storage/([^/]+)/(.+)", path):
            self.run(upload[1]).files[upload[2]] = body
        return {}  # also wandb's reports on itself

    def _stream(self, run: ServedRun, sent: Json) -> Json:
        for name, part in (sent.get("files") or {}).items():
            for number, line in enumerate(part["content"], start=part["offset"]):
                run.lines.setdefault(name, {})[number] = line
        if sent.get("complete"):
            run.exit_code = sent.get("exitcode")
        return {"limits": {}}

    def _graphql(self, query: str, sent: Json) -> Json:
        named = re.search(r"(?:query|mutation)\s+(\w+)", query)
        operation = named[1] if named else ""
        self.operations.append(operation)
        if operation == "UpsertView2":
            return {"data": {"upsertView": None if self.refuses_views else self._save_view(sent)}}
        if operation == "UpsertBucket":
            return {"data": {"upsertBucket": self._upsert(sent)}}
        if operation == "RunResumeStatus":
            return {"data": {"model": {"id": "p", "name": "p", "entity": _entity(), "bucket": None}}}  # never resumed
        if operation == "CreateRunFiles":
            urls = [{"name": name, "uploadUrl": f"{self.url}/storage/{sent['run']}/{name}"} for name in sent["files"]]
            return {"data": {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": urls}}}
        if operation == "CreateArtifact":  # committed: no upload follows
            artifact = {"id": "a", "state": "COMMITTED", "artifactSequence": {"latestArtifact": None}}
            return {"data": {"createArtifact": {"artifact": artifact}}}
        if "viewer" in query:
            return {"data": {"viewer": _viewer(), "serverInfo": _server_info()}}
        if "serverInfo" in query:
            return {"data": {"serverInfo": {"features": []}}}
        return {"data": {"project": None, "entity": None}}

    def _save_view(self, sent: Json) -> Json:
        self.views.append(sent)
        return {"view": {"id": f"v{len(self.views)}", "name": sent["name"]}, "inserted": True}

    def _upsert(self, sent: Json) -> Json:
        updates = sent.get("id") and not sent.get("name")  # by the id that was given out at the first time
        name = base64.b64decode(sent["id"]).decode() if updates else sent.get("name") or sent["id"]
        inserted = name not in self.runs
        run = self.run(name)
        run.upserts.append(sent)
        project = {"id": "p", "name": run.about("project") or "", "entity": _entity()}
        bucket = {
            "id": base64.b64encode(name.encode()).decode(),
            "name": name,
            "displayName": run.about("displayName") or name,
            "config": run.about("config") or "{}",
            "project": project,
            "historyLineCount": len(run.history),
        }
        return {"bucket": bucket, "inserted": inserted}


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    served: WandbServer

    def log_message(self, *_: Any) -> None:
        pass

    def _respond(self) -> None:
        body = self._body()
        if self.served.mood == "silent":
            self.served.left.wait()
            raise ConnectionAbortedError
        if self.served.mood == "failing":
            self.send_error(500)
            return
        content = json.dumps(self.served.answer(self.path, body)).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_HEAD = _respond  # noqa: N815

    def _body(self) -> bytes:
        body = b""
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            while size := int(self.rfile.readline().strip() or b"0", 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        else:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        return gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body


def _entity() -> Json:
    return {"id": "e", "name": ENTITY, "__typename": "Entity"}


def _viewer() -> Json:
    return {
        "id": "u",
        "entity": ENTITY,
        "username": ENTITY,
        "name": ENTITY,
        "email": "somebody@example.org",
        "admin": False,
        "flags": "{}",
        "teams": {"edges": [{"node": {"name": ENTITY}}]},
        "defaultEntity": _entity(),
        "apiKeys": {"edges": []},
    }


def _server_info() -> Json:
    versions = {"max_cli_version": "99.0.0", "min_cli_version": "0.1.0"}
    return {"cliVersionInfo": versions, "latestLocalVersionInfo": None, "features": []}
