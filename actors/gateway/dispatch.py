"""What each event of a client does in a live session."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

from actors.gateway import g711
from actors.gateway.answers import Running
from actors.gateway.faults import Fault
from actors.gateway.hearing import new_item
from actors.gateway.inbox import Waiting
from actors.gateway.inputs import Piece, Sound
from anymodal import protocol as p

if TYPE_CHECKING:
    from actors.gateway.live import Live

G711 = {"audio/pcmu": "pcmu", "audio/pcma": "pcma"}
LEAST_HZ, MOST_HZ = 8000, 48_000  # of input_audio_buffer
TURNS = (("threshold", 0.01, 0.99), ("silence_duration_ms", 20, 10_000), ("prefix_padding_ms", 0, 5000))
TOLD_S = 5.0  # how long a flush waits for its windows to be told


def digest(token: str) -> str:
    """What is kept of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def is_media(event: Any) -> bool:
    return isinstance(event, p.InputAppend | p.AudioAppend)


def place(live: Live, event: Any) -> tuple[Piece, ...]:
    """Where an event's media belong, decided when it comes. Raises Fault."""
    if isinstance(event, p.InputAppend):
        return (live.inputs.place(event),)
    if isinstance(event, p.AudioAppend):
        return (live.inputs.place_sound(event.audio, event.pts_s),)
    items: tuple[p.Item, ...] = ()
    if isinstance(event, p.ItemCreate):
        items = (event.item,)
    elif isinstance(event, p.ResponseCreate) and event.response is not None:
        items = event.response.input or ()
    images = [part for item in items for part in item.content if isinstance(part, p.InputImage)]
    return tuple(live.inputs.place_image(part.image_url, part.pts_s, part.stream) for part in images)


def flushes(live: Live, event: Any) -> bool:
    """Is what came before to be seen first, a window cut short too? Decided when it comes, for what comes after it."""
    if isinstance(event, p.InputFlush):
        return True
    at_s = event.response.anymodal.at_s if isinstance(event, p.ResponseCreate) and event.response and (
        event.response.anymodal) else None
    return isinstance(event, p.ResponseCreate) and at_s is None and live.inputs.settled and (
        live.inputs.newest_s > live.end_s)


async def handle(live: Live, waiting: Waiting) -> None:
    """Do what an event says. Raises what is wrong with it."""
    if waiting.pieces:
        await live.take_now(waiting)
    if waiting.flush:
        await flush(live)
    await HANDLERS[type(waiting.event)](live, waiting.event)


# -- the session --------------------------------------------------------------------------------------------------


async def _session_update(live: Live, event: p.SessionUpdate) -> None:
    given = event.session
    if given.model not in (None, live.gateway.host.name):
        raise Fault(400, "invalid_value", f"the model is {live.gateway.host.name!r} and cannot be changed",
                    param="session.model", fix="open another session")
    if given.output_modalities is not None and "text" not in given.output_modalities:
        raise Fault(400, "modality_not_supported", "answers are text", param="session.output_modalities", fix='["text"]')
    sound, turns = _audio(live, given.audio or {})
    streams = given.anymodal.streams if given.anymodal else None
    if streams is not None and streams != live.inputs.streams:
        if live.opened:
            raise Fault(409, "streams_are_fixed", "streams cannot be declared once something was sent",
                        param="session.anymodal.streams", fix="declare them first, or open another session")
        live.inputs.use(streams)
    if turns != live.turn_detection:
        live.turn_detection = turns
        live.hearing.reset()
    live.inputs.sound = sound
    if given.instructions is not None:
        live.instructions = given.instructions
    live.outbox.put(p.SessionUpdated, session=live.describe())
    if given.instructions:
        _warn_of_instructions(live, "session.instructions", event.event_id)


def _warn_of_instructions(live: Live, param: str, event_id: str | None) -> None:
    if not live.reads_instructions:
        live.outbox.put(p.Warned, code="instructions_not_read", param=param, client_event_id=event_id, message=(
            f"instructions are kept and have no effect: {live.gateway.host.name!r} was trained on questions alone"))


def _audio(live: Live, audio: dict[str, Any]) -> tuple[Sound, dict[str, Any] | None]:
    """`audio.input` of session.update: what input_audio_buffer holds, and turn_detection. Raises Fault."""
    found = audio.get("input") or {}
    if not isinstance(found, dict):
        raise Fault(400, "invalid_value", f"audio.input is {found!r:.60}", param="session.audio.input", fix="an object")
    sound = _sound(live.inputs.sound, found.get("format"))
    turns = found.get("turn_detection", live.turn_detection)
    if turns is not None and not (isinstance(turns, dict) and turns.get("type", "server_vad") == "server_vad"):
        raise Fault(400, "invalid_value", f"turn_detection is {turns!r:.60}", param="session.audio.input.turn_detection",
                    fix='{"type": "server_vad"}, or null')
    for name, least, most in TURNS:
        value = (turns or {}).get(name)
        if value is not None and not (type(value) in (int, float) and least <= value <= most):
            raise Fault(400, "invalid_value", f"turn_detection.{name} is {value!r:.40}", fix=f"{least:g} to {most:g}",
                        param=f"session.audio.input.turn_detection.{name}")
    return sound, turns


def _sound(now: Sound, shape: Any) -> Sound:
    """`audio.input.format`; without one it stays. Raises Fault."""
    if shape is None or shape == {}:
        return now
    kind = shape.get("type", now.format["type"]) if isinstance(shape, dict) else None
    if kind in G711 and shape.get("rate", g711.RATE_HZ) == g711.RATE_HZ:
        return Sound(G711[kind], g711.RATE_HZ)
    rate_hz = shape.get("rate", now.rate_hz if now.encoding == "pcm16" else p.RATE_HZ) if kind == "audio/pcm" else None
    if type(rate_hz) is not int or not LEAST_HZ <= rate_hz <= MOST_HZ:
        raise Fault(400, "invalid_format", f"audio.input.format is {shape!r:.100}", param="session.audio.input.format",
                    fix=f'{{"type": "audio/pcm", "rate": 24000}}, with a rate of {LEAST_HZ} to {MOST_HZ} Hz, '
                    f'{{"type": "audio/pcmu"}} or {{"type": "audio/pcma"}}')
    return Sound("pcm16", rate_hz)


async def _session_close(live: Live, event: p.SessionClose) -> None:
    asyncio.get_running_loop().call_soon(live.end_soon)


# -- the conversation ---------------------------------------------------------------------------------------------


async def _item_create(live: Live, event: p.ItemCreate) -> None:
    item = event.item
    id = item.id or new_item()
    sound = next((c.audio for c in item.content if isinstance(c, p.InputAudio) and c.audio and not c.transcript), None)
    if item.role == "user":
        live.conversation.ask(_text(item), id)
        live.hearing.last = None
        if sound and not live.conversation.question:
            await live.hearing.say(id, sound, live.inputs.sound)
            return
    live.conversation.add(item.model_copy(update={
        "id": id, "content": tuple(_without_media(part) for part in item.content)}))


async def _item_retrieve(live: Live, event: p.ItemRetrieve) -> None:
    live.outbox.put(p.ItemRetrieved, item=live.conversation.retrieve(event.item_id))


async def _item_delete(live: Live, event: p.ItemDelete) -> None:
    if live.answers.running is not None and live.answers.running.item == event.item_id:
        raise Fault(409, "item_in_progress", "the item is an answer that is still being given", param="item_id",
                    fix="cancel it first, or wait for its response.done")
    if event.item_id == live.conversation.question_item:
        live.hearing.last = None
    live.conversation.delete(event.item_id)


def _text(item: p.Item) -> str:
    """What an item says."""
    parts = [part.text if isinstance(part, p.InputText) else getattr(part, "transcript", None) for part in item.content]
    return "\n".join(part for part in parts if part)


def _without_media(part: Any) -> Any:
    """Pictures and sounds are not sent back."""
    if isinstance(part, p.InputImage):
        return part.model_copy(update={"image_url": ""})
    return part.model_copy(update={"audio": None}) if isinstance(part, p.InputAudio) else part


async def _response_create(live: Live, event: p.ResponseCreate) -> None:
    live.bucket = live.gateway.clients.admit(live.client)
    given = event.response or p.ResponseConfig()
    asked = given.anymodal or p.AskExtras()
    said = [_text(item) for item in given.input or () if item.role == "user"]
    question: Awaitable[str] | None = None
    text = "\n".join(filter(None, said)) or live.conversation.question
    if not text and live.hearing.last is not None and not said:
        question = asyncio.shield(live.hearing.last)
    instructions = given.instructions if given.instructions is not None else live.instructions
    if not text and question is None:  # a prompt and nothing else is the question
        text, instructions = given.instructions or "", None
    if not text.strip() and question is None:
        raise Fault(400, "no_question", "there is no question to answer", param="response.input",
                    fix="create an item of role user with input_text before")
    live.answers.begin(Running(text, at_s=asked.at_s, wait_s=asked.wait_s, dialogue=asked.dialogue,
                               metadata=given.metadata,
                               instructions=instructions if live.reads_instructions else None), question)
    if given.instructions and instructions:
        _warn_of_instructions(live, "response.instructions", event.event_id)


async def _response_cancel(live: Live, event: p.ResponseCancel) -> None:
    await live.answers.cancel("client", event.response_id)


# -- sound --------------------------------------------------------------------------------------------------------


async def _audio_commit(live: Live, event: p.AudioCommit) -> None:
    await live.hearing.commit()


async def _audio_clear(live: Live, event: p.AudioClear) -> None:
    live.hearing.forget()
    live.outbox.put(p.AudioCleared)


# -- what OpenAI has no name for ----------------------------------------------------------------------------------


async def _input_flush(live: Live, event: p.InputFlush) -> None:
    live.outbox.put(p.InputFlushed, end_s=live.end_s)


async def flush(live: Live) -> None:
    """See all that has come, a window cut short too, and have it told."""
    session = await live.session()
    await live.gateway.asks.run(session.flush)
    windows = await live.gateway.pushes.run(lambda: session.windows)
    await live.told_until(windows * live.inputs.window_s, TOLD_S)


def _rule(action: str) -> Callable[[Live, Any], Awaitable[None]]:
    async def change(live: Live, event: Any) -> None:
        session = await live.session()

        def work() -> Any:
            if action != "list":
                getattr(session.rules, action)(event.text if action == "add" else event.name)
            return session.rules.list()

        live.telling.all_rules(await live.gateway.asks.run(work))

    return change


async def _search(live: Live, event: p.Search) -> None:
    if live.gateway.host.spec.search is None:
        raise Fault(400, "not_supported", f"the model {live.gateway.host.name!r} cannot search: its bundle has no `search`",
                    param="type", fix="ask a question instead, or serve a bundle that lists what it can look for")
    session = await live.session()
    hits = await live.gateway.asks.run(partial(session.search, event.query))
    live.outbox.put(p.SearchResults, query=event.query, hits=tuple(p.Hit(**asdict(hit)) for hit in hits))


HANDLERS: dict[type, Callable[[Live, Any], Awaitable[None]]] = {
    p.SessionUpdate: _session_update, p.SessionClose: _session_close, p.ItemCreate: _item_create,
    p.ItemRetrieve: _item_retrieve, p.ItemDelete: _item_delete,
    p.ResponseCreate: _response_create, p.ResponseCancel: _response_cancel, p.AudioCommit: _audio_commit,
    p.AudioClear: _audio_clear, p.InputFlush: _input_flush, p.RuleAdd: _rule("add"), p.RulePause: _rule("pause"),
    p.RuleResume: _rule("resume"), p.RuleRemove: _rule("remove"), p.RuleList: _rule("list"), p.Search: _search,
}
