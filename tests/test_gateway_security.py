"""What the gateway refuses: callers, addresses, files that would not fit, and more than it can do. It stays healthy."""

from __future__ import annotations

import asyncio
import base64
import http.server
import json
import os
import signal
import socket
import struct
import threading
import time
import zipfile
import zlib
from contextlib import suppress

import httpx
import pytest

from actors.gateway import connection, fetching, fuzz_files
from actors.gateway.fetching import is_public
from actors.gateway.hosts import LocalHost
from actors.gateway.keys import Key, find_key, read_keys
from actors.gateway.limits import Bucket
from actors.gateway.settings import Settings
from actors.gateway.testing import serving
from anymodal.errors import ConfigError
from anymodal.testing import FakeClock, gradient_frame, make_video

pytestmark = pytest.mark.timeout(600)
ALICE, BOB, OLD = "alice-secret-0123456789", "bob-secret-0123456789", "old-secret-0123456789"


@pytest.fixture(scope="module")
def model(random_model, folder):
    """One model for all servers of this module."""
    made = LocalHost(random_model, folder=folder / "sessions", threads=1)
    yield made
    made.close()


@pytest.fixture(scope="module")
def server(model, folder):
    """Small limits, no keys."""
    settings = Settings(port=0, state=folder / "state", request_bytes=2**20, file_bytes=2**20, fetch_bytes=100_000,
                        fetch_timeout_s=1.0, read_timeout_s=1.0, requests_per_min=100_000, sniff_timeout_s=30)
    with serving(model, settings) as running:
        yield running


@pytest.fixture(scope="module")
def locked(model, folder):
    """With keys, listening on all addresses."""
    keys = (Key.of(ALICE, name="alice"), Key.of(BOB, name="bob", ends_s=time.time() + 3600),
            Key.of(OLD, name="old", ends_s=time.time() - 1))
    settings = Settings(host="0.0.0.0", port=0, state=folder / "locked", api_keys=keys,
                        allowed_origins=("https://example.org",))
    with serving(model, settings) as running:
        yield running


@pytest.fixture(scope="module")
def clip(folder):
    return make_video(folder / "clip.mp4", [gradient_frame(48, i) for i in range(8)], rate_hz=4)


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def code_of(got: httpx.Response) -> tuple[int, str]:
    return got.status_code, got.json()["error"]["code"]


def ask(server, *parts: dict, **given) -> httpx.Response:
    content = [{"type": "text", "text": "what is it?"}, *parts]
    body = {"model": "random", "messages": [{"role": "user", "content": content}]}
    return httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=120, **given)


def shown(url: str, kind: str = "video_url") -> dict:
    return {"type": kind, kind: {"url": url}}


def data_url(data: bytes) -> str:
    return f"data:application/octet-stream;base64,{base64.b64encode(data).decode()}"


def healthy(server) -> bool:
    return httpx.get(f"{server.url}/health/ready", timeout=60).status_code == 200 and ask(server).status_code == 200


# -- who may call --------------------------------------------------------------------------------------------------


def test_off_loopback_there_has_to_be_a_key(folder):
    for host in ("0.0.0.0", "::", "192.168.1.5", "example.org"):
        with pytest.raises(ConfigError, match="API key"):
            Settings(host=host)
    for host in ("127.0.0.1", "localhost", "::1", "[::1]", "127.8.9.1"):
        assert Settings(host=host).on_loopback
    with pytest.raises(ConfigError, match="16 or more"):
        Key.of("short")
    with pytest.raises(ConfigError, match="most_sessions must be positive"):
        Settings(most_sessions=0)


@pytest.mark.parametrize(("headers", "code"), [
    ({}, "missing_api_key"), ({"Authorization": "Basic abc"}, "missing_api_key"),
    ({"Authorization": "Bearer"}, "missing_api_key"),
    (bearer("wrong-secret-0123456789"), "invalid_api_key"), (bearer(ALICE + "x"), "invalid_api_key"),
    (bearer(OLD), "expired_api_key"),
])
def test_without_a_good_key_nothing_is_done(locked, headers, code):
    for path in ("/v1/models", "/v1/files", "/metrics", "/openapi.json", "/v1/nothing"):
        got = httpx.get(locked.url + path, headers=headers)
        assert code_of(got) == (401, code) and got.headers["www-authenticate"] == "Bearer"
        assert got.json()["error"]["type"] == "authentication_error"
    assert httpx.get(f"{locked.url}/health/live").status_code == 200


def test_a_key_opens_and_files_are_their_owners(locked, clip):
    with clip.open("rb") as file:
        stored = httpx.post(f"{locked.url}/v1/files", headers=bearer(ALICE), files={"file": file}, timeout=60,
                            data={"purpose": "vision"}).json()
    mine, theirs = (httpx.get(f"{locked.url}/v1/files", headers=bearer(who)).json()["data"] for who in (ALICE, BOB))
    assert [row["id"] for row in mine] == [stored["id"]] and theirs == []
    for path in (stored["id"], f"{stored['id']}/content"):
        assert code_of(httpx.get(f"{locked.url}/v1/files/{path}", headers=bearer(BOB))) == (404, "file_not_found")
    assert code_of(ask(locked, shown(stored["id"]), headers=bearer(BOB))) == (404, "file_not_found")
    assert ask(locked, shown(stored["id"]), headers=bearer(ALICE)).status_code == 200
    assert httpx.delete(f"{locked.url}/v1/files/{stored['id']}", headers=bearer(BOB)).status_code == 404


def test_keys_are_read_and_none_is_kept_in_the_clear(tmp_path):
    path = tmp_path / "keys"
    path.write_text(f"# who may\n{ALICE} alice 2030-01-31\n\n{BOB}\n")
    alice, bob = read_keys(path)
    assert (alice.name, alice.ends_s) == ("alice", 1896048000.0) and bob.ends_s is None
    assert find_key(BOB, (alice, bob)) is bob and find_key("x", (alice, bob)) is None
    assert ALICE not in repr((alice, bob)) and BOB not in repr((alice, bob))
    for text, why in (("", "no key"), (f"{ALICE} a soon", "no day"), ("short a", "16 or more")):
        path.write_text(text)
        with pytest.raises(ConfigError, match=why):
            read_keys(path)


@pytest.mark.parametrize(("headers", "code"), [
    ({"Host": "evil.example"}, "host_not_allowed"), ({"Host": "127.0.0.1.evil.example:80"}, "host_not_allowed"),
    ({"Origin": "https://evil.example"}, "origin_not_allowed"), ({"Origin": "null"}, "origin_not_allowed"),
    ({"Origin": "http://127.0.0.1:1"}, "origin_not_allowed"),
])
def test_pages_of_other_sites_reach_nothing(server, headers, code):
    got = httpx.get(f"{server.url}/v1/models", headers=headers)
    assert code_of(got) == (403, code) and "access-control-allow-origin" not in got.headers


def test_our_own_page_may_call_and_so_may_those_allowed(server, locked):
    assert httpx.get(f"{server.url}/v1/models", headers={"Origin": server.url}).status_code == 200
    page = {"Origin": "https://example.org"}
    got = httpx.get(f"{locked.url}/v1/models", headers={**page, **bearer(ALICE)})
    assert got.status_code == 200 and got.headers["access-control-allow-origin"] == page["Origin"]
    asked = {**page, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    before = httpx.options(f"{locked.url}/v1/chat/completions", headers=asked)
    assert before.status_code == 200 and "authorization" in before.headers["access-control-allow-headers"]
    asked["Origin"] = "https://evil.example"
    assert httpx.options(f"{locked.url}/v1/chat/completions", headers=asked).status_code == 403


# -- addresses -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", [
    "127.0.0.1", "127.255.0.1", "10.1.2.3", "172.16.0.1", "192.168.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0",
    "224.0.0.1", "255.255.255.255", "240.0.0.1", "192.0.2.1", "198.18.0.1", "::1", "::", "fe80::1", "fe80::1%eth0",
    "fc00::1", "fd12::1", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "2002:7f00:1::", "64:ff9b::7f00:1",
    "64:ff9b::a00:1", "2001:db8::1", "2001:0:a00:1::", "no address",
])
def test_addresses_that_are_not_public(address):
    assert not is_public(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"])
def test_addresses_that_are_public(address):
    assert is_public(address)


@pytest.mark.parametrize("url", [
    "http://127.0.0.1:1/a.mp4", "http://localhost/a", "http://2130706433/", "http://0x7f.1/", "http://127.1/",
    "http://[::1]/", "http://[::ffff:127.0.0.1]/", "http://169.254.169.254/latest/meta-data", "http://10.0.0.1:8080/x",
    "http://user:pass@1.1.1.1/", "http:///nothing", "http://a b/", "http://\u0661.example/", "http://1.1.1.1:99999/",
    "http://x/\r\nHost: y",
])
def test_private_and_odd_addresses_are_refused(server, url):
    got = ask(server, shown(url))
    assert code_of(got) == (400, "url_not_allowed"), got.text
    assert got.json()["error"]["param"] == "messages.0.content.1.video_url"


@pytest.mark.parametrize("url", ["file:///etc/passwd", "/etc/passwd", "../../etc/passwd", "ftp://1.1.1.1/x", "file-../../x",
                                 "concat:/etc/passwd", "gopher://x", "", "C:\\x"])
def test_nothing_but_the_web_and_uploads_is_opened(server, url):
    assert code_of(ask(server, shown(url))) in ((400, "invalid_url"), (404, "file_not_found"))


class Odd(http.server.BaseHTTPRequestHandler):
    """A web server that does what its path says."""

    clip = b""

    def do_GET(self):
        what, _, rest = self.path[1:].partition("/")
        if what == "to":
            self.send_response(302)
            self.send_header("Location", rest)
            self.end_headers()
        elif what == "round":
            self.send_response(307)
            self.send_header("Location", "/round")
            self.end_headers()
        else:
            self.send_response(int(rest) if what == "status" else 200)
            body = {"big": b"x" * 200_000, "zipped": zlib.compress(b"x" * 10**6)}.get(what, self.clip)
            if what == "zipped":
                self.send_header("Content-Encoding", "gzip")
            if what == "short":
                self.send_header("Content-Length", str(len(body) + 10))
            self.end_headers()
            for at in range(0, len(body), 1000):
                self.wfile.write(body[at : at + 1000])
                time.sleep(0.5 if what == "slow" else 0)

    def log_message(self, *_):
        pass


@pytest.fixture
def web(clip, monkeypatch):
    """At 127.0.0.1, which these tests take for public, and at 127.0.0.2, which is private."""
    monkeypatch.setattr(Odd, "clip", clip.read_bytes())
    monkeypatch.setattr(fetching, "is_public", lambda address: address == "127.0.0.1")
    with http.server.ThreadingHTTPServer(("0.0.0.0", 0), Odd) as running:
        running.daemon_threads = True
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running.server_port
        running.shutdown()


def test_what_is_public_is_fetched_and_redirects_are_followed(server, web):
    here = f"http://127.0.0.1:{web}"
    for url in (f"{here}/clip", f"{here}/to//clip", f"{here}/to/{here}/clip"):
        assert ask(server, shown(url)).status_code == 200, url


@pytest.mark.parametrize(("path", "code"), [
    ("to/http://127.0.0.2:{port}/clip", "url_not_allowed"), ("to/http://[::1]:{port}/clip", "url_not_allowed"),
    ("to/file:///etc/passwd", "url_not_allowed"), ("to/ftp://127.0.0.1/x", "url_not_allowed"), ("round", "url_not_allowed"),
    ("big", "url_not_allowed"), ("zipped", "url_not_allowed"), ("status/404", "url_not_allowed"),
    ("slow", "url_too_slow"), ("short", "url_unreachable"),
])
def test_what_an_address_leads_to_is_looked_at_again(server, web, path, code):
    got = ask(server, shown(f"http://127.0.0.1:{web}/{path.format(port=web)}"))
    assert code_of(got) == (400, code), got.text
    assert not list(server.gateway.settings.scratch.iterdir())


def test_a_name_is_judged_by_all_its_addresses_and_looked_up_once(server, web, monkeypatch):
    real, asked = socket.getaddrinfo, []

    def lookup(host, port, *given, **more):
        found = {"two.example": ["127.0.0.1", "127.0.0.2"], "inside.example": ["127.0.0.2"],
                 "turns.example": ["127.0.0.2" if "turns.example" in asked else "127.0.0.1"]}.get(host)
        if found is None:
            return real(host, port, *given, **more)
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]

    monkeypatch.setattr(socket, "getaddrinfo", lookup)
    for name in ("two.example", "inside.example"):
        assert code_of(ask(server, shown(f"http://{name}:{web}/clip"))) == (400, "url_not_allowed")
    assert ask(server, shown(f"http://turns.example:{web}/clip")).status_code == 200
    assert asked.count("turns.example") == 1, "a second look-up could have led elsewhere"


def test_fetching_can_be_switched_off(model, folder):
    with serving(model, Settings(port=0, state=folder / "nofetch", fetch=False)) as running:
        assert code_of(ask(running, shown("http://1.1.1.1/a.mp4"))) == (400, "fetching_disabled")


# -- files that would not fit --------------------------------------------------------------------------------------


def png(width: int, height: int) -> bytes:
    """A picture of one colour: a few kB, whatever its size."""
    packer = zlib.compressobj(9)
    row = bytes(1 + width * 3)
    rows = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def bombs(folder) -> dict[str, bytes]:
    long = make_video(folder / "long.mkv", [gradient_frame(32, i) for i in range(3)], rate_hz=1, pts=[0, 1, 10**6])
    zipped = folder / "a.zip"
    with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a", b"\0" * 10**7)
    good = make_video(folder / "good.mp4", [gradient_frame(48, i) for i in range(8)], rate_hz=4).read_bytes()
    return {
        "a picture of 144 million pixels": png(12_000, 12_000),
        "a header of 4 billion pixels": png(8, 8).replace(struct.pack(">II", 8, 8), struct.pack(">II", 65_000, 65_000)),
        "a video of eleven days": long.read_bytes(),
        "a zip": zipped.read_bytes(),
        "a list of other files": b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n",
        "a concat script": b"ffconcat version 1.0\nfile /etc/passwd\n",
        "a page": b"<html><body>hello</body></html>", "a vector picture": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "zeros": bytes(5000), "noise": bytes((i * 7919) % 251 for i in range(5000)),
        "half a video": good[: len(good) // 3],
    }


def test_bombs_and_garbage_are_refused_and_the_server_lives(server, folder):
    for name, data in bombs(folder).items():
        began_s = time.monotonic()
        got = ask(server, shown(data_url(data)))
        assert code_of(got) == (400, "invalid_media"), (name, got.text)
        assert str(folder) not in got.text and time.monotonic() - began_s < 100, name
    stored = httpx.post(f"{server.url}/v1/files", files={"file": ("a.mp4", data)}, data={"purpose": "vision"}, timeout=120)
    assert code_of(stored) == (400, "invalid_media")
    assert healthy(server) and not list(server.gateway.settings.uploads.iterdir())


def test_broken_files_are_taken_or_refused_and_the_server_lives(server):
    """A short run of `python -m actors.gateway.fuzz --files`; the long one is in the lab book."""
    report = asyncio.run(fuzz_files.fuzz(server.url, 60, seed=7))
    assert report.wrong == [] and sum(report.sent.values()) == 60 and report.witnessed
    assert report.outcomes["upload invalid_media"] > 5 and report.outcomes["upload 200"] > 5
    assert healthy(server) and not list(server.gateway.settings.uploads.iterdir())


def test_the_file_fuzzer_is_seeded(folder):
    whole = fuzz_files.good(folder)
    assert list(fuzz_files.files(40, 1, whole)) == list(fuzz_files.files(40, 1, whole)) != list(
        fuzz_files.files(40, 2, whole))


def test_a_looking_process_that_dies_is_replaced(server, folder):
    data = make_video(folder / "seen.mp4", [gradient_frame(48, i) for i in range(8)], rate_hz=4).read_bytes()
    assert ask(server, shown(data_url(data))).status_code == 200
    lookers = list(server.gateway.lookers._idle.queue)
    for looker in lookers:
        os.kill(looker._process.pid, signal.SIGKILL)
    assert lookers and ask(server, shown(data_url(data))).status_code == 200


def test_bodies_that_are_too_large(server):
    url = f"{server.url}/v1/chat/completions"
    assert code_of(httpx.post(url, content=b" " * (2**20 + 1))) == (413, "request_too_large")
    got = httpx.post(url, content=(b" " * 65536 for _ in range(100)), headers={"content-type": "application/json"})
    assert code_of(got) == (413, "request_too_large")
    stored = httpx.post(f"{server.url}/v1/files", files={"file": ("a", b"x" * 2**21)}, data={"purpose": "vision"})
    assert code_of(stored) == (413, "request_too_large")
    assert healthy(server)


def test_a_body_that_does_not_come(server):
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as half_open:
        half_open.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
                          b"Content-Length: 100\r\n\r\n{")
        answer = b""
        while b"}" not in answer and (piece := half_open.recv(65536)):  # head and body may come apart
            answer += piece
    assert b" 408 " in answer and b"too_slow" in answer


@pytest.mark.parametrize("said", [b"", b"GET /health/li", b"GET /health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\nGET /he"],
                         ids=["nothing", "half", "one and a half"])
def test_a_connection_that_says_too_little_is_closed(server, monkeypatch, said):
    monkeypatch.setattr(connection, "HEADERS_S", 0.3)
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as silent:
        silent.sendall(said)
        told = b""
        with suppress(ConnectionResetError):
            while piece := silent.recv(65536):
                told += piece
    assert (b" 200 " in told) is (b"\r\n\r\n" in said)


def test_a_client_that_does_not_read_its_answer_is_let_go(model, folder):
    settings = Settings(port=0, state=folder / "unread", read_timeout_s=0.5)
    with serving(model, settings) as running:
        data = b"time_s,a\n" + b"0,1\n" * (5 * 2**20)
        stored = httpx.post(f"{running.url}/v1/files", files={"file": data}, data={"purpose": "user_data"}, timeout=60)
        path = f"/v1/files/{stored.json()['id']}/content"
        with socket.create_connection(("127.0.0.1", running.port), timeout=60) as deaf:
            deaf.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
            deadline_s = time.monotonic() + 60
            while 'refused_total{reason="slow_reader"}' not in httpx.get(f"{running.url}/metrics").text:
                assert time.monotonic() < deadline_s
                time.sleep(0.1)


@pytest.mark.parametrize("data", [b"\0" * 200, b"GET\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
                                  b"\x16\x03\x01\x02\x00" + bytes(100), b"GET /" + b"a" * 10**6 + b" HTTP/1.1\r\n\r\n"],
                         ids=range(5))
def test_what_is_no_http(server, data):
    said = b""
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as raw, suppress(OSError):
        raw.sendall(data)
        raw.shutdown(socket.SHUT_WR)
        said = raw.recv(65536)
    assert said == b"" or b" 400 " in said.partition(b"\r\n")[0] or b" 403 " in said or b" 404 " in said, said
    assert httpx.get(f"{server.url}/health/live").status_code == 200


# -- how much ------------------------------------------------------------------------------------------------------


def test_a_bucket_fills_with_time():
    clock = FakeClock()
    bucket = Bucket(2.0, 3.0, clock)
    assert [bucket.take() for _ in range(4)] == [0.0, 0.0, 0.0, 0.5]
    clock.advance(0.5)
    assert bucket.take() == 0.0 and bucket.take() == 0.5
    clock.advance(100)
    assert bucket.left == 3.0
    assert bucket.take(10) == 0.0 and bucket.take() == 4.0, "one that is larger leaves a debt"


def test_too_many_requests_are_told_when_to_come_back(model, folder):
    keys = (Key.of(ALICE, name="alice"), Key.of(BOB, name="bob"))
    settings = Settings(port=0, state=folder / "few", requests_per_min=3, api_keys=keys)
    with serving(model, settings) as running:
        got = [httpx.get(f"{running.url}/v1/models", headers=bearer(ALICE)) for _ in range(5)]
        assert [g.status_code for g in got] == [200, 200, 200, 429, 429]
        assert code_of(got[-1]) == (429, "rate_limit_exceeded") and 1 <= int(got[-1].headers["retry-after"]) <= 20
        assert got[-1].json()["error"]["type"] == "rate_limit_error"
        assert httpx.get(f"{running.url}/v1/models", headers=bearer(BOB)).status_code == 200, "others are not harmed"


def test_too_much_at_once_is_told_to_come_back(model, folder, clip):
    settings = Settings(port=0, state=folder / "busy", most_answers=1, most_waiting=3)
    url = data_url(clip.read_bytes())
    with serving(model, settings) as running:
        outcomes: list[httpx.Response] = []
        asking = [threading.Thread(target=lambda: outcomes.append(ask(running, *[shown(url)] * 4))) for _ in range(6)]
        for each in asking:
            each.start()
        for each in asking:
            each.join(120)
        done, busy = ([g for g in outcomes if (g.status_code == 200) is good] for good in (True, False))
        assert len(done) >= 2 and len(busy) >= 2 and len(outcomes) == 6
        assert all(code_of(g) == (429, "server_busy") and int(g.headers["retry-after"]) >= 1 for g in busy)
        assert ask(running).status_code == 200, "the places are free again"


def test_an_answer_that_takes_too_long_ends(model, folder, clip):
    with serving(model, Settings(port=0, state=folder / "short", answer_timeout_s=0.05)) as running:
        assert code_of(ask(running, *[shown(data_url(clip.read_bytes()))] * 4)) == (504, "timeout")
        assert running.gateway.answering.inside == 0


def test_too_many_files(model, folder):
    settings = Settings(port=0, state=folder / "files", most_files=2, files_bytes=100)
    with serving(model, settings) as running:
        def send(size: int) -> httpx.Response:
            data = b"time_s,a\n".ljust(size)
            return httpx.post(f"{running.url}/v1/files", files={"file": ("t.csv", data)}, data={"purpose": "user_data"})

        assert send(60).status_code == 200
        assert code_of(send(60)) == (400, "storage_full")
        assert send(30).status_code == 200 and code_of(send(9)) == (400, "storage_full")


# -- whatever comes ------------------------------------------------------------------------------------------------


def test_schemathesis_finds_no_server_error(server):
    from hypothesis import HealthCheck, given, settings
    from schemathesis import openapi
    from schemathesis.checks import not_a_server_error

    seen: dict[str, int] = {}

    def hammer(operation) -> None:
        @settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None)
        @given(case=operation.as_strategy())
        def one(case) -> None:
            status = case.call_and_validate(checks=[not_a_server_error], timeout=60).status_code
            seen[operation.label] = max(status, seen.get(operation.label, 0))

        one()

    for each in openapi.from_url(f"{server.url}/openapi.json").get_all_operations():
        hammer(each.ok())
    assert {"POST /v1/chat/completions", "GET /v1/models", "POST /v1/files", "GET /v1/files"} <= set(seen)
    assert max(seen.values()) < 500 and healthy(server)


def test_the_description_holds_the_request(server):
    described = httpx.get(f"{server.url}/openapi.json").json()
    assert {"model", "messages", "stream"} <= set(described["components"]["schemas"]["ChatRequest"]["properties"])
    assert json.dumps(described).count("ChatRequest") >= 2
