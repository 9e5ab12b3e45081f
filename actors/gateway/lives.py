"""All live sessions: begun, found again by their token, let go of when nobody has come back, kept over a restart."""

from __future__ import annotations

import asyncio
import hmac
import logging
import secrets
import time
import uuid
from pathlib import Path

from actors.gateway.context import Gateway
from actors.gateway.dispatch import digest
from actors.gateway.faults import Fault
from actors.gateway.hosts import NAME
from actors.gateway.live import Live
from actors.gateway.outbox import Outbox
from anymodal import protocol as p
from anymodal.errors import AnymodalError

LOOK_EVERY_S = 0.5
SUFFIX = ".live"  # of journals
RESTART = "the server is restarted: come back with your token"

log = logging.getLogger("anymodal")


class Lives:
    """For the event loop alone."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._lives: dict[str, Live] = {}
        self._waking = asyncio.Lock()
        self._tidying: asyncio.Task | None = None

    async def start(self) -> None:
        self._gateway.settings.sessions.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._tidying = asyncio.create_task(self._tidy(), name="tidy live sessions")

    async def drain(self) -> None:
        """Say goodbye to all; they can be gone on with after a restart."""
        if self._tidying is not None:
            self._tidying.cancel()
        lives, self._lives = list(self._lives.values()), {}
        for outcome in await asyncio.gather(*(live.leave(1012, RESTART) for live in lives), return_exceptions=True):
            if isinstance(outcome, BaseException):
                log.error("a live session did not end well", exc_info=outcome)

    # -- coming and going ---------------------------------------------------------------------------------------

    def begin(self, client: str) -> Live:
        """A new session. Raises Fault (429) where there is no place."""
        self._gateway.sessions.take(client)
        live = Live(self._gateway, f"sess_{uuid.uuid4().hex}", secrets.token_urlsafe(24), client, self._ended)
        self._lives[live.id] = live
        live.start()
        live.outbox.put(p.SessionCreated, session=live.describe())
        live.save()
        return live

    async def find(self, id: str, token: str, client: str) -> Live:
        """The session that a client comes back to. Raises Fault (404): whoever guesses learns nothing more."""
        gone = Fault(404, "session_gone", "there is no such session, or not with this token", param="anymodal_session",
                     fix="it has ended, or nobody came back for too long: begin a new one")
        if not NAME.fullmatch(id):
            raise gone
        async with self._waking:
            live = self._lives.get(id) or await self._woken(id, token, client)
        if live is None or not hmac.compare_digest(live.token.encode(), token.encode()) or live.client != client:
            raise gone
        return live

    async def _woken(self, id: str, token: str, client: str) -> Live | None:
        """A session of the process before this one."""
        live = Live(self._gateway, id, token, client, self._ended)
        if not await self._gateway.pushes.run(live.outbox.load):
            return None
        noted = live.outbox.checkpoint
        known = hmac.compare_digest(noted["token"], digest(token)) and noted["client"] == client
        if not known or noted["bundle"] != self._gateway.host.name or self._is_over(live.outbox.path):
            return None
        self._gateway.sessions.take(client)
        try:
            await live.restore(noted)
        except BaseException:
            self._gateway.sessions.give_back(client)
            raise
        self._lives[id] = live
        live.start()
        return live

    def _ended(self, live: Live) -> None:
        if self._lives.pop(live.id, None) is not None:
            self._gateway.sessions.give_back(live.client)

    # -- what nobody came back for ------------------------------------------------------------------------------

    def _is_over(self, path: Path) -> bool:
        """Of a session that is only a journal."""
        try:
            return time.time() - path.stat().st_mtime > self._gateway.settings.resumable_s
        except OSError:
            return True

    async def _tidy(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            try:
                for live in list(self._lives.values()):
                    if live.socket is None and time.monotonic() - live.left_at_s > self._gateway.settings.resumable_s:
                        await live.end()
                await self._forget_old()
            except Exception:
                log.exception("live sessions could not be looked after")

    async def _forget_old(self) -> None:
        """Sessions of processes before this one."""
        folder = self._gateway.settings.sessions
        for path in await self._gateway.pushes.run(lambda: [f for f in folder.glob(f"*{SUFFIX}") if self._is_over(f)]):
            id = path.name.removesuffix(SUFFIX)
            if id in self._lives or not NAME.fullmatch(id):
                continue
            try:
                await self._gateway.pushes.run(self._forget, id, path)
            except AnymodalError as error:
                log.warning("session %s is left behind: %s", id, error)

    def _forget(self, id: str, path: Path) -> None:
        """In a thread."""
        outbox = Outbox(path, 1)
        try:
            self._gateway.host.forget(id)
        finally:
            outbox.forget()
