"""A server with OpenAI's HTTP API that misbehaves on demand, on 127.0.0.1."""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

WORDS = ["a", " red", " circle"]
"""What it answers, piece by piece, unless it is asked to misbehave."""


class FaultServer:
    """`faults`: what the next requests for an answer get, first one first; after that, answers.

    "500" (a status), "400", "hang", "drip" (a stream that never ends), "cut" (ends in the middle),
    "html", "broken" (JSON), "no gzip" (though it says so), "empty", "stream error", "no content",
    "no usage", "silent" (answers, without a stream), "no end" (says all, and keeps the connection
    open), "close" (the connection, without a word), "long text", "long stream", "long body",
    "long line", "long refusal" (30 MB, or 1.1 MB of text); or a reply in JSON. `bodies`,
    `headers`: of the requests that came.
    `retry_after`: sent with each status but 200. `port`: 0 for a free one.
    """

    def __init__(self, port: int = 0) -> None:
        self.faults: deque[str] = deque()
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.models = ["tiny"]
        self.models_status = 200
        self.not_ready = 0
        """How many requests for its models get a status of 503 first."""
        self.closes = 0
        """How many are closed without a word before those."""
        self.retry_after: str | None = None
        self.meeting: threading.Barrier | None = None
        """Where requests for an answer wait for each other."""
        self.ending = threading.Event()
        server = self

        class Handler(_Handler):
            fault_server = server

        self.handler = Handler
        self._http = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._http.daemon_threads = True
        self.port = self._http.server_address[1]
        self.base_url = f"http://127.0.0.1:{self.port}/v1"
        self._thread = threading.Thread(target=self._http.serve_forever, args=[0.01], daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.ending.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    fault_server: FaultServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: Any) -> None: ...

    def do_GET(self) -> None:
        mine = self.fault_server
        models = {"data": [{"id": name} for name in mine.models]}
        if mine.closes:
            mine.closes -= 1
            self.close_connection = True
            return
        if mine.not_ready:
            mine.not_ready -= 1
            error = {"error": {"message": "Loading model", "type": "unavailable_error"}}
            self._send(503, "application/json", json.dumps(error))
            return
        self._send(mine.models_status, "application/json", json.dumps(models))

    def do_POST(self) -> None:
        mine = self.fault_server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        mine.bodies.append(body)
        mine.headers.append(dict(self.headers))
        fault = mine.faults.popleft() if mine.faults else ""
        if mine.meeting is not None:
            mine.meeting.wait(30)
        if fault.isdigit():
            key = self.headers.get("Authorization", "")
            error = {"error": {"message": f"asked to give {fault} to {key}", "code": int(fault)}}
            self._send(int(fault), "application/json", json.dumps(error))
        elif fault == "hang":
            mine.ending.wait(30)
            self.close_connection = True
        elif fault == "close":
            self.close_connection = True
        elif fault == "html":
            self._send(200, "text/html", "<html>This is no model</html>")
        elif fault == "broken":
            self._send(200, "application/json", '{"choices": [{"mess')
        elif fault == "no gzip":
            self._send(200, "application/json", "plain text", encoding="gzip")
        elif fault == "empty":
            self._send(200, "application/json", "")
        elif fault == "no content":
            self._send(200, "application/json", '{"choices": [{"message": {"content": null}}]}')
        elif fault.startswith("long "):
            self._long(fault)
        elif fault.startswith("{"):
            self._send(200, "application/json", fault)
        elif body["stream"] and fault != "silent":
            self._stream(fault)
        else:
            answer = {
                "choices": [{"message": {"content": "".join(WORDS)}}],
                "usage": {"completion_tokens": len(WORDS)},
            }
            if fault == "no usage":
                del answer["usage"]
            self._send(200, "application/json; charset=utf-8", json.dumps(answer))

    def _long(self, fault: str) -> None:
        """An answer of far more text than any model gives, until nobody reads it any more."""
        kind = "text/event-stream" if "stream" in fault or "line" in fault else "application/json"
        self.send_response(400 if fault == "long refusal" else 200)
        self.send_header("Content-Type", kind)
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        text = "x" * 100_000
        try:
            if fault == "long text":
                answer = {"choices": [{"message": {"content": text * 11}}]}
                self.wfile.write(json.dumps(answer).encode())
            elif fault == "long stream":
                for _ in range(300):
                    self._event({"choices": [{"delta": {"content": text}}]})
            elif fault == "long refusal":
                self.wfile.write(json.dumps({"error": text}).encode())
            else:  # "long body", "long line"
                self.wfile.write(b"data: ")
                for _ in range(300):
                    self.wfile.write(text.encode())
        except OSError:
            return

    def _stream(self, fault: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        if fault == "stream error":
            self._event({"error": {"message": "out of memory"}})
            return
        for word in WORDS:
            self._event({"choices": [{"delta": {"content": word}, "finish_reason": None}]})
            if fault == "cut":
                return
        if fault == "broken stream":
            self.wfile.write(b'data: {"choices": [\n\n')
            return
        while fault == "drip" and not self.fault_server.ending.is_set():
            try:
                self._event({"choices": [{"delta": {"content": "."}, "finish_reason": None}]})
            except OSError:
                return
            time.sleep(0.02)
        self._event({"choices": [{"delta": {}, "finish_reason": "stop"}]})
        if fault != "no usage":
            self._event({"choices": [], "usage": {"completion_tokens": len(WORDS)}})
        if fault == "no end":
            self.fault_server.ending.wait(30)
            return
        self.wfile.write(b"data: [DONE]\n\n")

    def _event(self, data: Any) -> None:
        self.wfile.write(f"data: {json.dumps(data)}\n\n".encode())
        self.wfile.flush()

    def _send(self, status: int, kind: str, text: str, *, encoding: str | None = None) -> None:
        data = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        if encoding is not None:
            self.send_header("Content-Encoding", encoding)
        self.send_header("Content-Length", str(len(data)))
        if status != 200 and self.fault_server.retry_after is not None:
            self.send_header("Retry-After", self.fault_server.retry_after)
        self.end_headers()
        self.wfile.write(data)
