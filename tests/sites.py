"""The whole site, built once for all tests and all workers of a session, and served to a browser."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from filelock import FileLock

from accelgen.project.places import ROOT

BUILDS: dict[str, tuple[list[str], dict[str, str]]] = {  # folder -> options and settings of `mkdocs build`
    "site": ([], {}),
    "offline": (["--no-directory-urls"], {"OFFLINE": "true"}),  # as `make offline` does it
}


def built(name: str, shared: Path) -> Path:
    """The site built strictly into the folder `name` of `shared`, which all workers of the session see.

    One build at a time: both write the same generated pages, with other addresses.
    """
    folder, done = shared / name, shared / f"{name}.done"
    options, settings = BUILDS[name]
    with FileLock(shared / "docs.lock"):
        if not done.exists():
            command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder), *options]
            env = os.environ | {"PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"} | settings
            ran = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
            assert ran.returncode == 0, ran.stderr
            done.touch()
    return folder


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Nothing: what a browser asks for is noted in the browser."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address, ending in a slash, at which a thread serves the folder."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder))) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
