"""Standing rules of a live session: `session.rules.add("tell me when the bell rings")`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from anymodal.protocol import Rule
from anymodal.protocol import Rules as RulesEvent

Command = Callable[[dict[str, Any], Callable[[Any], Any]], Awaitable[Any]]
Book = tuple[Rule, ...]


class Rules:
    """One change after the other: the server answers each with the whole list. What it refuses raises RefusedError."""

    def __init__(self, command: Command) -> None:
        self._command = command
        self._lock = asyncio.Lock()

    async def add(self, text: str) -> Rule:
        """The rule as the server understood it; its events come with the session's."""
        async with self._lock:
            before = {rule.name for rule in await self._book({"type": "anymodal.rule.list"}, lambda book: True)}

            def new(book: Book) -> list[Rule]:
                return [rule for rule in book if rule.name not in before]

            return new(await self._book({"type": "anymodal.rule.add", "text": text}, lambda book: bool(new(book))))[0]

    async def list(self) -> Book:
        async with self._lock:
            return await self._book({"type": "anymodal.rule.list"}, lambda book: True)

    async def pause(self, name: str) -> None:
        await self._change("pause", name, lambda rule: rule is not None and rule.paused)

    async def resume(self, name: str) -> None:
        await self._change("resume", name, lambda rule: rule is not None and not rule.paused)

    async def remove(self, name: str) -> None:
        await self._change("remove", name, lambda rule: rule is None)

    async def _change(self, what: str, name: str, done: Callable[[Rule | None], bool]) -> None:
        async with self._lock:
            await self._book({"type": f"anymodal.rule.{what}", "name": name},
                             lambda book: done(next((rule for rule in book if rule.name == name), None)))

    async def _book(self, event: dict[str, Any], done: Callable[[Book], bool]) -> Book:
        def match(found: Any) -> Any:
            return found.rules if isinstance(found, RulesEvent) and done(found.rules) else None

        return await self._command(event, match)
