"""A package index on this machine, and a place where there is none."""

import functools
import http.server
import shutil
import socket
import ssl
import threading
from contextlib import contextmanager
from pathlib import Path

KEY_PAIR = Path(__file__).with_name("localhost.pem")


class _Handler(http.server.SimpleHTTPRequestHandler):
    def do_GET(self):
        self.server.requested.append(self.path)
        super().do_GET()

    def log_message(self, *_):
        pass


class _Server(http.server.ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        """A client that does not trust the certificate hangs up; that is what some tests are about."""


@contextmanager
def serve(root, key_pair=None):
    """Serve the folder ``root``; ``.address`` is the index, ``.requested`` what was asked for."""
    (root / "files").mkdir(parents=True)
    server = _Server(("127.0.0.1", 0), functools.partial(_Handler, directory=str(root)))
    server.requested, server.root = [], root
    if key_pair:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(key_pair)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    server.address = f"http{'s' if key_pair else ''}://127.0.0.1:{server.server_port}/simple"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def publish(root: Path, package: str, archive: Path) -> Path:
    """Put ``archive`` into the index at ``root`` as a file of ``package``."""
    shutil.copy(archive, root / "files")
    page = root / "simple" / package / "index.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(f'<!DOCTYPE html><a href="../../files/{archive.name}#sha256=0">{archive.name}</a>')
    return page


def free_port() -> int:
    """A port of this machine where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
