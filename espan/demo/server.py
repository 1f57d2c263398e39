"""The web server of `espan demo`: its socket, its temporary folder and its shutdown."""

import errno
import ipaddress
import logging
import os
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path

import uvicorn

from espan.demo.app import make_app
from espan.demo.connections import bounded
from espan.demo.jobs import WebJobs
from espan.demo.limits import Limits
from espan.demo.work import Work
from espan.errors import InputError

log = logging.getLogger("espan")


def listen(host: str, port: int) -> socket.socket:
    """A listening socket, opened before the networks load; InputError if that fails."""
    if not 0 <= port <= 65535:
        raise InputError(f"port: expected 0 to 65535, got {port}")
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(address[:2], family=family)
    except (OSError, UnicodeError) as error:
        number = error.errno if isinstance(error, OSError) else None
        # The socket module adds the address to the system's message; unknown hosts have no errno.
        named = isinstance(error, socket.gaierror | UnicodeError)
        reason = "no such host" if named or number is None else os.strerror(number).lower()
        hint = "; choose another with --port" if number == errno.EADDRINUSE else ""
        raise InputError(f"{host}, port {port}: {reason}{hint}") from error


def serve(listener: socket.socket, work: Work, limits: Limits, names: list[str]) -> None:
    """Serves until interrupted, then cancels running jobs and deletes all files.

    DeviceLostError after a GPU failure, which requires a new process.
    """
    host, port, *_ = listener.getsockname()
    local = ipaddress.ip_address(host).is_loopback
    with tempfile.TemporaryDirectory(prefix="espan-demo-") as folder:
        jobs = WebJobs(work, Path(folder), limits)
        try:
            app = make_app(jobs, work, limits, names=names, local=local)
            shown = f"[{host}]" if ":" in host else host
            Server(app, limits, jobs, f"http://{shown}:{port}").run(sockets=[listener])
        finally:
            jobs.close()
    if jobs.lost:
        raise jobs.lost


class Server(uvicorn.Server):
    """uvicorn without logging; at shutdown it also ends the jobs and their event streams."""

    def __init__(self, app: Callable, limits: Limits, jobs: WebJobs, address: str):
        super().__init__(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                lifespan="off",
                ws="none",
                server_header=False,
                proxy_headers=False,
                http=bounded(limits),
                timeout_graceful_shutdown=3,
            )
        )
        logging.getLogger("uvicorn").setLevel(logging.WARNING)
        self.jobs, self.address = jobs, address

    async def startup(self, sockets=None) -> None:
        await super().startup(sockets)
        log.info("open %s in a browser; stop with Ctrl-C", self.address)

    async def on_tick(self, counter: int) -> bool:
        """Whether to shut down; called every tenth of a second."""
        return await super().on_tick(counter) or self.jobs.closing

    def handle_exit(self, sig, frame) -> None:
        """Ctrl-C and SIGTERM: graceful shutdown; a second signal does not wait for clients."""
        self.jobs.closing = True
        self.force_exit, self.should_exit = self.should_exit, True
