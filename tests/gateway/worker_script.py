"""Tiny workers for the tests of gateway.workers; `streams` does so as slowly as it is asked to."""

from __future__ import annotations

import asyncio
import os
import signal
import time

from aiohttp import web

from gateway.worker_seat import WorkerSeat
from gateway.workers import EXIT_NO_RESTART
from telemetry.lifecycle import Drain

DEADLINE_S = 10.0


class Worker:
    def __init__(self, seat: WorkerSeat) -> None:
        self.in_flight = 0
        self._seat = seat

    async def lives(self, request: web.Request) -> web.Response:
        return web.json_response({"pid": os.getpid(), "life": self._seat.life, "ended": self._seat.ended})

    async def pid(self, request: web.Request) -> web.Response:
        return web.Response(text=str(os.getpid()))

    async def count(self, request: web.Request) -> web.StreamResponse:
        """Streams the numbers below `to`, one line every 20 ms."""
        self.in_flight += 1
        try:
            response = web.StreamResponse()
            await response.prepare(request)
            for number in range(int(request.query["to"])):
                await response.write(f"{number}\n".encode())
                await asyncio.sleep(0.02)
            await response.write_eof()
            return response
        finally:
            self.in_flight -= 1


async def _serve(seat: WorkerSeat) -> None:
    worker = Worker(seat)
    drain = Drain(lambda: worker.in_flight, deadline_s=DEADLINE_S)
    drain.listen()
    app = web.Application()
    app.add_routes([web.get(f"/{one.__name__}", one) for one in (worker.pid, worker.lives, worker.count)])
    runner = web.AppRunner(app, shutdown_timeout=0.1)  # 0 would mean: wait for ever
    await runner.setup()
    site = web.SockSite(runner, seat.listen())
    await site.start()
    seat.report_ready()
    await drain.run(site.stop, runner.cleanup)


def streams(seat: WorkerSeat) -> None:
    seat.take()
    asyncio.run(_serve(seat))


def deaf(seat: WorkerSeat) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    seat.report_ready()
    time.sleep(600)


def cannot_start(_seat: WorkerSeat) -> None:
    raise SystemExit("no such model folder")


def brief(seat: WorkerSeat) -> None:
    seat.report_ready()
    raise SystemExit(3)


def wrongly_configured(_seat: WorkerSeat) -> None:
    raise SystemExit(EXIT_NO_RESTART)


WORKERS = {work.__name__: work for work in (streams, deaf, cannot_start, brief, wrongly_configured)}
