"""What the tests of data share."""

import gc
import http.server
import threading
from contextlib import suppress

import pytest
from tiny_sets import accept, write


@pytest.fixture(scope="module", autouse=True)
def connections_are_closed_here():
    """Close connections here, not in a later file's test, which takes the warning for its own."""
    yield
    gc.collect()


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    def tiny(name):
        write(name, tmp_path)
        accept(name, tmp_path, monkeypatch)
        return tmp_path

    return tiny


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server of the files of tmp_path/served; ``.asked`` are the paths that were asked for."""
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=tmp_path / "served")

        def do_GET(self):
            asked.append(self.path)
            with suppress(BrokenPipeError):  # torchvision looks for redirects first and hangs up
                super().do_GET()

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        server.asked, server.url = asked, f"http://127.0.0.1:{server.server_port}/"
        yield server
        server.shutdown()
        thread.join()
