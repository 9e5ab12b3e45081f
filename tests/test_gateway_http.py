"""The gateway over HTTP, through the unmodified `openai` SDK and a real server on loopback, with random weights."""

from __future__ import annotations

import base64
import functools
import http.server
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time

import httpx
import numpy as np
import openai
import pytest

from actors.gateway import clips
from actors.gateway.chat_shapes import parse, plan
from actors.gateway.hosts import ActorHost, LocalHost
from actors.gateway.settings import Settings
from actors.gateway.testing import serving
from actors.gateway.tracing import make_provider
from anymodal.errors import MissingExtraError
from anymodal.testing import gradient_frame, make_imu_csv, make_video, make_wav

pytestmark = pytest.mark.timeout(900)
QUESTION = "what colour is it?"
MODEL = "random"


@pytest.fixture(scope="module")
def clip(folder):
    (folder / "media").mkdir()
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(3 * 16000) / 16000).astype(np.float32)
    return make_video(folder / "media" / "clip.mp4", [gradient_frame(48, i) for i in range(12)], rate_hz=4, audio=tone,
                      audio_hz=16000)


@pytest.fixture(scope="module")
def images(folder):
    return [make_video(folder / f"image{i}.png", [gradient_frame(48, 3 * i)], codec="png", pixel_format="rgb24",
                       container_format="image2") for i in range(2)]


@pytest.fixture(scope="module")
def server(bundle, folder):
    settings = Settings(port=0, state=folder / "state", allow_private_urls=True)
    with serving(LocalHost(bundle, folder=settings.sessions, threads=1), settings) as running:
        yield running


@pytest.fixture(scope="module")
def client(server):
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0, timeout=300)


@pytest.fixture(scope="module")
def web(clip):
    """The clip's folder at an address."""
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(clip.parent))
    handler.log_message = lambda *_: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


def data_url(path, kind: str = "application/octet-stream") -> str:
    return f"data:{kind};base64,{base64.b64encode(path.read_bytes()).decode()}"


def showing(*parts: dict, question: str = QUESTION) -> list[dict]:
    return [{"role": "user", "content": [{"type": "text", "text": question}, *parts]}]


def video(url: str, **more) -> dict:
    return {"type": "video_url", "video_url": {"url": url, **more}}


def image(path) -> dict:
    return {"type": "image_url", "image_url": {"url": data_url(path, "image/png")}}


def ask(client, messages, **given):
    return client.chat.completions.create(model=MODEL, messages=messages, **given)


# -- answers -------------------------------------------------------------------------------------------------------


def test_the_model_is_listed(client):
    assert [m.id for m in client.models.list()] == [MODEL]
    assert client.models.retrieve(MODEL).owned_by == "anymodal"
    with pytest.raises(openai.NotFoundError) as caught:
        client.models.retrieve("gpt-9")
    assert caught.value.code == "model_not_found" and MODEL in caught.value.message


@pytest.mark.parametrize("way", ["data", "http", "file"])
def test_a_video_is_answered_as_by_the_library(client, agent, clip, web, way):
    address = {"data": lambda: data_url(clip), "http": lambda: f"{web}/clip.mp4",
               "file": lambda: client.files.create(file=clip, purpose="user_data").id}[way]()
    done = ask(client, showing(video(address)))
    wanted = agent.ask(clip, QUESTION)
    assert done.choices[0].message.content == wanted.text and done.choices[0].finish_reason == "stop"
    row = {k: v for k, v in wanted.to_json().items() if k in ("confidence", "evidence", "frames_seen", "windows_seen")}
    assert {key: done.anymodal[key] for key in row} == row
    assert done.usage.prompt_tokens_details.audio_tokens == 3  # one query, three windows
    assert done.usage.total_tokens == done.usage.prompt_tokens + done.usage.completion_tokens > 9


def test_a_stream_says_the_same(client, clip):
    whole = ask(client, showing(video(data_url(clip))))
    chunks = list(ask(client, showing(video(data_url(clip))), stream=True, stream_options={"include_usage": True}))
    texts = [c.choices[0].delta.content for c in chunks if c.choices and c.choices[0].delta.content]
    assert chunks[0].choices[0].delta.role == "assistant" and len(texts) > 1
    assert "".join(texts).strip() == whole.choices[0].message.content
    assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason] == ["stop"]
    assert chunks[-1].choices == [] and chunks[-1].usage.model_dump() == whole.usage.model_dump()
    assert chunks[-2].anymodal["evidence"] == whole.anymodal["evidence"]
    assert len({c.id for c in chunks}) == 1


def test_the_asynchronous_client_works_too(server, clip):
    import asyncio

    async def main() -> list[str]:
        async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client:
            answers = await asyncio.gather(*(client.chat.completions.create(
                model=MODEL, messages=showing(video(data_url(clip)))) for _ in range(3)))
            return [a.choices[0].message.content for a in answers]

    assert len(set(asyncio.run(main()))) == 1


def test_images_are_shown_in_order(client, images):
    first, second = (image(path) for path in images)
    both = ask(client, showing(first, second))
    assert both.anymodal["windows_seen"] == 2 and both.anymodal["frames_seen"] >= 2
    early = ask(client, showing(first, second), extra_body={"anymodal": {"at_s": 1.0}})
    alone = ask(client, showing(first))
    other = ask(client, showing(second, first), extra_body={"anymodal": {"at_s": 1.0}})
    told = [(a.choices[0].message.content, a.anymodal["confidence"]) for a in (early, alone, other)]
    assert told[0] == told[1] != told[2]


def test_sound_and_sensors(client, agent, clip, folder):
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(2 * 16000) / 16000).astype(np.float32)
    data = base64.b64encode(make_wav(folder / "tone.wav", tone, 16000).read_bytes()).decode()
    heard = ask(client, showing({"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}))
    assert heard.usage.prompt_tokens_details.audio_tokens == 2 and heard.anymodal["windows_seen"] == 2
    axes = agent.spec.modalities["imu"].axes
    table = make_imu_csv(folder / "turn.csv", np.arange(150) / 50, np.ones((150, 6)), axes)
    stored = client.files.create(file=table, purpose="user_data")
    felt = ask(client, showing(video(data_url(clip), sidecars={"imu": stored.id})))
    assert felt.choices[0].message.content == agent.ask(clip, QUESTION, sidecars={"imu": table}).text
    assert felt.usage.anymodal["imu"] == 3


def test_earlier_turns_are_context(client, agent, clip):
    messages = [{"role": "system", "content": "be brief"}, *showing(video(data_url(clip)), question="what is it?"),
                {"role": "assistant", "content": "a square"}, {"role": "user", "content": "and after that?"}]
    done = ask(client, messages, temperature=0.0)
    with agent.open(clip) as session:
        session.wait()
        session.tell("what is it?", "a square", dialogue="d")
        assert done.choices[0].message.content == session.ask("and after that?", dialogue="d").text
    assert done.anymodal["ignored"] == ["temperature", "messages.0 (system)"]
    assert done.usage.prompt_tokens > ask(client, messages[:2]).usage.prompt_tokens


def test_no_media_at_all(client):
    done = ask(client, [{"role": "user", "content": "what can you do?"}])
    assert done.choices[0].message.content and done.anymodal["windows_seen"] == 0


@pytest.mark.parametrize(("instructed", "question", "ignored"), [
    (True, f"be short\n\n{QUESTION}", ("messages.2 (tool)",)),
    (False, QUESTION, ("messages.0 (system)", "messages.2 (tool)"))])
def test_instructions_are_read_by_models_made_for_them(instructed, question, ignored):
    messages = [{"role": "system", "content": "be short"}, *showing(),
                {"role": "tool", "content": "7", "tool_call_id": "a"}]
    planned = plan(parse(json.dumps({"model": MODEL, "messages": messages}).encode()), 8, instructed=instructed)
    assert (planned.question, planned.ignored) == (question, ignored)


def test_an_answer_is_cut_where_it_is_asked_to_be(client, clip):
    messages = showing(video(data_url(clip)))
    text = ask(client, messages).choices[0].message.content
    short = ask(client, messages, max_completion_tokens=3)
    assert short.choices[0].finish_reason == "length" and short.usage.completion_tokens <= 3
    assert text.startswith(short.choices[0].message.content)
    stop = text[len(text) // 2 : len(text) // 2 + 3]
    for stream in (False, True):
        got = ask(client, messages, stop=[stop], stream=stream)
        said = "".join(c.choices[0].delta.content or "" for c in got) if stream else got.choices[0].message.content
        assert said == text[: text.index(stop)].lstrip()


# -- what is wrong -------------------------------------------------------------------------------------------------

GOOD = {"model": MODEL, "messages": [{"role": "user", "content": "what is it?"}]}


@pytest.mark.parametrize(("change", "status", "code", "param"), [
    ({"model": "other"}, 404, "model_not_found", "model"),
    ({"model": None}, 400, "invalid_value", "model"),
    ({"messages": []}, 400, "invalid_value", "messages"),
    ({"messages": "hello"}, 400, "invalid_value", "messages"),
    ({"messages": [{"role": "king", "content": "x"}]}, 400, "invalid_value", "messages.0.role"),
    ({"messages": [{"role": "user", "content": "  "}]}, 400, "missing_question", "messages"),
    ({"messages": [{"role": "user", "content": "x" * 5000}]}, 400, "invalid_question", None),
    ({"messages": [{"role": "user", "content": "lone \ud800"}]}, 400, "invalid_json", None),
    ({"messages": showing({"type": "smell", "smell": {}})}, 400, "invalid_value", "messages.0.content.1"),
    ({"messages": showing({"type": "video_url"})}, 400, "missing_value", "messages.0.content.1.video_url.video_url"),
    ({"messages": showing(video("/etc/passwd"))}, 400, "invalid_url", "messages.0.content.1.video_url"),
    ({"messages": showing(video("data:video/mp4;base64,@@@"))}, 400, "invalid_base64", "messages.0.content.1.video_url"),
    ({"messages": showing(video("data:video/mp4,x"))}, 400, "invalid_data_url", "messages.0.content.1.video_url"),
    ({"messages": showing(video("data:video/mp4;base64,AAAA"))}, 400, "invalid_media", "messages.0.content.1.video_url"),
    ({"messages": showing(video("file-" + "0" * 32))}, 404, "file_not_found", "messages.0.content.1.video_url"),
    ({"messages": showing(*[video("data:,")] * 65)}, 400, "too_many_parts", "messages"),
    ({"n": 2}, 400, "unsupported_value", "n"),
    ({"response_format": {"type": "json_object"}}, 400, "unsupported_value", "response_format"),
    ({"max_tokens": 0}, 400, "invalid_value", "max_tokens"),
    ({"anymodal": {"at_s": -1}}, 400, "invalid_value", "anymodal.at_s"),
    ({"anymodal": {"at_s": 99}}, 400, "invalid_question", None),
    ({"stream": "maybe"}, 400, "invalid_value", "stream"),
])
@pytest.mark.parametrize("stream", [False, True])
def test_a_wrong_value_is_named(server, change, status, code, param, stream):
    body = json.dumps({**GOOD, "stream": stream, **change})
    got = httpx.post(f"{server.url}/v1/chat/completions", content=body, timeout=120,
                     headers={"content-type": "application/json"})
    error = got.json()["error"]
    assert (got.status_code, error["code"], error["param"]) == (status, code, param), error
    assert error["message"] and error["type"] == "invalid_request_error"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b"\xff\xfe\x00", b'{"model": NaN}', b"[" * 100_000,
                                  b'{"a":' * 50_000, b"\0" * 1000], ids=range(9))
def test_a_body_that_is_no_request(server, body):
    got = httpx.post(f"{server.url}/v1/chat/completions", content=body, headers={"content-type": "application/json"})
    assert got.status_code == 400 and got.json()["error"]["code"] in ("invalid_json", "invalid_value"), got.text


def test_media_is_what_it_is_not_what_it_is_called(client, clip, folder, images):
    wrong = {"type": "image_url", "image_url": {"url": data_url(clip, "image/png")}}
    with pytest.raises(openai.BadRequestError, match="not image") as caught:
        ask(client, showing(wrong))
    assert caught.value.code == "wrong_media" and caught.value.param == "messages.0.content.1.image_url"
    with pytest.raises(openai.BadRequestError, match="not audio"):
        ask(client, showing({"type": "audio_url", "audio_url": {"url": data_url(images[0])}}))
    named = folder / "movie.mp4"
    named.write_bytes(b"#!/bin/sh\nexit 1\n")
    with pytest.raises(openai.BadRequestError, match="cannot be opened as media") as caught:
        client.files.create(file=named, purpose="user_data")
    assert str(folder) not in caught.value.message and caught.value.param == "file"


def test_other_routes_and_methods(server):
    for method, path, status in (("GET", "/v1/nothing", 404), ("GET", "/v1/chat/completions", 405),
                                 ("PUT", "/v1/files", 405), ("POST", "/v1/chat/completions", 415)):
        got = httpx.request(method, server.url + path, headers={"content-type": "text/plain"})
        assert got.status_code == status and got.json()["error"]["message"], got.text


# -- files ---------------------------------------------------------------------------------------------------------


def test_files_are_kept_listed_given_back_and_deleted(client, clip):
    stored = [client.files.create(file=clip, purpose="vision") for _ in range(3)]
    assert stored[0].filename == "clip.mp4" and stored[0].bytes == clip.stat().st_size and stored[0].status == "processed"
    media = stored[0].anymodal["media"]
    assert media["kind"] == "video" and media["sounds"] and media["duration_s"] == pytest.approx(3, abs=0.1)
    assert client.files.retrieve(stored[1].id) == stored[1]
    assert client.files.content(stored[1].id).read() == clip.read_bytes()
    ids = {f.id for f in client.files.list(purpose="vision", limit=2)}  # the SDK turns the pages
    assert ids == {f.id for f in stored}
    assert client.files.delete(stored[1].id).deleted
    for gone in (lambda: client.files.retrieve(stored[1].id), lambda: client.files.delete("file-none")):
        with pytest.raises(openai.NotFoundError):
            gone()


def test_uploads_that_are_no_use(server, client):
    for files, data, code in (({"file": ("a", b"")}, {"purpose": "vision"}, "empty_file"),
                              ({"file": ("a", b"x")}, {"purpose": "fun"}, "invalid_value"),
                              ({"other": ("a", b"x")}, {"purpose": "vision"}, "missing_value")):
        got = httpx.post(f"{server.url}/v1/files", files=files, data=data, timeout=60)
        assert got.status_code == 400 and got.json()["error"]["code"] == code, got.text
    broken = httpx.post(f"{server.url}/v1/files", content=b"--x\r\nnonsense",
                        headers={"content-type": "multipart/form-data; boundary=x"})
    assert broken.status_code == 400 and broken.json()["error"]["code"] in ("invalid_form", "missing_value"), broken.text
    table = client.files.create(file=("../../t.csv", b"time_s,a\n0,1\n"), purpose="user_data")
    assert "/" not in table.filename and table.anymodal["media"] is None


# -- the server ----------------------------------------------------------------------------------------------------


def counted(server, name: str) -> float:
    text = httpx.get(f"{server.url}/metrics").text
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if re.match(rf"{name}(\{{|\s)", line))


def test_health_and_metrics(server, client, clip):
    assert httpx.get(f"{server.url}/health/live").json() == {"status": "live"}
    assert httpx.get(f"{server.url}/health/ready").json() == {"status": "ready"}
    names = ("anymodal_windows_total", "anymodal_first_token_seconds_count", "anymodal_tokens_total",
             "anymodal_answers_total")
    before = [counted(server, name) for name in names]
    done = ask(client, showing(video(data_url(clip))))
    grown = [counted(server, name) - was for name, was in zip(names, before, strict=True)]
    assert grown == [3, 1, done.usage.total_tokens, 1]
    text = httpx.get(f"{server.url}/metrics").text
    for name in ("dropped_total{reason=", "queue_depth{queue=", "stage_seconds_bucket", "sessions{state=", "sockets",
                 "kills_total", "recoveries_total", "http_requests_total{route=\"/v1/chat/completions\",status=\"200\"}"):
        assert f"anymodal_{name}" in text, name


def test_an_answer_leaves_spans(bundle, folder, clip, monkeypatch):
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    settings = Settings(port=0, state=folder / "traced", trace=True)
    with serving(LocalHost(bundle, folder=settings.sessions, threads=1), settings) as running:
        spans = InMemorySpanExporter()
        running.gateway.tracing.add_span_processor(SimpleSpanProcessor(spans))
        client = openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0)
        ask(client, showing(video(data_url(clip))))
        until(lambda: any(s.name == "chat" for s in spans.get_finished_spans()))
    found = {s.name: s for s in spans.get_finished_spans()}
    assert {"chat", "sniff", "watch"} <= set(found)
    assert found["watch"].parent.span_id == found["sniff"].parent.span_id == found["chat"].context.span_id
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "nowhere")
    with pytest.raises(MissingExtraError, match="no OpenTelemetry exporter 'nowhere'"):
        make_provider()


def until(check, seconds: float = 60.0) -> None:
    deadline_s = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_leaves_nothing_behind(server, folder, clip, stream):
    body = {**GOOD, "messages": showing(*[video(data_url(clip))] * 8), "stream": stream}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=httpx.Timeout(30, read=0.3))
    until(lambda: server.gateway.answering.inside == 0)
    until(lambda: not list(server.gateway.settings.scratch.iterdir()))
    assert [n for n in server.gateway.host.names() if n.startswith("clip-")] == [] == list(server.gateway.tasks)


def test_the_page_is_there_or_not_and_nothing_beside_it(server):
    got = httpx.get(f"{server.url}/../pyproject.toml")
    assert got.status_code == 404
    assert httpx.get(f"{server.url}/%2e%2e/pyproject.toml").status_code == 404
    assert "default-src 'self'" in httpx.get(f"{server.url}/").headers["content-security-policy"]


def test_sessions_outlive_the_gateway(bundle, folder):
    host = LocalHost(bundle, folder=folder / "kept", threads=1)
    session = host.open("door", streams={"cam": "video"}, live=False)
    session.tell("what is it?", "a door", dialogue="d")
    host.close()
    again = LocalHost(bundle, folder=folder / "kept", threads=1)
    assert again.known("door") and again.names() == ["door"] and not again.known("window")
    again.open("door", streams={"cam": "video"}).forget()
    assert again.names() == []


def test_what_a_killed_gateway_left_is_gone_after_the_next_start(bundle, folder):
    settings = Settings(port=0, state=folder / "left")
    left = LocalHost(bundle, folder=settings.sessions, threads=1)
    names = [clips.prefix(settings.state) + "a", clips.prefix(folder) + "b", "live"]
    for name in names:
        left.open(name, live=False)
    left.close()
    (settings.scratch / "request").mkdir(parents=True)
    with serving(LocalHost(bundle, folder=settings.sessions, threads=1), settings) as running:
        assert running.gateway.host.names() == sorted(names[1:]), "those of another gateway stay"
        until(lambda: not settings.scratch.exists())


def test_the_same_over_actors(bundle, folder, agent, clip):
    settings = Settings(port=0, state=folder / "actors")
    with serving(ActorHost(bundle, folder=settings.sessions), settings) as running:
        client = openai.OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0, timeout=300)
        done = ask(client, showing(video(data_url(clip))))
        assert done.choices[0].message.content == agent.ask(clip, QUESTION).text
        assert done.usage.anymodal["audio"] == 3
        streamed = ask(client, [*showing(video(data_url(clip))), {"role": "assistant", "content": "red"},
                                {"role": "user", "content": "sure?"}], stream=True)
        assert "".join(c.choices[0].delta.content or "" for c in streamed)
        assert running.gateway.host.names() == []
        mind = running.gateway.host.ready()["mind"]
        until(lambda: running.gateway.parts.pids.get("mind") == mind)
        os.kill(mind, signal.SIGKILL)
        assert ask(client, showing(video(data_url(clip)))).choices[0].message.content == done.choices[0].message.content
        until(lambda: counted(running, "anymodal_kills_total") >= 1, 120)


# -- the process ---------------------------------------------------------------------------------------------------


def start(bundle, folder, *options: str, **env: str):
    command = [sys.executable, "-m", "anymodal", "serve", "--in-process", "--port", "0", "--model", str(bundle),
               "--state", str(folder / "process"), *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               env={**os.environ, "OMP_NUM_THREADS": "1", **env})
    line = process.stdout.readline()
    found = re.search(r"http://\S+:\d+", line)
    if not found:
        process.kill()
        raise AssertionError((line, process.communicate(timeout=60)))
    return process, found[0]


def test_sigterm_lets_what_is_under_way_end(bundle, folder, clip):
    process, url = start(bundle, folder)
    try:
        body = {**GOOD, "messages": showing(*[video(data_url(clip))] * 6), "stream": True}
        got: list[str] = []

        def ask_slowly() -> None:
            with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=300) as response:
                got.extend(response.iter_lines())

        asking = threading.Thread(target=ask_slowly)
        asking.start()
        until(lambda: 'stage_seconds_count{stage="sniff"}' in httpx.get(f"{url}/metrics").text)
        process.send_signal(signal.SIGTERM)
        asking.join(120)
        assert "data: [DONE]" in got and any('"finish_reason": "stop"' in line for line in got), got
        assert process.wait(60) == 0
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{url}/health/live")
        assert "Traceback" not in process.stderr.read()
    finally:
        process.kill()
        process.communicate(timeout=60)


def test_serve_says_what_is_wrong(cli, bundle, tmp_path):
    import socket

    assert cli("serve", "--host", "0.0.0.0", "--in-process").error.startswith("error: 0.0.0.0 can be reached from other")
    assert "most_sessions" in cli("serve", "--limit", "most_sesions=3").error
    assert "is no int" in cli("serve", "--limit", "most_sessions=many").error
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        busy = cli("serve", "--port", taken.getsockname()[1], "--in-process", "--state", tmp_path)
        assert busy.code == 5 and "cannot listen" in busy.error
    assert "unknown bundle" in cli("serve", "--port", "0", "--model", "nothing", "--in-process", "--state", tmp_path).err
