"""`anymodal watch`, `ask` on a session's log, and `forget`."""

from __future__ import annotations

import json

import pytest
import torch

from anymodal.commands.watch import parse_timed
from anymodal.session.log import Retention, Turn
from anymodal.session.sqlite_log import SqliteLog
from anymodal.testing import gradient_frame, make_video


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return make_video(tmp_path_factory.mktemp("watch") / "clip.mp4", [gradient_frame(32, i) for i in range(20)], rate_hz=5,
                      options={"preset": "ultrafast", "threads": "1"})


def test_watch_keep_ask_and_forget(cli, clip, random_model, tmp_path):
    log = tmp_path / "session.db"
    first = cli("watch", clip, "--log", log, "--ask", "what?", "--ask", "2: what?", "--model", random_model, "--json")
    assert first.code == 0, first
    early, late = map(json.loads, first.out.splitlines())
    assert (early["last_window"], late["last_window"], late["log"]) == (1, 3, str(log))
    assert first.err == f"4 windows, 4 s, in {log}\n"

    for again in (("watch", clip), ("watch",)):  # nothing is added
        assert cli(*again, "--log", log, "--model", random_model).err == f"4 windows, 4 s, in {log}\n"

    asked = cli("ask", log, "what?", "--model", random_model, "--json")
    assert json.loads(asked.out)["answer"] == late["answer"]
    asked = cli("ask", log, "what?", "--at", "2.5", "--model", random_model)
    assert asked.out.startswith(early["answer"][:5])
    with SqliteLog.read(log) as kept:
        assert len(list(kept.entries(Turn))) == 2  # `ask` only reads

    assert cli("ask", log, "what?", "--at", "9", "--model", random_model).error.endswith(
        "has seen 4 s so far (give a time from 0 to 4, or wait for it with wait_s)")
    assert "is a session's log" in cli("ask", log, "what?", "--require", "video", "--model", random_model).error
    assert cli("forget", log).out == f"deleted {log}\n" and list(tmp_path.iterdir()) == []
    gone = cli("forget", log)
    assert (gone.code, gone.error) == (9, f"error: no log at {log} (check the path)")


def test_watch_without_a_log(cli, clip, random_model):
    done = cli("watch", clip, "--ask", "what?", "--model", random_model)
    assert done.code == 0 and "confidence" in done.out and done.err == "4 windows, 4 s\n"


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
@pytest.mark.parametrize(("device", "said"), [("abacus", "unknown device 'abacus'"), ("cuda", "'cuda' is not there")])
def test_the_model_runs_where_it_is_told_to(cli, clip, random_model, tmp_path, device, said):
    ran = cli("watch", clip, "--log", tmp_path / "session.db", "--model", random_model, "--device", device)
    assert ran.code == 5 and said in ran.error and not (tmp_path / "session.db").exists()


@pytest.mark.parametrize("command", ["watch", "live"])
def test_what_a_log_may_drop(cli, clip, random_model, tmp_path, command, monkeypatch):
    given, log = [], tmp_path / "session.db"
    opened = SqliteLog.open
    monkeypatch.setattr(SqliteLog, "open", lambda *a, **o: given.append(o["retention"]) or opened(*a, **o))
    more = ("--log", log, "--model", random_model)
    assert cli(command, clip, *more, "--keep", "2", "--keep-bytes", "9000").code == 0
    assert cli(command, clip, *more, "--keep-bytes", "9000").code == 0
    assert given == [Retention(2.0, 9000), Retention(None, 9000)]
    refused = cli(command, clip, *more, "--keep", "-1")
    assert refused.code == 5 and "a log's age_s must be positive, found -1.0" in refused.error


def test_nothing_to_watch(cli, clip, random_model, tmp_path):
    log = tmp_path / "session.db"
    for given in ((), ("--log", log)):
        ran = cli("watch", *given)
        assert ran.code == 2 and "nothing to watch" in ran.error
    ran = cli("watch", tmp_path / "none.mp4", "--log", log, "--model", random_model)
    assert ran.code == 3 and list(tmp_path.iterdir()) == []
    ran = cli("watch", "--log", "session.db", "--imu", "a.csv")
    assert ran.code == 2 and "nothing to watch" in ran.error
    log.touch()
    ran = cli("watch", "--log", log, "--imu", "a.csv")
    assert ran.code == 2 and "no clip that a.csv could be beside" in ran.error


def test_forget_keeps_other_files(cli, clip):
    before = clip.read_bytes()
    ran = cli("forget", clip)
    assert ran.code == 9 and "is not a session's log" in ran.error and clip.read_bytes() == before


@pytest.mark.parametrize(("text", "pair"), [
    ("30: what?", (30.0, "what?")), (" 2.5 :what is 3:1?", (2.5, "what is 3:1?")), ("what?", (float("inf"), "what?")),
    ("now: what?", (float("inf"), "now: what?")), ("30:", (float("inf"), "30:")),
])
def test_a_time_before_a_question(text, pair):
    assert parse_timed(text) == pair
