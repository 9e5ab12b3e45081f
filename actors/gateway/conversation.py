"""The items of a live session's conversation, and the question that the next response answers.

What was answered before is read again only in a `dialogue`, from the session's log: an item that is deleted is no question
any more, and cannot be retrieved.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any

from actors.gateway.faults import Fault
from actors.gateway.outbox import Outbox
from anymodal import protocol as p

MOST_ITEMS = 1024  # the newest can be retrieved


class Conversation:
    """`question`: of the user's last message, "" where it has none; `last_item`: what comes next stands behind it. For the
    event loop."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._items: OrderedDict[str, p.Item] = OrderedDict()
        self.question, self.last_item = "", None
        self.question_item = ""  # that the question is of

    def add(self, item: p.Item, *, whole: bool = True) -> None:
        """An item enters, told by `added`, and by `done` where it is whole already."""
        before, self.last_item = self.last_item, item.id
        self._keep(item)
        self._outbox.put(p.ItemAdded, previous_item_id=before, item=item)
        if whole:
            self._outbox.put(p.ItemDone, previous_item_id=before, item=item)

    def done(self, item: p.Item) -> None:
        """An item that was added is whole."""
        self._keep(item)
        self._outbox.put(p.ItemDone, item=item)

    def heard(self, id: str, transcript: str) -> None:
        """What was said in an item."""
        if (item := self._items.get(id)) is not None:
            self._keep(item.model_copy(update={"content": (p.InputAudio(type="input_audio", transcript=transcript),)}))

    def ask(self, question: str, item: str) -> None:
        self.question, self.question_item = question, item

    def retrieve(self, id: str) -> p.Item:
        """Raises Fault for one that there is not."""
        if id not in self._items:
            raise Fault(404, "item_not_found", f"there is no item {id!r:.100}", param="item_id",
                        fix="it was deleted, or is too old")
        return self._items[id]

    def delete(self, id: str) -> None:
        """Raises Fault for one that there is not."""
        self.retrieve(id)
        del self._items[id]
        if id == self.question_item:
            self.ask("", "")
        if id == self.last_item:
            self.last_item = next(reversed(self._items), None)
        self._outbox.put(p.ItemDeleted, item_id=id)

    def restore(self, noted: Mapping[str, Any], events: Iterable[Mapping[str, Any]]) -> None:
        """As it was when the process before this one ended."""
        for event in events:
            if event["type"] in ("conversation.item.added", "conversation.item.done"):
                self._keep(p.Item.model_validate(event["item"]))
            elif event["type"] == "conversation.item.input_audio_transcription.completed":
                self.heard(event["item_id"], event["transcript"])
            elif event["type"] == "conversation.item.deleted":
                self._items.pop(event["item_id"], None)
        self.question, self.last_item = noted["question"], noted["last_item"]
        self.question_item = noted.get("question_item", "")

    def _keep(self, item: p.Item) -> None:
        self._items[item.id] = item
        while len(self._items) > MOST_ITEMS:
            self._items.popitem(last=False)
