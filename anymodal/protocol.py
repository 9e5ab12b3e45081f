"""The whole wire protocol of `WS /v1/realtime`, ending in two unions: what a client sends, and what the server sends.

Names without a prefix are those of OpenAI's Realtime API (GA); what it has no name for is under `anymodal`. Each event is
one JSON text message with its name in `type`; unknown keys are ignored, unknown types and wrong values answered by `error`.

Time: media time of the session in seconds, from its beginning; a client says `pts_s` with what it sends.
Numbers: every event of the server carries `anymodal.seq`, 1, 2, ... over the session's life. A client that reconnects with
the session's token and the last number it saw (`anymodal_session`, `anymodal_token`, `anymodal_last` in the address) gets
`anymodal.resumed` and then each event after that, once. `anymodal.resumed`, `anymodal.ack` and errors before there is a
session are of the connection, not of the session: they carry the last number again. A client may number its own events the
same way, with gaps if it likes; one whose number is not above all before it is ignored, so that what may have been lost can
be sent again, and `anymodal.ack` says up to which number nothing needs to be kept for that: not even the end of the
gateway's process loses it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from anymodal.media.levels import Level

RATE_HZ = 24000  # of input_audio_buffer, unless session.update says otherwise: PCM16, little endian, mono, or G.711
MODALITIES = ("video", "audio", "imu", "depth", "thermal")
ENCODINGS = ("jpeg", "png", "webp", "rgb8", "pcm16", "float32")

Seconds = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]


class _Event(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


# -- parts of events ---------------------------------------------------------------------------------------------


class Numbered(_Event):
    """What this side's events are numbered by, from 1; 0 before the first."""

    seq: Annotated[int, Field(ge=0, le=2**53)]


class Span(_Event):
    """Media time [start_s, end_s) of one modality."""

    start_s: float
    end_s: float
    modality: str


class Hit(Span):
    stream: str
    score: float
    text: str = ""  # what is there, of a window's `says`


class Rule(_Event):
    name: str
    text: str
    paused: bool = False
    active: bool = False  # is it happening now?


class Wants(_Event):
    """What the server would like to get of a modality: more is thinned out, less is seen as it is."""

    rate_hz: float
    size_px: int | None = None  # the longer side of a frame
    axes: tuple[str, ...] | None = None
    pixels: str | None = None  # of frames: rgb8 or gray16
    level: Level | None = None  # what a level of gray16 says


class InputText(_Event):
    type: Literal["input_text"]
    text: str


class InputImage(_Event):
    """One frame, as a data URL. Without a time it is shown from when it comes."""

    type: Literal["input_image"]
    image_url: str
    pts_s: Seconds | None = None
    stream: str | None = None


class InputAudio(_Event):
    """Sound as base64 of what the session's `audio.input.format` says."""

    type: Literal["input_audio"]
    audio: str | None = None
    transcript: str | None = None


class OutputText(_Event):
    type: Literal["output_text"] = "output_text"
    text: str = ""


Content = Annotated[InputText | InputImage | InputAudio | OutputText, Field(discriminator="type")]


class Item(_Event):
    id: str | None = None
    object: Literal["realtime.item"] = "realtime.item"
    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system"]
    status: Literal["in_progress", "completed", "incomplete"] = "completed"
    content: tuple[Content, ...]


class SessionExtras(_Event):
    """`session.anymodal`. A client sets `streams` (name -> modality) before it sends of any; the rest is told to it."""

    streams: dict[str, str] | None = None
    id: str | None = None
    token: str | None = None  # to come back with
    wants: dict[str, Wants] | None = None  # by modality
    window_s: float | None = None
    end_s: float | None = None  # media time seen so far
    speech: str | None = None  # the component that hears questions; None: none does
    resumable_s: float | None = None  # how long the session lives on with nobody connected


class SessionConfig(_Event):
    """`session` of session.update, .created, .updated. `audio` as in OpenAI's: input.format, .turn_detection,
    .transcription."""

    model_config = ConfigDict(extra="allow", frozen=True)
    type: Literal["realtime"] = "realtime"
    id: str | None = None
    object: Literal["realtime.session"] = "realtime.session"
    model: str | None = None
    output_modalities: tuple[Literal["text", "audio"], ...] | None = None
    instructions: str | None = None
    audio: dict[str, Any] | None = None
    anymodal: SessionExtras | None = None


class AskExtras(_Event):
    """`response.anymodal` of response.create."""

    at_s: Seconds | None = None
    wait_s: Annotated[float, Field(ge=0, le=600)] = 0.0  # for an `at_s` that has not come
    dialogue: str | None = None


class ResponseConfig(_Event):
    model_config = ConfigDict(extra="allow", frozen=True)
    instructions: str | None = None
    input: tuple[Item, ...] | None = None  # instead of the last user item
    metadata: dict[str, str] | None = None
    anymodal: AskExtras | None = None


class AnswerExtras(_Event):
    """`response.anymodal` of response.done: what the answer stands on. As `Answer` of the library."""

    confidence: float
    evidence: tuple[Span, ...]
    at_s: float
    last_window: int
    windows_missing: int
    stale_s: float
    frames_seen: int
    frames_dropped: int
    time_to_first_token_s: float
    windows_seen: int | None = None
    windows: tuple[int, ...] | None = None  # that were read, where they were read instead of all up to the last


class Response(_Event):
    id: str
    object: Literal["realtime.response"] = "realtime.response"
    status: Literal["in_progress", "completed", "cancelled", "failed", "incomplete"]
    status_details: dict[str, Any] | None = None
    output: tuple[Item, ...] = ()
    output_modalities: tuple[str, ...] = ("text",)
    usage: dict[str, Any] | None = None
    metadata: dict[str, str] | None = None
    anymodal: AnswerExtras | None = None


class Fault(_Event):
    """`error`. `code` is one word to switch on; `event_id` is that of the client's event."""

    type: str  # invalid_request_error, server_error, ...
    code: str
    message: str
    param: str | None = None
    event_id: str | None = None


# -- what a client sends -----------------------------------------------------------------------------------------


class _FromClient(_Event):
    event_id: Annotated[str, Field(max_length=512)] | None = None
    anymodal: Numbered | None = None


class SessionUpdate(_FromClient):
    type: Literal["session.update"]
    session: SessionConfig


class ItemCreate(_FromClient):
    type: Literal["conversation.item.create"]
    previous_item_id: str | None = None
    item: Item


class ItemRetrieve(_FromClient):
    type: Literal["conversation.item.retrieve"]
    item_id: Annotated[str, Field(max_length=512)]


class ItemDelete(_FromClient):
    """It is no question any more, and cannot be retrieved. What was answered stays in the session's log."""

    type: Literal["conversation.item.delete"]
    item_id: Annotated[str, Field(max_length=512)]


class AudioAppend(_FromClient):
    """Sound of the microphone, and of the session's `audio` stream. Gapless: the next sample follows the last, unless
    `pts_s` says where the first of these is: of a microphone that was off for a while."""

    type: Literal["input_audio_buffer.append"]
    audio: str
    pts_s: Seconds | None = None


class AudioCommit(_FromClient):
    """What was said since the last commit is a question."""

    type: Literal["input_audio_buffer.commit"]


class AudioClear(_FromClient):
    type: Literal["input_audio_buffer.clear"]


class ResponseCreate(_FromClient):
    type: Literal["response.create"]
    response: ResponseConfig | None = None


class ResponseCancel(_FromClient):
    type: Literal["response.cancel"]
    response_id: str | None = None


class InputAppend(_FromClient):
    """A frame or some samples of any stream. `data`: base64 of `encoding`.

    Frames, shown from `pts_s`: of rgb8 one jpeg, png, webp or rgb8 (shape [H, W, 3]); of gray16 a png of one channel of
    16 bits, or float32 (shape [H, W]) in the unit that `wants` names. audio: pcm16 or float32, mono. imu and other
    sensors: float32, shape [T, C]. All little endian; the first sample is at `pts_s`.
    """

    type: Literal["anymodal.input.append"]
    stream: Annotated[str, Field(min_length=1, max_length=64)]
    modality: Annotated[str, Field(min_length=1, max_length=32)] | None = None  # the stream's name, if not given
    pts_s: Seconds
    rate_hz: Annotated[float, Field(gt=0, le=1e6)] | None = None  # samples; for frames only what to expect
    encoding: Literal["jpeg", "png", "webp", "rgb8", "pcm16", "float32"]
    shape: tuple[Annotated[int, Field(ge=1)], ...] | None = None
    data: str


class InputFlush(_FromClient):
    """Nothing more comes for now: an unfinished window is closed. Answered by `anymodal.input.flushed`."""

    type: Literal["anymodal.input.flush"]


class RuleAdd(_FromClient):
    type: Literal["anymodal.rule.add"]
    text: Annotated[str, Field(max_length=2000)]


class RulePause(_FromClient):
    type: Literal["anymodal.rule.pause"]
    name: str


class RuleResume(_FromClient):
    type: Literal["anymodal.rule.resume"]
    name: str


class RuleRemove(_FromClient):
    type: Literal["anymodal.rule.remove"]
    name: str


class RuleList(_FromClient):
    type: Literal["anymodal.rule.list"]


class Search(_FromClient):
    type: Literal["anymodal.search"]
    query: Annotated[str, Field(max_length=2000)]


class SessionClose(_FromClient):
    """The session is over: it does not wait for the client to come back."""

    type: Literal["anymodal.session.close"]


# -- what the server sends ---------------------------------------------------------------------------------------


class _FromServer(_Event):
    event_id: str
    anymodal: Numbered


class SessionCreated(_FromServer):
    type: Literal["session.created"] = "session.created"
    session: SessionConfig


class SessionUpdated(_FromServer):
    type: Literal["session.updated"] = "session.updated"
    session: SessionConfig


class ItemAdded(_FromServer):
    type: Literal["conversation.item.added"] = "conversation.item.added"
    previous_item_id: str | None = None
    item: Item


class ItemDone(_FromServer):
    type: Literal["conversation.item.done"] = "conversation.item.done"
    previous_item_id: str | None = None
    item: Item


class ItemRetrieved(_FromServer):
    type: Literal["conversation.item.retrieved"] = "conversation.item.retrieved"
    item: Item


class ItemDeleted(_FromServer):
    type: Literal["conversation.item.deleted"] = "conversation.item.deleted"
    item_id: str


class TranscriptionDelta(_FromServer):
    type: Literal["conversation.item.input_audio_transcription.delta"] = (
        "conversation.item.input_audio_transcription.delta")
    item_id: str
    content_index: int = 0
    delta: str


class TranscriptionCompleted(_FromServer):
    type: Literal["conversation.item.input_audio_transcription.completed"] = (
        "conversation.item.input_audio_transcription.completed")
    item_id: str
    content_index: int = 0
    transcript: str
    usage: dict[str, Any] | None = None


class TranscriptionFailed(_FromServer):
    type: Literal["conversation.item.input_audio_transcription.failed"] = (
        "conversation.item.input_audio_transcription.failed")
    item_id: str
    content_index: int = 0
    error: Fault


class AudioCommitted(_FromServer):
    type: Literal["input_audio_buffer.committed"] = "input_audio_buffer.committed"
    item_id: str
    previous_item_id: str | None = None


class AudioCleared(_FromServer):
    type: Literal["input_audio_buffer.cleared"] = "input_audio_buffer.cleared"


class SpeechStarted(_FromServer):
    type: Literal["input_audio_buffer.speech_started"] = "input_audio_buffer.speech_started"
    audio_start_ms: int
    item_id: str


class SpeechStopped(_FromServer):
    type: Literal["input_audio_buffer.speech_stopped"] = "input_audio_buffer.speech_stopped"
    audio_end_ms: int
    item_id: str


class ResponseCreated(_FromServer):
    type: Literal["response.created"] = "response.created"
    response: Response


class OutputItemAdded(_FromServer):
    type: Literal["response.output_item.added"] = "response.output_item.added"
    response_id: str
    output_index: int = 0
    item: Item


class ContentPartAdded(_FromServer):
    type: Literal["response.content_part.added"] = "response.content_part.added"
    response_id: str
    item_id: str
    output_index: int = 0
    content_index: int = 0
    part: OutputText


class TextDelta(_FromServer):
    type: Literal["response.output_text.delta"] = "response.output_text.delta"
    response_id: str
    item_id: str
    output_index: int = 0
    content_index: int = 0
    delta: str


class TextDone(_FromServer):
    type: Literal["response.output_text.done"] = "response.output_text.done"
    response_id: str
    item_id: str
    output_index: int = 0
    content_index: int = 0
    text: str


class ContentPartDone(_FromServer):
    type: Literal["response.content_part.done"] = "response.content_part.done"
    response_id: str
    item_id: str
    output_index: int = 0
    content_index: int = 0
    part: OutputText


class OutputItemDone(_FromServer):
    type: Literal["response.output_item.done"] = "response.output_item.done"
    response_id: str
    output_index: int = 0
    item: Item


class ResponseDone(_FromServer):
    type: Literal["response.done"] = "response.done"
    response: Response


class RateLimit(_Event):
    name: str
    limit: int
    remaining: int
    reset_seconds: float


class RateLimitsUpdated(_FromServer):
    type: Literal["rate_limits.updated"] = "rate_limits.updated"
    rate_limits: tuple[RateLimit, ...]


class ErrorEvent(_FromServer):
    type: Literal["error"] = "error"
    error: Fault


class Warned(_FromServer):
    """Something was taken and will not have the effect that one may expect. `code` is one word to switch on."""

    type: Literal["anymodal.warning"] = "anymodal.warning"
    code: str
    message: str
    param: str | None = None
    client_event_id: str | None = None


class Resumed(_FromServer):
    """First after a reconnection. `client_seq`: the last of the client's numbers that was taken, 0 for none: what comes
    after it is sent again. `lost`: events of the server that were missed and are kept no longer."""

    type: Literal["anymodal.resumed"] = "anymodal.resumed"
    session: SessionConfig
    client_seq: int
    lost: int = 0


class Ack(_FromServer):
    """What the client sent up to this number is safe; told now and then to a client that numbers its events."""

    type: Literal["anymodal.ack"] = "anymodal.ack"
    client_seq: int


class WindowSeen(_FromServer):
    """A window is in the log. `streams`: those it has something of; `dropped`: late or shed packets by stream; `gap`: why
    it has nothing at all."""

    type: Literal["anymodal.window"] = "anymodal.window"
    index: int
    start_s: float
    end_s: float
    streams: tuple[str, ...]
    dropped: dict[str, int] = {}
    gap: str = ""
    says: tuple[Hit, ...] = ()  # what the joint space sees, hears and feels in it, where it is told apart


class InputFlushed(_FromServer):
    type: Literal["anymodal.input.flushed"] = "anymodal.input.flushed"
    end_s: float


class Rules(_FromServer):
    """All rules, after each change and when asked for."""

    type: Literal["anymodal.rules"] = "anymodal.rules"
    rules: tuple[Rule, ...]


class RuleEvent(_FromServer):
    type: Literal["anymodal.rule.event"] = "anymodal.rule.event"
    rule: str
    text: str
    t_s: float
    confidence: float
    evidence: tuple[Span, ...]


class SearchResults(_FromServer):
    type: Literal["anymodal.search.results"] = "anymodal.search.results"
    query: str
    hits: tuple[Hit, ...]


ClientEvent = Annotated[
    SessionUpdate | ItemCreate | ItemRetrieve | ItemDelete | AudioAppend | AudioCommit | AudioClear | ResponseCreate
    | ResponseCancel | InputAppend | InputFlush | RuleAdd | RulePause | RuleResume | RuleRemove | RuleList | Search
    | SessionClose,
    Field(discriminator="type")]

ServerEvent = Annotated[
    SessionCreated | SessionUpdated | ItemAdded | ItemDone | ItemRetrieved | ItemDeleted | TranscriptionDelta
    | TranscriptionCompleted | TranscriptionFailed | AudioCommitted | AudioCleared | SpeechStarted | SpeechStopped
    | ResponseCreated | OutputItemAdded | ContentPartAdded | TextDelta | TextDone | ContentPartDone | OutputItemDone
    | ResponseDone | RateLimitsUpdated | ErrorEvent | Warned | Resumed | Ack | WindowSeen | InputFlushed | Rules
    | RuleEvent | SearchResults,
    Field(discriminator="type")]

client_events: TypeAdapter[ClientEvent] = TypeAdapter(ClientEvent)
server_events: TypeAdapter[ServerEvent] = TypeAdapter(ServerEvent)
