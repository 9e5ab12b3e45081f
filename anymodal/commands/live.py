"""`anymodal live`: cameras, microphones, streams and files at their own speed, watched as one session."""

from __future__ import annotations

import math
import queue
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from anymodal.commands.ask import load
from anymodal.commands.live_input import Typed
from anymodal.commands.live_view import JsonLines, PlainLines, View
from anymodal.commands.options import Device, Keep, KeepBytes, Model
from anymodal.commands.watch import parse_timed
from anymodal.errors import AnymodalError, InputError, need
from anymodal.types import Answer, Delta

IDLE_S = 2.0  # a stream that is silent for so long is not waited for
FRAME_S = 0.1  # between two looks at everything
STATUS_S = 1.0
FLUSH_S = 60.0  # for the last windows to be seen
HELP = "a question, /rule TEXT, /rules, /remove NAME, or /quit"


def live(
    sources: Annotated[
        list[str] | None,
        typer.Argument(metavar="[SOURCE]...", help="rtsp://, http(s):// (HLS too), udp://, tcp:// or rtmp:// addresses, or "
                       "files; NAME=SOURCE names one.", show_default=False),
    ] = None,
    camera: Annotated[
        list[str] | None, typer.Option(metavar="DEVICE", help="A camera, such as /dev/video0. Repeatable.")
    ] = None,
    mic: Annotated[
        list[str] | None, typer.Option(metavar="DEVICE", help="A microphone, such as default or hw:1. Repeatable.")
    ] = None,
    rule: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help='A standing rule: "tell me when a bell rings". Repeatable.')
    ] = None,
    ask: Annotated[
        list[str] | None,
        typer.Option(metavar='"SECONDS: QUESTION"', help="Ask at this media time; at the end without one. Repeatable."),
    ] = None,
    for_s: Annotated[
        float | None, typer.Option("--for", metavar="SECONDS", help="End after so long; without it, when all sources end.")
    ] = None,
    record: Annotated[
        Path | None, typer.Option(metavar="FILE.mkv", help="Keep what live sources bring, as it comes.")
    ] = None,
    log: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Where the session is kept; one that is there is gone on with.")
    ] = None,
    model: Model = "tiny",
    device: Device = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line, and no view.")] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Begin although no source can be opened yet.")] = False,
    keep: Keep = None,
    keep_bytes: KeepBytes = None,
) -> None:
    """Watch live sources; ask while it runs.

    In a terminal there is a view of the sources, what is seen, rule events and answers: type a question and press Enter.
    Elsewhere it prints lines, and questions are read from stdin. Ctrl-C or /quit ends it.

    [bold]Examples[/bold]

        anymodal live --camera /dev/video0 --mic default

        anymodal live rtsp://192.0.2.7/stream --rule "tell me when the red circle stops" --record door.mkv

        anymodal live clip.mp4 --ask "2: what can you see?" --for 4 --json
    """
    asked = sorted(map(parse_timed, ask or []), key=lambda pair: pair[0])
    if for_s is not None and not (math.isfinite(for_s) and for_s > 0):
        raise InputError(f"--for {for_s:g}: no time to watch in", fix="give seconds above 0")
    need("av", extra="run")
    from anymodal.live.live import Live
    from anymodal.live.record import Recorder
    from anymodal.media.spec import stream_specs
    from anymodal.session.log import Retention

    retention = Retention(keep, keep_bytes)
    addresses = addresses_of(sources or [], camera or [], mic or [])
    agent = load(model, device=device)
    recorder = None if record is None else Recorder(record)
    with Live(addresses, stream_specs(agent.spec.modalities), record=recorder) as feeds:
        wrong = feeds.open(wait=wait)
        with _session(agent, log, rule or [], streams=feeds.streams, retention=retention) as session:
            shown = JsonLines() if as_json else View() if sys.stdout.isatty() else PlainLines()
            with shown, Typed(keys=shown.keys) as typed, _terminated_as_interrupted():
                for text in wrong:
                    shown.tell({"type": "error", "text": text})
                Run(session, feeds, shown, typed, asked, math.inf if for_s is None else for_s).run()
        if recorder is not None and recorder.error:
            typer.echo(f"warning: the recording is not whole: {recorder.error}", err=True)


@contextmanager
def _session(agent: Any, log: Path | None, rules: list[str], **options: Any) -> Iterator[Any]:
    """The session of a log, or a new one, with these standing rules."""
    from anymodal.session.rule_text import same_rule

    options |= {"live": True, "idle_timeout_s": IDLE_S}
    is_old = log is not None and log.exists()
    with agent.reopen(log, **options) if is_old else agent.open(log=log, **options) as session:
        for text in rules:
            if not any(same_rule(text, rule.text) for rule in session.rules.list()):
                session.rules.add(text)
        yield session


def addresses_of(sources: list[str], cameras: list[str], microphones: list[str]) -> list[Any]:
    """What was given, as addresses. Raises InputError."""
    from anymodal.live import address

    found = [*map(address.camera, cameras), *map(address.microphone, microphones), *map(address.parse, sources)]
    if not found:
        raise InputError("there is nothing to watch", fix="give --camera, --mic, an address or a file")
    return found


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM ends it as Ctrl-C does: the terminal is restored, the log and the recording are closed."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


class Run:
    """A session while it is live: tells what happens, asks what is asked, until it is over."""

    def __init__(self, session: Any, feeds: Any, shown: Any, typed: Typed, asked: list[tuple[float, str]],
                 for_s: float) -> None:
        self._session, self._feeds, self._shown, self._typed = session, feeds, shown, typed
        self._asked = asked  # by media time; at infinity: at the end
        self._start_s = session.end_s
        self._until_s = self._start_s + for_s
        self._last, self._quit = session.windows - 1, False
        self._status_s = -math.inf
        self._questions: queue.Queue[tuple[str, float | None] | None] = queue.Queue()
        self._rows: queue.Queue[dict[str, Any]] = queue.Queue()
        self._asker = threading.Thread(target=self._ask_all, name="ask", daemon=True)

    def run(self) -> None:
        """Until the time is up, all sources have ended, or someone says so. Raises what ended the session early."""
        self._asker.start()
        self._shown.tell({"type": "started", "streams": self._feeds.streams, "start_s": self._start_s})
        self._feeds.begin(self._session.push, self._start_s, self._until_s)
        try:
            while not self._is_over():
                time.sleep(FRAME_S)
                self._look()
        except KeyboardInterrupt:
            pass
        self._feeds.close()
        if self._feeds.error is not None:
            raise self._feeds.error
        self._finish()

    def _is_over(self) -> bool:
        return self._quit or self._typed.ended or self._feeds.is_over

    def _finish(self) -> None:
        """See the last windows, and answer what is still open."""
        self._session.flush(stall_s=FLUSH_S)
        self._look()
        for at_s, question in self._asked:
            self._questions.put((question, None if at_s == math.inf else at_s))
        self._questions.put(None)
        while self._asker.is_alive():
            self._asker.join(FRAME_S)
            self._look()
        self._look()
        self._shown.tell({"type": "end", "windows": self._session.windows, "end_s": self._session.end_s,
                          "sources": self._sources()})

    # -- looking ------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Tell all that is new."""
        for news in self._feeds.news():
            if news.kind == "lost":
                self._session.missing(news.source, news.text, news.t_s)
            elif news.from_s is not None:
                self._session.missing(news.source, news.text, news.from_s, news.t_s)
            self._shown.tell({"type": "source", "source": news.source, "state": news.kind, "t_s": round(news.t_s, 3),
                              "text": news.text, "from_s": None if news.from_s is None else round(news.from_s, 3)})
        while seen := self._session.seen(self._last):
            for each in seen:
                self._tell_window(each)
            self._last = seen[-1].window
        for line in self._typed.lines():
            self._obey(line)
        while self._asked and self._asked[0][0] <= self._session.end_s:
            at_s, question = self._asked.pop(0)
            self._questions.put((question, at_s))
        while not self._rows.empty():
            self._shown.tell(self._rows.get())
        if time.monotonic() - self._status_s >= STATUS_S:
            self._status_s = time.monotonic()
            self._shown.tell({"type": "status", "t_s": round(self._feeds.clock.now_s(), 3), "sources": self._sources()})
        self._shown.draw(self._typed.text)

    def _tell_window(self, seen: Any) -> None:
        self._shown.tell({"type": "window", "window": seen.window, "start_s": seen.start_s, "end_s": seen.end_s,
                          "streams": list(seen.streams), "dropped": dict(seen.dropped), "gap": seen.gap,
                          "says": [asdict(said) for said in seen.says]})
        texts = {rule.name: rule.text for rule in self._session.rules.list()}
        for event in seen.began:
            self._shown.tell({"type": "event", "rule": event.rule, "text": texts.get(event.rule, ""), "t_s": event.t_s,
                              "confidence": round(event.confidence, 4),
                              "evidence": [asdict(evidence) for evidence in event.evidence]})

    def _sources(self) -> list[dict[str, Any]]:
        return [{"source": s.name, "address": s.shown, "state": s.state, "text": s.text,
                 "rates_hz": {m: round(hz, 1) for m, hz in s.rates_hz.items()}, "counts": dict(s.counts),
                 "held_s": round(s.held_s, 2)} for s in self._feeds.status()]

    def _obey(self, line: str) -> None:
        """A question, or what begins with a slash."""
        word, _, rest = line.partition(" ")
        try:
            if not line.startswith("/"):
                self._questions.put((line, None))
            elif word in ("/quit", "/q"):
                self._quit = True
            elif word == "/rule":
                self._note(f"{self._session.rules.add(rest).name}: {rest}")
            elif word == "/rules":
                self._note(", ".join(f"{r.name}: {r.text}" for r in self._session.rules.list()) or "no rules")
            elif word == "/remove":
                self._session.rules.remove(rest.strip())
            else:
                raise InputError(f"no command {word}", fix=HELP)
        except AnymodalError as error:
            self._note(str(error), "error")

    def _note(self, text: str, kind: str = "note") -> None:
        self._rows.put({"type": kind, "text": text})

    # -- the asker's thread -------------------------------------------------------------------------------------

    def _ask_all(self) -> None:
        while (asked := self._questions.get()) is not None:
            question, at_s = asked
            try:
                for piece in self._session.stream(question, at_s=at_s):
                    if isinstance(piece, Delta):
                        self._rows.put({"type": "delta", "question": question, "text": piece.text})
                    elif isinstance(piece, Answer):
                        asked_at = {} if at_s is None else {"at_s": at_s}
                        self._rows.put({"type": "answer", **asked_at, **piece.to_json()})
            except AnymodalError as error:
                self._rows.put({"type": "error", "text": str(error), "question": question})


