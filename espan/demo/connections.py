"""Limits on connections: idle clients, and clients of one address, cannot occupy all of them."""

import asyncio
import json

from uvicorn.protocols.http.h11_impl import H11Protocol

from espan.demo.limits import Limits

BUSY = json.dumps({"error": "busy: too many connections, try again later"}).encode()


def bounded(limits: Limits) -> type[H11Protocol]:
    """uvicorn's protocol with limits that uvicorn has no settings for.

    A connection without an active request has `header_seconds` to send a complete header. A new
    connection over a limit replaces the oldest such connection, of the same address or of all; if
    there is none, it is answered with 503.
    """

    class Bounded(H11Protocol):
        _deadline: asyncio.TimerHandle | None = None

        def connection_made(self, transport) -> None:
            super().connection_made(transport)
            mine = [each for each in self.connections if _host(each) == _host(self)]
            room = self._make_room(mine, limits.per_address)
            if not self._make_room(self.connections, limits.connections) or not room:
                self.app = _busy
            self._wait()

        def connection_lost(self, exc) -> None:
            self._stop_waiting()
            super().connection_lost(exc)

        def handle_events(self) -> None:
            super().handle_events()
            if self.cycle is not None and not self.cycle.response_complete:
                self._stop_waiting()

        def on_response_complete(self) -> None:
            self._wait()
            super().on_response_complete()

        def _make_room(self, connections, most: int) -> bool:
            """Closes the oldest idle connection if there are more than `most`; False if none is."""
            if len(connections) <= most:
                return True
            waiting = [each for each in connections if each is not self and each._deadline]
            if not waiting:
                return False
            oldest = min(waiting, key=lambda each: each._deadline.when())
            oldest._hang_up()
            return True

        def _wait(self) -> None:
            self._stop_waiting()
            self._deadline = self.loop.call_later(limits.header_seconds, self._hang_up)

        def _stop_waiting(self) -> None:
            if self._deadline:
                self._deadline.cancel()
                self._deadline = None

        def _hang_up(self) -> None:
            self._stop_waiting()
            self.connections.discard(self)
            self.transport.abort()

    return Bounded


def _host(connection) -> str | None:
    return connection.client[0] if connection.client else None


async def _busy(_scope, _receive, send) -> None:
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    headers += [(b"content-length", b"%d" % len(BUSY)), (b"retry-after", b"10")]
    await send({"type": "http.response.start", "status": 503, "headers": headers})
    await send({"type": "http.response.body", "body": BUSY})
