"""Chat completions on the wire: what is read of a request, and what is written."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from actors.gateway.clips import Said
from actors.gateway.faults import Fault
from actors.gateway.media import Wanted
from anymodal.language.tokenizer import TextTokenizer
from anymodal.types import Answer

MOST_MESSAGES = 1000
LONGEST_TEXT = 1 << 20


class _Shape(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Address(_Shape):
    """`sidecars`: sensor tables beside a clip, by modality: {"imu": "file-..."}; each as `url`."""

    url: str
    sidecars: dict[str, str] = {}


class Sound(_Shape):
    data: str
    format: str = "wav"  # not believed


class FileRef(_Shape):
    file_id: str | None = None
    file_data: str | None = None


class Text(_Shape):
    type: Literal["text"]
    text: Annotated[str, Field(max_length=LONGEST_TEXT)]


class Refusal(_Shape):
    type: Literal["refusal"]
    refusal: str = ""


class ImagePart(_Shape):
    type: Literal["image_url"]
    image_url: Address


class VideoPart(_Shape):
    type: Literal["video_url"]
    video_url: Address


class AudioPart(_Shape):
    type: Literal["audio_url"]
    audio_url: Address


class SoundPart(_Shape):
    type: Literal["input_audio"]
    input_audio: Sound


class FilePart(_Shape):
    type: Literal["file"]
    file: FileRef


Part = Annotated[Text | Refusal | ImagePart | VideoPart | AudioPart | SoundPart | FilePart, Field(discriminator="type")]


def _as_parts(content: Any) -> Any:
    """A plain text is one part."""
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


Parts = Annotated[tuple[Part, ...], BeforeValidator(_as_parts, json_schema_input_type=str | tuple[Part, ...])]


class Message(_Shape):
    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Parts | None = None


class StreamOptions(_Shape):
    include_usage: bool | None = None


class Extras(_Shape):
    """`anymodal` of a request. at_s: answer as of this media time."""

    at_s: Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)] | None = None


class ChatRequest(BaseModel):
    """Keys beyond these are taken and ignored."""

    model_config = ConfigDict(extra="allow", frozen=True)
    model: Annotated[str, Field(max_length=256)]
    messages: Annotated[tuple[Message, ...], Field(min_length=1, max_length=MOST_MESSAGES)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    stop: str | Annotated[tuple[str, ...], Field(max_length=4)] | None = None
    n: Annotated[int, Field(ge=1, le=128)] | None = None
    logprobs: bool | None = None
    modalities: tuple[Literal["text", "audio"], ...] | None = None
    response_format: dict[str, Any] | None = None
    tool_choice: str | dict[str, Any] | None = None
    anymodal: Extras | None = None

    @property
    def most_tokens(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @property
    def stops(self) -> tuple[str, ...]:
        given = (self.stop,) if isinstance(self.stop, str) else self.stop or ()
        return tuple(text for text in given if text)


@dataclass(frozen=True, slots=True)
class Plan:
    """What a request comes to: media and earlier turns in order, then the question. `ignored`: what had no effect."""

    request: ChatRequest
    steps: tuple[Wanted | Said, ...]
    question: str
    ignored: tuple[str, ...]


# What a small answering model has no use for. Accepted, so that programs that set them work unchanged.
_WITHOUT_EFFECT = ("audio", "frequency_penalty", "function_call", "functions", "logit_bias", "parallel_tool_calls",
                   "prediction", "presence_penalty", "reasoning_effort", "seed", "temperature", "tools", "top_k",
                   "top_logprobs", "top_p", "verbosity")


def parse(body: bytes) -> ChatRequest:
    """Raises Fault naming the first value that is wrong."""
    try:
        return ChatRequest.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        if first["type"] == "json_invalid":
            raise Fault(400, "invalid_json", f"the body is no JSON: {first['msg']}") from None
        where = ".".join(str(part) for part in first["loc"] if not (isinstance(part, str) and "[" in part))
        missing = first["type"] == "missing"
        shown = "" if missing else f", found {json.dumps(first['input'], default=str)[:80]}"
        raise Fault(400, "missing_value" if missing else "invalid_value", f"{where or 'the body'}: {first['msg']}{shown}",
                    param=where or None) from None
    except (ValueError, RecursionError) as error:
        raise Fault(400, "invalid_json", f"the body is no JSON: {error}") from None


def plan(request: ChatRequest, most_parts: int, *, instructed: bool = False) -> Plan:
    """`instructed`: the model was made to read instructions, which then stand before the question. Raises Fault for what
    cannot be honoured and would be missed, and for a request without a question."""
    _refuse(request)
    steps: list[Wanted | Said] = []
    ignored = [name for name in _WITHOUT_EFFECT if (request.model_extra or {}).get(name) is not None]
    question, instructions = "", []
    for number, message in enumerate(request.messages):
        where = f"messages.{number}"
        is_instruction = message.role in ("system", "developer") and instructed
        if not is_instruction and message.role not in ("user", "assistant"):
            ignored.append(f"{where} ({message.role})")
            continue
        text, media = _read(message, where)
        if is_instruction:
            steps += media
            instructions.append(text)
        elif message.role == "user":
            steps += media
            question = "\n".join(filter(None, (question, text)))
        elif question and text:
            steps.append(Said(question, text))
            question = ""
    if not question.strip():
        raise Fault(400, "missing_question", "the last messages of the user have no text, so nothing is asked",
                    param="messages", fix="add a part of type text")
    count = sum(isinstance(step, Wanted) for step in steps)
    if count > most_parts:
        raise Fault(400, "too_many_parts", f"{count} images, clips and sounds, at most {most_parts} are taken",
                    param="messages", fix="send fewer, or a video of them")
    return Plan(request, tuple(steps), "\n\n".join(filter(None, (*instructions, question))), tuple(ignored))


def _refuse(request: ChatRequest) -> None:
    kind = (request.response_format or {}).get("type", "text")
    wrong = [
        ("n", (request.n or 1) > 1, "one answer is given, not several"),
        ("response_format", kind != "text", "answers are text, not JSON"),
        ("modalities", bool(request.modalities) and "text" not in request.modalities, "answers are text"),
        ("logprobs", bool(request.logprobs), "log-probabilities are not told"),
        ("tool_choice", request.tool_choice not in (None, "none", "auto"), "no tools are called"),
    ]
    for param, is_wrong, why in wrong:
        if is_wrong:
            raise Fault(400, "unsupported_value", f"{param}: {why}", param=param, fix=f"leave {param} out")


def _read(message: Message, where: str) -> tuple[str, list[Wanted]]:
    texts, media = [], []
    for number, part in enumerate(message.content or ()):
        param = f"{where}.content.{number}.{part.type}"
        match part:
            case Text():
                texts.append(part.text)
            case ImagePart():
                media.append(Wanted("image", part.image_url.url, param, part.image_url.sidecars))
            case VideoPart():
                media.append(Wanted("video", part.video_url.url, param, part.video_url.sidecars))
            case AudioPart():
                media.append(Wanted("audio", part.audio_url.url, param, part.audio_url.sidecars))
            case SoundPart():
                media.append(Wanted("audio", f"data:audio/any;base64,{part.input_audio.data}", param))
            case FilePart():
                address = part.file.file_id or part.file.file_data
                if not address:
                    raise Fault(400, "missing_value", f"{param} has neither file_id nor file_data", param=param)
                media.append(Wanted("", address, param))
    return "\n".join(texts), media


class Cut:
    """An answer's text as it may be told: up to a stop text, and no more tokens than asked for."""

    def __init__(self, request: ChatRequest, tokenizer: TextTokenizer) -> None:
        self._stops, self._most, self._tokenizer = request.stops, request.most_tokens, tokenizer
        self._all, self._told = "", 0
        self.reason = ""

    @property
    def text(self) -> str:
        return self._all[: self._told]

    def push(self, piece: str) -> str:
        """What may be told now; `reason` says why nothing more comes."""
        if self.reason:
            return ""
        self._all = (self._all + piece).lstrip()
        found = [at for stop in self._stops if (at := self._all.find(stop)) >= 0]
        safe = min(found) if found else len(self._all) - max((len(s) - 1 for s in self._stops), default=0)
        if found:
            self.reason = "stop"
        return self._tell(max(self._told, safe))

    def end(self) -> str:
        """What was held back."""
        held = "" if self.reason else self._tell(len(self._all))
        self.reason = self.reason or "stop"
        return held

    def _tell(self, up_to: int) -> str:
        if self._most is not None:
            while up_to > self._told and len(self._tokenizer.encode(self._all[:up_to])) > self._most:
                up_to -= 1
                self.reason = "length"
        told, self._told = self._all[self._told : up_to], up_to
        return told


def usage(plan: Plan, text: str, tokens: dict[str, int], tokenizer: TextTokenizer) -> dict[str, Any]:
    """What was read and written, in the model's own tokens."""
    said = [t for step in plan.steps if isinstance(step, Said) for t in (step.question, step.answer)]
    asked = sum(len(tokenizer.encode(t)) for t in (*said, plan.question))
    read, written = asked + sum(tokens.values()), len(tokenizer.encode(text)) if text else 0
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written,
            "prompt_tokens_details": {"cached_tokens": 0, "audio_tokens": tokens.get("audio", 0)},
            "completion_tokens_details": {"reasoning_tokens": 0}, "anymodal": {"text": asked, **tokens}}


def extras(plan: Plan, answer: Answer) -> dict[str, Any]:
    """`anymodal` of a completion: what the answer stands on."""
    row = answer.to_json()
    for name in ("question", "answer"):
        row.pop(name)
    return {**row, "ignored": list(plan.ignored)}
