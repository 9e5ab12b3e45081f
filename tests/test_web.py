"""The web page in a real browser, fed by a playground clip as its camera, its microphone and its motion sensors."""

import contextlib
import json
import re
import socket
import threading

import pytest

from actors.gateway.hosts import LocalHost
from actors.gateway.keys import Key
from actors.gateway.settings import Settings
from actors.gateway.testing import serving
from anymodal.playground.files import render_clips
from anymodal.testing import make_wav
from benchmarks import browser as b
from benchmarks.speech import VOICES, speak, voices_here

pytest.importorskip("playwright", reason="playwright is not installed (pip install 'anymodal[dev]')")
if b.find_chromium() is None:
    pytest.skip("no Chromium is installed: the web page is not tested (apt-get install chromium)", allow_module_level=True)

QUESTION = "what color is the star"  # of the clip below: blue


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A small blue star, a red ring, a bell, and somebody walking: `tiny` answers right about all four."""
    return render_clips(tmp_path_factory.mktemp("clip"), split="test", seed=77, first=4, count=1, seconds=6)[0]


@pytest.fixture(scope="module")
def camera(clip):
    return b.as_camera(clip, clip.with_suffix(".y4m"))


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("server")
    with serving(LocalHost("tiny", folder=folder / "sessions"), Settings(port=0, state=folder)) as server:
        yield server


@pytest.fixture(scope="module")
def playwright():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="module")
def chrome(playwright, clip, camera):
    with b.launched(playwright, *b.fake_devices(camera, b.as_microphone(clip, clip.with_suffix(".wav")))) as browser:
        yield browser


@pytest.fixture
def opened():
    """open(browser, url) -> a page that must not log an error, or ask for anything elsewhere."""
    pages, wrong = [], []

    def open_page(browser, url, before=lambda page: None, in_context=None, **options):
        page = (in_context or browser.new_context(**options)).new_page()
        page.set_default_timeout(1000 * b.PAGE_TIMEOUT_S)
        page.add_init_script(b.MOTION)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
        page.on("request", lambda asked: None if asked.url.startswith((url, "blob:")) else wrong.append(asked.url))
        pages.append(page)
        before(page)
        page.goto(url)
        return page

    yield open_page
    for page in pages:
        with contextlib.suppress(Exception):  # its browser may be closed already
            page.context.close()
    network = re.compile("WebSocket|ERR_|Failed to load")  # what a cut network makes a browser say
    assert [each for each in wrong if not network.search(each)] == []


def live(page):
    page.wait_for_selector("#state[data-state=live]")
    return page


def watch(page, clip):
    """Turn everything on: a camera, a microphone that asks nothing, motion sensors."""
    for source in ("camera", "microphone"):
        page.click(f"#{source}")
        page.wait_for_selector(f"#{source}[aria-pressed=true]")
    b.hold(page, clip)
    page.evaluate("playMotion(rows, rate_hz)")


def test_what_is_seen_heard_and_felt_can_be_asked_about(opened, chrome, server, clip):
    page = live(opened(chrome, server.url))
    watch(page, clip)
    b.wait_seen(page, 7)
    assert b.ask(page, "What is the color of the star?") == "blue"
    assert b.ask(page, "Name the sounds you heard.") == "a bell"
    assert b.ask(page, "what was the motion of the camera?") == "walking"
    assert {"seen", "heard", "felt"} >= {chip.split()[0] for chip in page.locator(".chip").all_inner_texts()} != set()
    assert float(page.inner_text("#rate")) <= 4.5 and page.inner_text("#dropped-there") == "0"

    page.locator(".chip.video").first.click()  # evidence leads to the moment
    assert page.is_visible("#moment[open]") and re.match(r"At 0:0\d", page.inner_text("#moment-title"))
    assert page.evaluate("document.querySelector('#moment-picture').naturalWidth") > 100
    page.click("#moment-ask")
    assert page.is_visible("#asof")
    b.ask(page, "What is the color of the star?")
    asked = re.search(r"as of 0:(\d\d)", page.locator(".turn .meta").last.inner_text())
    assert int(asked[1]) <= 7

    page.fill("#query", "purple square")
    page.press("#query", "Enter")
    page.locator("#hits button").first.click()
    assert "purple square" in page.inner_text("#moment-words")
    page.keyboard.press("Escape")
    page.fill("#query", "zebra")
    page.press("#query", "Enter")
    page.wait_for_function("() => document.querySelector('#hits').textContent.includes('zebra')")


def test_a_rule_tells_of_what_it_sees_and_can_be_paused(opened, chrome, server, clip):
    page = live(opened(chrome, server.url))
    for text in ("there is a blue star", "the red ring is in view"):
        page.fill("#rule", text)
        page.press("#rule", "Enter")
        page.wait_for_selector(f"#rules li:has-text('{text}')")
    page.click("#camera")
    page.wait_for_selector(".lane.rule .mark")
    assert re.search(r"at 0:\d\d, \d+ % sure", page.inner_text("#rules .chip >> nth=0"))
    assert page.locator(".notice:has-text('Seen at')").count() >= 1
    page.click("[aria-label='Pause: there is a blue star']")
    page.wait_for_selector("[aria-label='Resume: there is a blue star']")
    page.click("[aria-label='Remove: there is a blue star']")
    page.wait_for_selector("[aria-label='Remove: there is a blue star']", state="detached")
    assert page.locator("#rules .tools").count() == 1


class Wire:
    """A TCP proxy that can be cut."""

    def __init__(self, port):
        self._to, self._cut, self._ends = port, False, set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self):
        self._cut = True
        for end in list(self._ends):
            end.close()

    def mend(self):
        self._cut = False

    def close(self):
        self._listener.close()
        self.cut()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                here, _ = self._listener.accept()
                if self._cut:
                    here.close()
                    continue
                there = socket.create_connection(("127.0.0.1", self._to))
                self._ends |= {here, there}
                for source, sink in ((here, there), (there, here)):
                    threading.Thread(target=self._carry, args=(source, sink), daemon=True).start()

    def _carry(self, source, sink):
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
            self._ends.discard(end)


def test_a_cut_network_is_resumed_without_loss(opened, chrome, server):
    wire, told = Wire(server.port), []
    try:
        page = opened(chrome, f"http://127.0.0.1:{wire.port}/", before=lambda page: page.on(
            "websocket", lambda ws: ws.on("framereceived", lambda data: told.append(json.loads(data)))))
        live(page).click("#camera")
        b.wait_seen(page, 2)
        wire.cut()
        page.wait_for_selector("#state[data-state=lost]")
        assert page.is_visible(".notice:has-text('The connection was lost')")
        page.fill("#question", "What is the color of the star?")  # asked while nobody hears it
        page.press("#question", "Enter")
        page.wait_for_timeout(2500)
        wire.mend()
        live(page)
        page.wait_for_selector(".notice:has-text('Nothing was lost')")
        page.wait_for_selector(".turn .meta")
        b.wait_seen(page, 7)
        page.click("#camera")
        page.wait_for_timeout(300)
    finally:
        wire.close()
    events = [e for e in told if e["type"] not in ("anymodal.resumed", "anymodal.ack")]
    assert [e["anymodal"]["seq"] for e in events] == list(range(1, len(events) + 1))
    windows = [e for e in events if e["type"] == "anymodal.window"]
    assert [e["index"] for e in windows] == list(range(len(windows))) and len(windows) >= 7
    assert [e["index"] for e in windows if "video" not in e["streams"] or e["dropped"] or e["gap"]] == []
    assert sum(e["type"] == "response.done" for e in events) == 1


def test_what_is_refused_or_not_there_is_said(opened, playwright, server):
    with b.launched(playwright, "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream=deny") as browser:
        page = live(opened(browser, server.url))
        for source in ("camera", "microphone"):
            page.click(f"#{source}")
            page.wait_for_selector(f".notice:has-text('No permission for the {source}')")
            assert page.get_attribute(f"#{source}", "aria-pressed") == "false"
        page.click("#motion")
        page.wait_for_selector(".notice:has-text('no motion sensors')")
        page.set_input_files("#file", {"name": "letter.mp4", "mimeType": "video/mp4", "buffer": b"Dear Sir or Madam"})
        page.wait_for_selector(".notice:has-text('letter.mp4 cannot be played')")
        assert page.is_visible("#idle:has-text('being watched yet')")
    with b.launched(playwright, "--use-fake-ui-for-media-stream") as browser:
        page = live(opened(browser, server.url))
        page.click("#camera")
        page.wait_for_selector(".notice:has-text('There is no camera')")


def test_a_server_with_a_key_asks_for_it_and_a_busy_one_says_so(opened, chrome, random_model, tmp_path):
    settings = Settings(port=0, state=tmp_path, api_keys=(Key.of("open-sesame-open-sesame"),), most_sessions=1)
    with serving(LocalHost(random_model, folder=tmp_path / "sessions"), settings) as server:
        first = opened(chrome, server.url)
        first.wait_for_selector("#key[open]")
        first.fill("#key-value", "wrong")
        first.press("#key-value", "Enter")
        first.wait_for_selector("#key[open] #key-words:has-text('not known')")
        assert first.inner_text("#state") == "not connected"
        first.fill("#key-value", "open-sesame-open-sesame")
        first.press("#key-value", "Enter")
        live(first)
        assert "no spoken questions" in first.inner_text("#listen-words") and first.is_disabled("#listen")

        second = opened(chrome, server.url)
        second.fill("#key-value", "open-sesame-open-sesame")
        second.press("#key-value", "Enter")
        second.wait_for_selector(".notice:has-text('The server is busy')")
        assert second.inner_text("#state") == "server busy"


def test_spoken_questions_are_shown_answered_and_can_be_corrected(opened, playwright, server, camera, tmp_path):
    from anymodal.config import load_spec
    from anymodal.speech import SPEECH_HZ, load_speech

    pytest.importorskip("pocketsphinx", reason="the extra `speech` is not installed")
    voices = voices_here(VOICES)
    if not voices:
        pytest.skip("neither flite nor espeak-ng is installed: nobody speaks")
    spec, path = load_spec("tiny")
    sound = speak(QUESTION, voices[0])
    wav = make_wav(tmp_path / "question.wav", [*([0.0] * (3 * SPEECH_HZ)), *sound, *([0.0] * (20 * SPEECH_HZ))], SPEECH_HZ)
    server.gateway.speech = load_speech(spec, path.parent / spec.name)
    try:
        with b.launched(playwright, *b.fake_devices(camera, wav)) as browser:
            page = live(opened(browser, server.url))
            assert "pocketsphinx" in page.inner_text("#speech") and page.is_checked("#listen")
            page.click("#camera")
            page.click("#microphone")
            page.wait_for_selector(".turn .q.spoken:has-text('star')")
            page.wait_for_selector(".turn .meta")
            assert page.locator(".turn .a").last.inner_text() == "blue"
            page.click(".turn .mend")
            assert "star" in page.input_value("#question")
            page.uncheck("#listen")
            assert b.ask(page, "What is the shape of the blue object?") == "star"
    finally:
        server.gateway.speech = None


def test_speech_ends_an_answer_in_progress(opened, playwright, server, camera, tmp_path, monkeypatch):
    """Barge-in: the typed question's answer comes slowly, and somebody speaks meanwhile."""
    from anymodal.config import load_spec
    from anymodal.session.asking import Asking
    from anymodal.speech import SPEECH_HZ, load_speech

    pytest.importorskip("pocketsphinx", reason="the extra `speech` is not installed")
    if not (voices := voices_here(VOICES)):
        pytest.skip("neither flite nor espeak-ng is installed: nobody speaks")
    following, hurry = Asking.__next__, threading.Event()

    def slow(self):
        hurry.wait()  # until it is cancelled, or the test is over
        return following(self)

    cancel = Asking.cancel
    monkeypatch.setattr(Asking, "__next__", slow)
    monkeypatch.setattr(Asking, "cancel", lambda self: (cancel(self), hurry.set()))
    spec, path = load_spec("tiny")
    sound = speak(QUESTION, voices[0])
    wav = make_wav(tmp_path / "question.wav", [*([0.0] * (4 * SPEECH_HZ)), *sound, *([0.0] * (20 * SPEECH_HZ))], SPEECH_HZ)
    server.gateway.speech = load_speech(spec, path.parent / spec.name)
    try:
        with b.launched(playwright, *b.fake_devices(camera, wav)) as browser:
            page = live(opened(browser, server.url))
            page.click("#camera")
            b.wait_seen(page, 1)
            page.fill("#question", "What is the shape of the blue object?")
            page.press("#question", "Enter")
            page.wait_for_selector(".turn.busy")
            page.click("#microphone")
            page.wait_for_selector(".turn .meta:has-text('stopped: somebody spoke')")
            assert page.locator(".turn .a").first.inner_text() == ""
            page.wait_for_selector(".turn .q.spoken:has-text('star')")
            page.wait_for_selector(".turn .meta:has-text('sure')")
            assert page.locator(".turn .a").last.inner_text()
    finally:
        hurry.set()
        server.gateway.speech = None


def test_a_screen_is_shared_until_it_ends(opened, playwright, server):
    """Another tab, which shows a circle, never quite at rest; sharing is stopped from its side, and begun again."""
    with b.launched(playwright, "--auto-select-tab-capture-source-by-title=shown") as browser:
        context = browser.new_context(viewport={"width": 640, "height": 640})
        other = context.new_page()
        other.set_content("""<title>shown</title><style> body { margin: 0; background: #808080 }
            i { position: fixed; inset: 200px; border-radius: 50%; background: red; animation: stir 1s infinite }
            @keyframes stir { from { opacity: .99 } } </style><i></i>""")
        other.wait_for_function("() => document.title === 'shown'")
        page = live(opened(browser, server.url, in_context=context))
        page.click("#share")
        page.wait_for_selector("#share[aria-pressed=true]")
        b.wait_seen(page, 3)
        assert b.ask(page, "What color is the circle?") == "red"
        page.evaluate("""() => { const [track] = document.querySelector('#video').srcObject.getVideoTracks();
                      track.stop(); track.dispatchEvent(new Event('ended')); }""")
        page.wait_for_selector("#share[aria-pressed=false]")
        assert page.is_visible("#idle:has-text('being watched now')")
        page.click("#share")
        page.wait_for_selector("#share[aria-pressed=true]")
        page.wait_for_function("() => document.querySelector('#video').videoWidth > 0")
        context.close()


def test_the_page_is_usable_from_the_keyboard_on_a_phone_in_the_dark(opened, chrome, server):
    page = live(opened(chrome, server.url, viewport={"width": 390, "height": 844}, color_scheme="dark", has_touch=True))
    assert page.get_attribute("html", "data-theme") == "dark"
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    unnamed = page.evaluate("""() => [...document.querySelectorAll('button, input, meter')].filter((e) =>
        !(e.textContent.trim() || e.ariaLabel || e.labels?.length)).map((e) => e.outerHTML)""")
    assert unnamed == []
    small = page.evaluate("""() => [...document.querySelectorAll('main button')].filter((e) => e.offsetParent
        && e.offsetHeight < 40).map((e) => e.id || e.textContent)""")
    assert small == []
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.focus("#camera")
    page.keyboard.press("Space")
    b.wait_seen(page, 3)
    page.focus("#timeline")
    page.keyboard.press("Home")
    page.keyboard.press("Enter")
    assert page.inner_text("#moment-title") == "At 0:00.0"
    page.keyboard.press("ArrowRight")
    assert page.inner_text("#moment-title") != "At 0:00.0"
    page.keyboard.press("Escape")
    page.click("#theme")
    assert page.get_attribute("html", "data-theme") == "light"


def test_a_file_is_watched_with_its_sound(opened, chrome, server, clip):
    page = live(opened(chrome, server.url))
    b.watch_file(page, clip, 6)
    assert b.ask(page, "Did you hear a bell?") == "yes"
    assert b.ask(page, "what was the motion of the camera?") == "walking"
