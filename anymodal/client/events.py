"""What `async for event in session` yields: the events of `anymodal.protocol`, by their types, and five of this side.

An event of a newer server, which this client does not know, comes as `OtherEvent`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from anymodal import protocol
from anymodal.client.errors import ProtocolError


@dataclass(frozen=True, slots=True)
class ConnectionLost:
    """It is tried again by itself; what is pushed meanwhile is kept."""

    reason: str


@dataclass(frozen=True, slots=True)
class ConnectionBack:
    """The session goes on. `events_lost`: events of the server that were missed and are kept no longer."""

    down_s: float
    events_lost: int = 0


@dataclass(frozen=True, slots=True)
class MediaDropped:
    """There was no room: `counts` is by stream, of the whole session."""

    counts: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class CameraLost:
    """A device that `stream_camera` shows brings nothing any more; it is opened again and again."""

    stream: str
    reason: str


@dataclass(frozen=True, slots=True)
class CameraBack:
    """It brings frames again; `down_s` of them are missing."""

    stream: str
    down_s: float


@dataclass(frozen=True, slots=True)
class OtherEvent:
    """`data` is the event as it came."""

    type: str
    seq: int
    data: Mapping[str, Any] = field(default_factory=dict)


Event = (protocol.ServerEvent | OtherEvent | ConnectionLost | ConnectionBack | MediaDropped | CameraLost
         | CameraBack)


def read_event(text: str) -> Any:
    """A server's event. Raises ProtocolError for what is none."""
    try:
        return protocol.server_events.validate_json(text)
    except ValidationError as error:
        try:
            data = json.loads(text)
            kind, seq = data["type"], int(data["anymodal"]["seq"])
        except (ValueError, LookupError, TypeError):
            raise ProtocolError(f"the server sent no event: {text[:200]!r}", fix="is it an anymodal server?") from error
        if not isinstance(kind, str):
            raise ProtocolError(f"the server sent an event of type {kind!r:.100}") from error
        return OtherEvent(kind, seq, data)


def number_of(event: Any) -> int:
    return event.seq if isinstance(event, OtherEvent) else event.anymodal.seq
