"""A session in one process: it is fed, remembers, and answers, all at the same time.

    fed media --reader--\\                       (feeder's thread)
                         windows --Perceive--> log --> mind's state --> answers   (askers' threads)
    pushed packets ------/

The mind reads nothing but the log: each window is stored first and then read back, so a state that is rebuilt is the
state that was live. Windows and answers take turns at the mind, a window or a piece of text at a time.
"""

from __future__ import annotations

import atexit
import logging
import math
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING

from anymodal.asked import Recent, pooled
from anymodal.config import LABEL_TOKENS, BundleSpec
from anymodal.errors import ConfigError, InputError, LogFullError, QuestionError, RuntimeFault, SessionError
from anymodal.media import read_windows
from anymodal.memory import Compaction
from anymodal.session.asking import Asking
from anymodal.session.feeder import Arrived, Feeder, feed_of, in_batches
from anymodal.session.follow_up import FollowUps
from anymodal.session.intake import session_streams
from anymodal.session.log import Feed, RuleEvent, SessionLog, Turn
from anymodal.session.news import News, Seen
from anymodal.session.outages import Outages
from anymodal.session.phrases import Phrases
from anymodal.session.pushes import Pushes
from anymodal.session.recall import AT_ONCE, Hit, Recall
from anymodal.session.rules import Rules, events
from anymodal.session.sift import Sift
from anymodal.session.state import LiveState
from anymodal.stages.lanes import Lanes
from anymodal.stages.perceive import BATCH, LIVE_BATCH, Perceive
from anymodal.types import Answer, Delta, Packet, Window

if TYPE_CHECKING:
    from anymodal.bundle import Bundle
    from anymodal.language.mind import MindState
    from anymodal.stages.items import Percept

TOLERANCE_S = 1e-6
STALL_S = 600.0  # `wait` gives up after so long without a window
STALE_WINDOWS = 4  # that a live session may be behind, unless it is told otherwise
MOST_TURNS = 16  # of a dialogue; the mind reads as many of them as fit its own budget

log = logging.getLogger("anymodal")
_open: weakref.WeakSet[Session] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """A thread that computes when the interpreter ends aborts the process: sessions that were left open end before."""
    for session in list(_open):
        with suppress(Exception):
            session.close()


class Session:
    """One stream and what is said about it. Made by `Agent.open` and `Agent.reopen`; safe to use from several threads.

    Raises LogError wherever the log cannot be used, FencedError among them: then another writer has the session.
    """

    _read = staticmethod(read_windows)  # of fed media
    _whole_batches = False  # whether windows that nobody judges go to the mind together
    _at_once = BATCH  # windows of fed media

    def __init__(self, bundle: Bundle, session_log: SessionLog, *, live: bool = False,
                 streams: Mapping[str, str] | None = None, idle_timeout_s: float = math.inf,
                 stale_s: float | None = None, gate: bool = False, clock: Callable[[], float] = time.monotonic,
                 on_close: Callable[[], None] = lambda: None) -> None:
        if stale_s is not None and not stale_s > 0:
            raise ConfigError(f"stale_s is {stale_s:g}: a live session has to be behind by something",
                              fix="give seconds above 0, or leave it out")
        if (made := session_log.compaction_before(Compaction)) is not None:
            made.check(bundle.spec.memory)
        self.log, self.id = session_log, session_log.info.session
        self.spec: BundleSpec = bundle.spec
        self._mind, self._lanes = bundle.mind, bundle.lanes
        self._perceive = (Perceive(bundle.shared_perception, batch=LIVE_BATCH if live else BATCH, gate=gate)
                          if session_log.writes else None)
        self._streams = session_streams(bundle.spec, streams)
        self._on_close, self._turns, self._input = on_close, Lanes(), threading.RLock()
        self._pushes = Pushes(bundle.spec.window_s, self._streams, self._input, live=live, clock=clock,
                              stale_s=STALE_WINDOWS * bundle.spec.window_s if stale_s is None else stale_s,
                              idle_timeout_s=idle_timeout_s)
        phrases = Phrases(bundle.spec.search, lambda texts: bundle.joint_text(texts), self._mind.spelt)
        self._follow_ups = FollowUps(bundle.spec.search, bundle.spec.point)
        self.rules = Rules(session_log, lock=self._turn, check=self._check_rule,
                           concerned=Sift(phrases, session_log).concerned)
        self._recent = Recent(bundle.spec)
        self._recall = Recall(phrases, session_log)
        self._most_recalled = bundle.spec.memory.recalled_tokens // LABEL_TOKENS
        self._judged = session_log.last_window() < 0  # a window may have been stored, and its rules not judged
        self._news, self._told = threading.Condition(), News()
        self._state, self._outages = LiveState(bundle.mind, session_log), Outages()
        self._feeder: Feeder | None = None
        self._arrived_s = 0.0  # the end of what has come in, seen or not
        self._closed = False
        _open.add(self)

    # -- watching -----------------------------------------------------------------------------------------------

    @property
    def windows(self) -> int:
        """How many windows have been seen."""
        self._check_open()
        return self.log.last_window() + 1

    @property
    def end_s(self) -> float:
        """The end of the last window seen: what a question is answered as of, if it does not say."""
        return self.windows * self.spec.window_s

    def feed(self, media: str | Path | None = None, *, sidecars: Mapping[str, str | Path] | None = None) -> None:
        """Begin to watch a file, folder or address, behind what was seen before; `wait` for its end.

        What the log holds of the same media is not read again: reading goes on where it was broken off. Without media,
        that of the log's last feed. Raises MediaError, SidecarError, and SessionError while something else is fed.
        """
        with self._input:
            self._check_free()
            feed, known = feed_of(self.log, media, sidecars or {})
            if feed.done:
                return
            first = max(feed.window + 1, self._perceive.begins(self.windows))
            self._perceive.forget(self.id)  # a pass decides alone what repeats, so that it can be gone on with
            reader = self._read(feed.media, self.spec, sidecars=feed.sidecars,
                                  first_window=first - feed.first_window)
            if not known:  # what cannot be opened is not noted
                self.log.append(feed)
            batches = in_batches(reader, self._at_once, feed.first_window, self.spec.window_s)

            def done() -> None:
                for warning in reader.warnings:
                    log.warning(warning)
                self.log.append(replace(feed, window=self.log.last_window(), done=True))

            self._feeder = Feeder(feed.media, _closing(batches, reader), self._take, done)

    def push(self, packet: Packet) -> None:
        """Take a piece of a stream; its window is seen once all streams have passed its end.

        Raises PacketError for a packet that is no use: it is counted as dropped, and the session goes on. Raises
        BusyError when windows come faster than they are seen; a live session sheds the oldest instead.
        """
        with self._input:
            self._begin_pushes()
            newest_s, error = self._pushes.push(packet)
            self._arrived_s = max(self._arrived_s, newest_s)
            if error is not None:
                raise error

    def flush(self, *, stall_s: float = STALL_S) -> None:
        """Nothing more is pushed for now: see all that was, an unfinished last window too, and wait for it."""
        self._check_open()
        with self._input:
            self._pushes.flush()
        self.wait(stall_s=stall_s)

    def be_patient(self) -> None:
        """When all streams are silent, their source is away and may bring what is missing later: an unfinished window is
        kept open for it, `idle_timeout_s` or not."""
        with self._input:
            self._pushes.be_patient()

    def missing(self, source: str, reason: str, start_s: float, end_s: float = math.inf) -> None:
        """Nothing comes of a source in [start_s, end_s) of media time, and why: windows that have nothing at all say so,
        in the log too. Noted again with the same start, it ends otherwise."""
        self._outages.note(source, reason, start_s, end_s)

    def wait(self, *, stall_s: float = STALL_S) -> None:
        """Return once all that is fed has been seen. Raises what ended it early, RuntimeFault after `stall_s` seconds
        without a new window, and SessionError while packets are pushed: they have no end before `flush`."""
        self._check_flushed()
        seen, since = self.windows, time.monotonic()
        while (feeder := self._feeder) is not None and feeder.running:
            with self._news:
                self._news.wait(0.1)
            if self.windows != seen:
                seen, since = self.windows, time.monotonic()
            if time.monotonic() - since > stall_s:
                raise RuntimeFault(f"no window has come from {feeder.name} for {stall_s:g} s",
                                   fix="close the session, look at the source, and reopen it")
        self._raise_fault()

    def _check_flushed(self) -> None:
        if self._pushes.going_on and (feeder := self._feeder) is not None and feeder.running:
            raise SessionError("packets are pushed to the session, so there is no end to wait for",
                               fix="flush() waits until all that was pushed has been seen")

    def seen(self, after: int = -1, *, wait_s: float = 0.0) -> list[Seen]:
        """What the windows after number `after` were, oldest first, a few dozen at once; waits for one to come."""
        self._check_open()
        if self.log.last_window() <= after:
            with self._news:
                self._news.wait_for(lambda: self._closed or self._told.last > after, wait_s)
        with self._turn():
            return [replace(s, says=tuple(self._recall.says(s.window))) for s in self._told.since(self.log, after)]

    # -- asking -------------------------------------------------------------------------------------------------

    def ask(self, question: str, *, at_s: float | None = None, dialogue: str | None = None,
            wait_s: float = 0.0) -> Answer:
        """Answer a question as of now, or as of media time `at_s`, whatever has been seen since.

        dialogue: a name; earlier questions of the same name are read before this one ("and after that?").
        wait_s: how long to wait for an `at_s` that has not come yet. Raises QuestionError, also for an `at_s` that has
        not come, and SessionError for a closed session.
        """
        for piece in self.stream(question, at_s=at_s, dialogue=dialogue, wait_s=wait_s):
            if isinstance(piece, Answer):
                return piece
        raise SessionError("the answer was cancelled", fix="ask again")

    def stream(self, question: str, *, at_s: float | None = None, dialogue: str | None = None,
               wait_s: float = 0.0, key: str = "") -> Asking:
        """The same as it is generated: Deltas, then the Answer. key: names a question that is asked again since its answer
        may not have arrived: it is kept once."""
        self._check_open()
        self._mind.check(question)
        if at_s is not None and not (isinstance(at_s, Real) and 0 <= at_s < math.inf):
            raise QuestionError(f"cannot answer as of {at_s!r:.40} s: a session begins at 0",
                                fix="give a time in seconds, 0 or later")
        if not isinstance(wait_s, Real) or math.isnan(wait_s):
            raise QuestionError(f"cannot wait for {wait_s!r:.40} s", fix="give a number of seconds")
        stale_s = max(0.0, self._arrived_s - self.end_s) if at_s is None else 0.0
        return Asking(self, question, at_s, dialogue, wait_s, stale_s, key)

    def _answer(self, asking: Asking) -> Iterator[Delta | Answer]:
        """An answer's pieces. The lock is held only while a piece is made."""
        self._wait_for(asking.at_s, asking.wait_s, asking.stopped)
        with self._turn(), self._lanes.taken(urgent=True):
            state = self._state_at(asking.at_s)
            last = state.memory.last_window if asking.at_s is None else self._last(asking.at_s)
            as_of_s = (last + 1) * self.spec.window_s
            turns = self._earlier(asking, as_of_s)
            question = self._follow_ups.meant(asking.question, turns, self.spec.window_s, as_of_s)
            whole = question != asking.question or self._follow_ups.whole(question)
            turns = [] if whole and self.spec.point is not None else turns
            alone = self.spec.memory.past_windows
            past = self._recall.past(question, state.memory, last=last) if alone else []
            recalled = [] if past else self._recall.lost(question, state.memory, self._most_recalled, last=last)
            recalled = [*self._pooled(question, last), *recalled]
            pieces = self._mind.answer(state, question, at_s=as_of_s, turns=turns, recalled=recalled, past=past,
                                       beside=self._recall.beside(past, last=last), cancelled=asking.stopped)
            piece = next(pieces, None)
        waited_s = 0.0
        while isinstance(piece, Delta):
            if piece.text:
                waited_s = waited_s or time.perf_counter() - asking.began_s
                yield piece
            with self._turns.taken(), self._lanes.taken(urgent=True):
                piece = next(pieces, None)
        if asking.cancelled:
            return
        with self._turn():
            answer = replace(piece, question=asking.question, last_window=last, windows_missing=self.log.gaps(last),
                             ttft_s=waited_s or time.perf_counter() - asking.began_s, stale_s=asking.stale_s)
            self._keep(Turn(last, as_of_s, answer.question, answer.text, answer.confidence, answer.evidence,
                            asking.dialogue or "", asking.key))
        yield answer

    def _pooled(self, question: str, last: int) -> list[Percept]:
        """Windows up to `last` as an adapter that reads the question sees them; none for other adapters."""
        if self.spec.asked is None:
            return []
        if self._perceive is None:
            raise QuestionError(f"{self.spec.name} pools pictures by the question, which only the session that watches "
                                "can do: this one was opened for reading", fix="ask the session that writes this log")
        return pooled(self._perceive.perception, question, self._recent.choose(last), seen=last >= 0)

    def search(self, query: str) -> list[Hit]:
        """Spans of all that was seen that show something, in any modality, likeliest first: "red circle", "a bell".

        Raises QuestionError for a query without a word that the bundle can look for.
        """
        with self._turn():
            if not isinstance(query, str):
                raise QuestionError(f"cannot search for {query!r:.80}", fix="give words")
            return self._recall.search(query)

    def events(self, *, before_s: float | None = None) -> list[RuleEvent]:
        """What standing rules have seen begin, in order; `before_s`: as of then."""
        self._check_open()
        return list(events(self.log, before_s=before_s))

    def tell(self, question: str, answer: str, *, dialogue: str) -> None:
        """Note what was asked and answered elsewhere: later questions of the dialogue may refer to it."""
        with self._turn():
            self.log.append(Turn(self.log.last_window(), self.end_s, question, answer, dialogue=dialogue))

    def _earlier(self, asking: Asking, as_of_s: float) -> list[Turn]:
        if not asking.dialogue:
            return []
        return [t for t in self.log.entries(Turn, before_s=as_of_s)
                if t.dialogue == asking.dialogue and (not asking.key or t.asking != asking.key)][-MOST_TURNS:]

    def _keep(self, turn: Turn) -> None:
        """Store a turn. A full disk does not withhold the answer."""
        if self.log.writes:
            try:
                self.log.append(turn)
            except LogFullError as error:
                log.warning(f"an answer is not kept: {error}")

    def _wait_for(self, at_s: float | None, wait_s: float, stopped: Callable[[], bool]) -> None:
        """Until the windows that had ended by `at_s` have been seen. Raises QuestionError when they do not come."""
        until = time.monotonic() + wait_s
        while at_s is not None and self._last(at_s) >= self.windows and not stopped():
            feeder = self._feeder
            left_s = until - time.monotonic()
            ended = feeder is not None and not feeder.running
            if left_s <= 0 or (ended and self._last(at_s) >= self.windows):
                if feeder is not None and feeder.error is not None:
                    raise feeder.error
                raise QuestionError(f"cannot answer as of {at_s:g} s: the session has seen {self.end_s:g} s so far",
                                    fix=f"give a time from 0 to {self.end_s:g}" + (", or feed more" if ended
                                                                             else ", or wait for it with wait_s"))
            with self._news:
                self._news.wait(min(left_s, 0.1))
        self._check_open()

    def _last(self, at_s: float) -> int:
        """The last window that had ended by a media time; it may not have come yet."""
        return math.floor((at_s + TOLERANCE_S) / self.spec.window_s) - 1

    def _check_rule(self, question: str) -> None:
        if self.spec.asked is not None:
            raise QuestionError(f"{self.spec.name} pools pictures by the question, so it cannot watch for standing rules",
                                fix="use a bundle whose adapter does not read the question")
        self._mind.check(question)
        if self.spec.point is not None and not self.spec.search.knows(self._mind.spelt(question), self.spec.point):
            raise InputError(f"{self.spec.name} knows no word of what this rule waits for: {question!r:.80}",
                             fix='name what it was taught, for example "a bell rings" or "the red circle stops"')

    # -- the mind's state ---------------------------------------------------------------------------------------

    def _state_at(self, at_s: float | None) -> MindState:
        """The live state where it reaches back to `at_s`, else one rebuilt from the log as of then."""
        state = self._state.caught_up()
        if at_s is None or self._last(at_s) >= self._last(state.exact_from_s):
            return state
        return self._state.rebuilt(self._last(at_s))

    # -- input --------------------------------------------------------------------------------------------------

    def _take(self, batch: list[Arrived]) -> None:
        """Encode windows, store them, and let the mind see them."""
        self._store(batch, self._encode(batch))

    def _encode(self, batch: list[Arrived]) -> list[Percept]:
        self._arrived_s = max(self._arrived_s, batch[-1][0].t1_s)
        percepts = self._perceive.encode([(self.id, window) for window, _ in batch])
        self._recent.note(percepts)
        return percepts

    def _store(self, batch: list[Arrived], percepts: list[Percept]) -> None:
        """May be called again: what is in the log already is not added."""
        arrived = iter(zip(percepts, batch, strict=True))
        for percept, (window, gap) in arrived:
            with self._turn(), self._lanes.taken():
                together = self._whole_batches and not len(self.rules)
                self._note(percept, window, gap, later=together)
                while gap or together:  # the next costs little more, and need not wait for another turn
                    percept, (window, gap) = next(arrived, (None, (None, "")))
                    if percept is None:
                        break
                    self._note(percept, window, gap, later=together)
                if together:
                    self._judge()
            with self._news:
                self._news.notify_all()

    def _note(self, percept: Percept, window: Window, gap: str, later: bool = False) -> None:
        """Store one window, and let the mind and the rules see it; `later`: with others, there are no rules."""
        began = [] if later else self._judge()
        if not percept.tokens:
            gap = gap or self._outages.why(window.t0_s, window.t1_s) or "no signal"
        percept = replace(percept, gap=gap)
        if self.log.append_window(percept):
            self._judged = False
            began += [] if later else self._judge()
            self._told.put(Seen.of(percept, window, percept.gap, began))

    def _judge(self) -> list[RuleEvent]:
        """See and judge the last window, unless that was done: it may have been broken off. What has begun with it."""
        state, last = self._state.caught_up(), self.log.last_window()
        if self._judged or last < 0:
            return []
        began = self.rules.watch(self._mind, state, next(self.log.windows(last, last))) if len(self.rules) else []
        if state.memory.in_effect_s:  # something was merged: from now on questions may look for it
            self._recall.update(AT_ONCE)
        self._judged = True
        return began

    def _begin_pushes(self) -> None:
        """The windower and the thread of pushed packets, behind what was seen before."""
        if self._pushes.going_on and self._feeder.running:
            self._check_open()
            return
        self._check_free()
        *_, noted = None, *self.log.entries(Feed)
        if noted is not None and noted.media and not noted.done:  # the rest of it will come behind what is pushed
            self.log.append(Feed(self.log.last_window(), "", self.windows))
        self._feeder = self._pushes.begin(self.windows, self._room, self._take)

    def _room(self) -> int:
        """How many windows to take at once: what fills up a batch with those of other sessions."""
        return max(1, self._perceive.batch - self._perceive.perception.under_way)

    def _check_free(self) -> None:
        """Raise unless input may begin, among other things what ended the last one."""
        self._check_open()
        if not self.log.writes:
            raise SessionError("the session was opened for reading only", fix="reopen it for writing")
        if self._feeder is not None and self._feeder.running:
            raise SessionError(f"the session is being fed from {self._feeder.name}",
                               fix="wait() for its end, or flush() what was pushed")
        self._raise_fault()
        self._pushes.forget()

    def _raise_fault(self) -> None:
        """Raise what ended the last input, once: it may begin again afterwards."""
        feeder = self._feeder
        if feeder is not None and not feeder.running and feeder.error is not None:
            error, feeder.error = feeder.error, None
            raise error

    # -- ending -------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End the session; its log stays. Running answers end with SessionError. Closing twice does nothing.

        Pushed packets that were not seen yet are lost: `flush` first. Raises RuntimeFault for a feed that does not end.
        """
        if self._closed:
            return
        self._closed = True
        _open.discard(self)
        with self._news:
            self._news.notify_all()
        ended = True
        if self._feeder is not None:
            self._feeder.stop()
            self._pushes.close()
            ended = self._feeder.join()
        with self._turns.taken():
            self._state.lose()
            self.log.close()
        self._on_close()
        if not ended:
            raise RuntimeFault(f"{self._feeder.name} did not end", fix="it ends with this process")

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """A turn at the mind; raises where the session is closed."""
        with self._turns.taken():
            self._check_open()
            yield

    def _check_open(self) -> None:
        if self._closed:
            raise SessionError("the session is closed", fix="reopen it from its log")


def _closing(batches: Iterator[list[Arrived]], reader) -> Iterator[list[Arrived]]:
    with reader:
        yield from batches
