"""Who needs a token, and which errors of the Hub's storage are worth another attempt."""

import contextlib
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from hf_finetune.errors import UserError
from hf_finetune.publish import check_hub
from hf_finetune.publish.retry import may_pass, status_of
from hf_finetune.recipes import load_recipe


@contextlib.contextmanager
def _always(status):
    """The address of a server that gives the same answer to everything; with None of one that is gone."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_POST = do_PUT = do_HEAD = do_GET

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    url = f"http://127.0.0.1:{server.server_port}"
    if status is None:
        server.server_close()
        yield url
        return
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield url
    server.shutdown()
    server.server_close()


def test_only_the_process_that_pushes_needs_a_token(monkeypatch):
    hub = load_recipe("digits", "hub.push=true", "hub.repo=me/x").hub
    monkeypatch.setattr("huggingface_hub.constants.is_offline_mode", lambda: True)
    monkeypatch.setenv("RANK", "1")
    check_hub(hub)
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(UserError, match="HF_HUB_OFFLINE"):
        check_hub(hub)


@pytest.mark.slow
@pytest.mark.parametrize(("answer", "passes"), [(None, True), (503, True), (429, True), (401, False), (404, False)])
def test_errors_of_the_storage_pass_as_the_answer_under_them(answer, passes):
    """hf_xet itself, against a server on loopback, or none: in a process of its own, since it reads its waits once."""
    pytest.importorskip("hf_xet")
    with _always(answer) as url:
        code = f"""
import hf_xet
try:
    hf_xet.upload_bytes([b"x" * 1000], {url!r}, ("token", 2**33), None, None, "model")
except Exception as error:
    print(type(error).__name__, error)
"""
        waits = {"HF_XET_CLIENT_RETRY_MAX_ATTEMPTS": "1", "HF_XET_CLIENT_RETRY_BASE_DELAY": "10ms",
                 "HF_XET_CLIENT_RETRY_MAX_DURATION": "1sec"}  # fmt: skip
        done = subprocess.run([sys.executable, "-c", code], env=os.environ | waits, capture_output=True, text=True,
                              timeout=60, check=False)  # fmt: skip
    kind, _, words = done.stdout.strip().partition(" ")
    assert kind == "ConnectionError", done.stderr
    error = ConnectionError(words)
    assert status_of(error) == answer and may_pass(error) is passes
