"""Search over a session's log, and which windows a question brings back."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from anymodal.config_words import SearchSpec
from anymodal.errors import ConfigError, LogError, QuestionError
from anymodal.language.past import Past, chosen
from anymodal.language.tokenizer import times_in
from anymodal.memory import Span
from anymodal.session.log import LogInfo
from anymodal.session.phrases import Phrases, expand
from anymodal.session.recall import Recall
from anymodal.session.sqlite_log import SqliteLog, forget
from anymodal.stages.items import Percept
from anymodal.types import Evidence, Tokens

SPEC = SearchSpec(words={"color": ("red", "blue", "green", "pink"), "shape": ("circle", "ring", "star", "cross"),
                         "sound": ("bell", "rising chirp")},
                  phrases={"video": ("{color} {shape}",), "audio": ("{sound} starts", "silence")},
                  synonyms={"disc": "circle", "chime": "bell"})
PHRASES = [*expand(SPEC.phrases["video"], SPEC.words), *expand(SPEC.phrases["audio"], SPEC.words)]


def text(phrases):
    return torch.eye(len(PHRASES))[[PHRASES.index(p) for p in phrases]]


def says(*phrases: str) -> np.ndarray:
    """(3, E): a query for each phrase, and others that say nothing."""
    nothing = [np.full(len(PHRASES), len(PHRASES) ** -0.5, np.float32)] * (3 - len(phrases))
    return np.stack([*(np.eye(len(PHRASES), dtype=np.float32)[PHRASES.index(p)] for p in phrases), *nothing])


def write(log: SqliteLog, rows: list[dict[str, tuple[str, ...]]], first: int = 0, repeats: int | None = None) -> None:
    for k, row in enumerate(rows, first):
        tokens = tuple(Tokens("s", m, k, m, float(k), k + 1.0, np.zeros((1, 4), np.float32), says(*p))
                       for m, p in row.items())
        as_before = {} if repeats is None else dict.fromkeys(row, repeats)
        log.append_window(Percept("s", k, float(k), k + 1.0, tokens, repeats=as_before))


@pytest.fixture
def log(tmp_path):
    with SqliteLog.create(tmp_path / "s.log", LogInfo("s", "tiny", "x", 1.0, "bfloat16")) as made:
        write(made, [{"video": ("red circle",), "audio": ("silence",)}, {"video": ("red circle", "blue ring")},
                     {"video": ("blue ring",)}, {"video": ("red circle",)}, {"video": ()}, {"video": ()},
                     {"video": ("red ring",), "audio": ("bell starts",)}, {"audio": ("rising chirp starts",)}])
        yield made


@pytest.mark.parametrize(("query", "expected"), [
    ("red circle", [(0, 4, "video")]), ("a red disc", [(0, 4, "video")]), ("the blue rings", [(1, 3, "video")]),
    ("blue circle", []), ("red", [(0, 4, "video"), (6, 7, "video")]), ("bell", [(6, 7, "audio")]),
    ("chime", [(6, 7, "audio")]), ("Rising chirp!", [(7, 8, "audio")]), ("silence", [(0, 1, "audio")]),
    ("bell and a red ring", [(6, 7, "audio"), (6, 7, "video")]),
])
def test_search_finds_spans_in_every_modality(log, query, expected):
    hits = Recall(Phrases(SPEC, text), log).search(query)
    assert sorted((h.start_s, h.end_s, h.modality) for h in hits) == sorted(expected)
    assert all(0.5 <= h.score <= 1 for h in hits)


def test_what_comes_later_is_found_too(log):
    recall = Recall(Phrases(SPEC, text), log)
    assert len(recall.search("red circle")) == 1
    write(log, [{"video": ("red circle",)}], first=8)
    assert [h.start_s for h in sorted(recall.search("red circle"), key=lambda h: h.start_s)] == [0.0, 8.0]
    assert recall.search("red circle") == Recall(Phrases(SPEC, text), log).search("red circle")


def test_a_word_that_is_not_known_is_an_error_that_names_those_that_are(log):
    with pytest.raises(QuestionError, match="bell, blue"):
        Recall(Phrases(SPEC, text), log).search("a dog")
    with pytest.raises(ConfigError, match="search"):
        Recall(Phrases(None, text), log).search("red circle")


@pytest.mark.parametrize(("question", "windows"), [
    ("When did you hear the bell?", [6]), ("What was there at 0:05?", [5, 4]), ("what happened at 2 s?", [2, 1, 3]),
    ("Where was the red circle?", [0, 1, 3]), ("How are you?", []), ("And at 3 hours?", []),
])
def test_a_question_brings_back_what_it_names(log, question, windows):
    assert Recall(Phrases(SPEC, text), log).windows(question, before=7 if "bell" in question else 6, most=9)[:3] == windows


BESIDE = SearchSpec(words={"color": ("red", "blue"), "shape": ("circle", "ring")},
                    phrases={"video": ("{color} {shape}",), "depth": ("nearest {shape}", "nothing near"),
                             "thermal": (("hottest {shape}", "nothing hot"),
                                         ("{shape} getting warmer", "nothing changes"))},
                    nothing=("nothing near", "nothing hot", "nothing changes"))


@pytest.fixture
def beside(tmp_path):
    """A log in which the circle is nearest, the ring is hottest, and the circle gets warmer in the second window."""
    said = [{"video": ("red circle",), "depth": ("nearest circle",), "thermal": ("hottest ring", change)}
            for change in ("nothing changes", "circle getting warmer")]
    every = list(dict.fromkeys(p for m in BESIDE.phrases for g in BESIDE.groups(m) for p in expand(g, BESIDE.words)))
    of = {p: np.eye(len(every), dtype=np.float32)[i] for i, p in enumerate(every)}
    with SqliteLog.create(tmp_path / "s.log", LogInfo("s", "tiny", "x", 1.0, "bfloat16")) as made:
        for k, row in enumerate(said):
            made.append_window(Percept("s", k, float(k), k + 1.0, tuple(
                Tokens("s", m, k, m, float(k), k + 1.0, np.zeros((1, 4), np.float32), np.stack([of[p] for p in phrases]))
                for m, phrases in row.items())))
        yield Recall(Phrases(BESIDE, lambda phrases: torch.from_numpy(np.stack([of[p] for p in phrases]))), made)


@pytest.mark.parametrize(("query", "expected"), [
    ("nearest circle", [(0, 2, "depth")]), ("the hottest ring", [(0, 2, "thermal")]), ("nearest ring", []),
    ("a circle getting warmer", [(1, 2, "thermal")]), ("red circle", [(0, 2, "video")]),
    ("circle", [(0, 2, "depth"), (0, 2, "video"), (1, 2, "thermal")]),
])
def test_each_token_says_its_own_and_who_reads_more_of_a_query_is_asked_alone(beside, query, expected):
    assert sorted((h.start_s, h.end_s, h.modality) for h in beside.search(query)) == expected


def test_nothing_is_neither_found_nor_said(beside):
    assert [s.text for s in beside.says(0)] == ["nearest circle", "hottest ring", "red circle"]
    assert [s.text for s in beside.says(1)] == ["nearest circle", "hottest ring", "circle getting warmer", "red circle"]
    with pytest.raises(QuestionError, match="known words"):
        beside.search("nothing changes")


def test_lists_of_phrases_must_be_one_for_each_token(log):
    spec = SPEC.model_copy(update={"phrases": {"video": (("red circle",), ("blue ring",))}})
    with pytest.raises(ConfigError, match="search.phrases.video has 2 lists, and a window 3 tokens"):
        Recall(Phrases(spec, text), log).search("red circle")
    with pytest.raises(ValueError, match="nothing: 'no ring' is not among the phrases"):
        SearchSpec(phrases={"video": ("a ring",)}, nothing=("no ring",))


def test_what_lies_within_a_span_comes_after_all_ends(log):
    write(log, [{"video": ("blue ring",)}] * 6, first=8)
    recall = Recall(Phrases(SPEC, text), log)
    assert recall.windows("Where was the blue ring?", before=14, most=20) == [1, 2, 8, 9, 13, 10, 11, 12]
    assert recall.windows("Where was the blue ring?", before=14, most=6) == [1, 2, 8, 9, 13, 10]


def test_a_window_that_repeats_another_is_not_brought_back_beside_it(log):
    write(log, [{"video": ("blue ring",)}], first=8)
    write(log, [{"video": ("blue ring",)}] * 3, first=9, repeats=8)
    write(log, [{"video": ("blue ring",)}] * 2, first=12)
    memory = SimpleNamespace(entries=[SimpleNamespace(whole=False, first=0, last=13)])
    found = Recall(Phrases(SPEC, text), log).lost("Where was the blue ring?", memory, 20, last=13)
    assert [p.index for p in found] == [1, 2, 8, 13, 12]


def test_what_is_still_on_show_is_not_looked_for_in_the_past(log):
    recall = Recall(Phrases(SPEC, text), log)
    assert recall.windows("Where is the red circle?", before=3, most=9, last=2) == [0, 1]
    assert recall.windows("Where is the red circle?", before=3, most=9, last=7) == []
    assert recall.windows("Where was the red circle at 1 s?", before=3, most=9, last=7) == [1, 0, 2]
    assert recall.windows("Where is the red circle?", before=3, most=9, known={0}, last=2) == [1]


def test_the_past_is_windows_that_show_a_thing_for_long_and_not_again(log):
    write(log, [{"video": ("pink star",)}] * 8 + [{"video": ("green cross",)}] * 9 + [{"video": ("pink star",)}], first=8)
    write(log, [{"video": ()}] * 4, first=26)
    memory = SimpleNamespace(entries=[SimpleNamespace(whole=False, first=0, last=23), SimpleNamespace(whole=True, first=24,
                                                                                                      last=29)])
    recall = Recall(Phrases(SPEC, text), log)

    def past(question: str, last: int = 29) -> list[int]:
        return [p.index for p in recall.past(question, memory, last=last)]

    assert past("Where was the pink star?") == list(range(8, 16)), "one window of 25 is no pink star"
    assert past("Where was the green cross?") == [], "the memory has its end whole"
    assert past("Where was the green cross?", last=23) == list(range(16, 24))
    assert past("Where was the pink star at 9 s?") == [7, 8, 9, 10, 11]
    assert past("Where was the pink star at 25 s?") == past("And at 3 hours?") == past("How are you?") == []
    assert past("What was 10 s ago?") == past("Which came within 9 s?") == past("Was it there at 0:01 and at 0:12?") == []
    assert past("When did you hear the bell?") == [6]


def test_gaps_and_what_was_deleted_are_no_past(log):
    write(log, [{"video": ("pink star",)}, {}, {"video": ("pink star",)}, {}, {"video": ()}, {"video": ()}], first=8)
    memory = SimpleNamespace(entries=[SimpleNamespace(whole=False, first=0, last=13)])
    recall = Recall(Phrases(SPEC, text), log)
    assert [p.index for p in recall.past("What was at 10 s?", memory, last=13)] == [8, 10, 12]
    found = recall.past("Where was the pink star?", memory, last=13)
    assert [p.index for p in found] == [8, 10]
    assert [p.index for p in recall.beside(found, last=11)] == [6, 7, 9, 11]
    log.first_window = lambda: 10
    assert [p.index for p in recall.past("What was at 10 s?", memory, last=13)] == [10, 12]
    assert [p.index for p in recall.beside(found[1:], last=11)] == [11]
    assert recall.past("What was at 9 s?", memory, last=13) == []


def test_a_clip_of_the_past_is_on_its_own_clock_and_what_is_said_of_it_on_the_session_s():
    def percept(k: int) -> Percept:
        return Percept("s", k, float(k), k + 1.0, (Tokens("s", "video", k, "v", float(k), k + 1.0, np.full((1, 4), k)),))

    seen = [Span.of(percept(k)) for k in range(7000, 7003)]
    past = Past.of([percept(k) for k in (40, 41, 55, 3725)], seen, 1.0)
    assert [(e.t0_s, e.t1_s, float(e.parts[0].embeds[0, 0])) for e in past.entries] == [
        (0, 1, 40), (1, 2, 41), (2, 3, 55), (3, 4, 3725), (4, 5, 7001), (5, 6, 7002)]
    assert past.asked("What was at 0:41?") == "What was at 1 s?" and past.asked("and at 9 s?") == "and at 9 s?"
    half = Past.of([Percept("s", k, k / 2, (k + 1) / 2, percept(0).tokens) for k in (251, 252)], seen[:0], 0.5)
    assert half.asked("What was at 2:06.2?") == "What was at 0.5 s?" and half.text("at 0.5 s") == "at 2:06"
    assert past.text("at 2 s") == "at 55 s" and past.text("at 3 s") == "at 1:02:05" and past.text("it is 9") == "it is 9"
    assert past.text("between 1 and 2 s, or 4 s") == "between 41 s and 42 s, or 1:56:41"
    found = past.evidence([Evidence(0.0, 3.0, "video"), Evidence(5.0, 6.0, "imu")])
    assert [(e.start_s, e.end_s, e.modality) for e in found] == [(40, 42, "video"), (55, 56, "video"), (7002, 7003, "imu")]
    assert Past.of([percept(k) for k in (7001, 7002)], seen, 1.0).begins_s == [7001, 7002], "each once"
    assert chosen([0, 0, 0, 0, 0, .5, 0, 1, 0], 6) == [0, 1, 2, 5, 7, 8]
    assert len(chosen([0.0], 6)) == 1


def test_times_are_read_from_questions():
    assert times_in("between 1:02:03 and 12:34, or at 75 s, or 2 minutes in?") == [3723.0, 754.0, 75.0, 120.0]
    assert times_in("3 circles, 2 rings") == []
    assert times_in(f"at {'9' * 400}:00, or at {'9' * 400} hours") == []


def test_a_phrase_must_name_known_words():
    with pytest.raises(ValueError, match="colour"):
        SearchSpec(words={"color": ("red",)}, phrases={"video": ("{colour}",)})


def test_a_log_that_was_forgotten_is_not_searched(log):
    recall = Recall(Phrases(SPEC, text), log)
    assert recall.search("red circle")
    forget(log.path)
    with pytest.raises(LogError, match="is gone: it was forgotten"):
        recall.search("red circle")
