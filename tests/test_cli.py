"""The command line as users meet it: what it prints, its exit codes, and one line for every kind of bad input."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

from anymodal import __version__
from anymodal.errors import OutputError
from anymodal.testing import gradient_frame, make_imu_csv, make_video, make_wav
from anymodal.types import Answer, Evidence

AXES = ("accel_x_m_s2", "accel_y_m_s2", "accel_z_m_s2", "gyro_x_rad_s", "gyro_y_rad_s", "gyro_z_rad_s")
FRAMES = [gradient_frame(64, i) for i in range(50)]
TONE = (0.3 * np.sin(2 * np.pi * 440 * np.arange(2 * 16000) / 16000)).astype(np.float32)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """A folder of good files: a clip of 2 s with sound and an IMU table beside it, a sound and a picture."""
    folder = tmp_path_factory.mktemp("files")
    make_video(folder / "clip.mp4", FRAMES, audio=TONE, audio_hz=16000)
    make_imu_csv(folder / "clip.imu.csv", np.arange(200) / 100, np.zeros((200, 6)), AXES)
    make_wav(folder / "sound.wav", TONE, 16000)
    make_video(folder / "picture.png", FRAMES[:1], codec="png", pixel_format="rgb24", container_format="image2")
    (folder / "frames").mkdir()
    for i in range(30):
        shutil.copy(folder / "picture.png", folder / "frames" / f"{i}.png")
    return folder


# --- what works --------------------------------------------------------------------------------------------------

def test_ask_prints_each_answer_with_its_question_evidence_and_confidence(cli, files, random_model):
    ran = cli("ask", files / "clip.mp4", "what is it?", "and now?", "--model", random_model)
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert lines[0] == "what is it?" and "and now?" in lines
    assert sum("| confidence" in line and "| 8 frames |" in line for line in lines) == 2


def test_ask_prints_the_same_text_that_json_and_python_give(cli, files, random_model):
    import anymodal

    answer = anymodal.load(random_model).ask(files / "clip.mp4", "what is it?")
    plain = cli("ask", files / "clip.mp4", "what is it?", "--model", random_model)
    row = json.loads(cli("ask", files / "clip.mp4", "what is it?", "--model", random_model, "--json").out)
    assert row["answer"] == answer.text
    assert plain.out.startswith(answer.text + "\n")


def test_ask_json_is_one_object_per_line_with_every_field(cli, files, random_model):
    ran = cli("ask", files / "clip.mp4", "one?", "two?", "--model", random_model, "--json", "--at", "1")
    rows = [json.loads(line) for line in ran.out.splitlines()]
    assert [r["question"] for r in rows] == ["one?", "two?"]
    for row in rows:
        assert set(row) == {"media", "model", "at_s", "question", "answer", "confidence", "evidence", "frames_seen",
                            "frames_dropped", "windows_seen", "time_to_first_token_s"}
        assert (row["media"], row["at_s"]) == (str(files / "clip.mp4"), 1.0)
        assert (row["windows_seen"], row["frames_seen"], row["frames_dropped"]) == (1, 4, 0)
        assert row["time_to_first_token_s"] > 0


@pytest.mark.parametrize(("media", "frames"), [("sound.wav", 0), ("picture.png", 1), ("frames", 5), ("-", 0)])
def test_ask_takes_sounds_pictures_folders_and_nothing(cli, files, random_model, media, frames):
    path = media if media == "-" else files / media
    row = json.loads(cli("ask", path, "what is it?", "--model", random_model, "--json").out)
    assert row["frames_seen"] == frames
    assert row["media"] == (None if media == "-" else str(path))


def test_a_sidecar_is_read_from_where_it_is_said_to_be(cli, files, random_model, tmp_path):
    rng = np.random.default_rng(0)
    for name in ("a.csv", "b.csv"):
        make_imu_csv(tmp_path / name, np.arange(200) / 100, 9 * rng.standard_normal((200, 6)), AXES)
    said = [cli("ask", files / "clip.mp4", "how?", "--model", random_model, "--json", *extra)
            for extra in (("--imu", tmp_path / "a.csv"), ("--sidecar", f"imu={tmp_path / 'a.csv'}"),
                          ("--imu", tmp_path / "b.csv"))]
    assert [r.code for r in said] == [0, 0, 0]
    one, same, other = (json.loads(r.out) for r in said)
    assert one["answer"] == same["answer"] and one["confidence"] == same["confidence"]
    assert (one["answer"], one["confidence"]) != (other["answer"], other["confidence"])


def test_a_folder_has_as_many_images_a_second_as_it_is_told(cli, files, random_model):
    """30 images: 4 frames a second are looked at, in windows of a second."""
    for rate, windows, frames in ((None, 2, 5), (10, 3, 12), (2, 15, 60)):
        ran = cli("ask", files / "frames", "what?", "--model", random_model, "--json",
                  *(() if rate is None else ("--rate", rate)))
        row = json.loads(ran.out)
        assert (row["windows_seen"], row["frames_seen"]) == (windows, frames)
    ran = cli("ask", files / "frames", "what?", "--model", random_model, "--json", "--rate", 2, "--at", 14)
    assert json.loads(ran.out)["windows_seen"] == 14
    for rate in (0, -1, "nan", "inf"):
        ran = cli("ask", files / "frames", "what?", "--model", random_model, "--rate", rate)
        assert ran.code == 2 and "of them a second (give a rate above 0" in ran.error
    for media in (files / "clip.mp4", "-"):
        ran = cli("ask", media, "what?", "--model", random_model, "--rate", 2)
        assert ran.code == 2 and "is no folder of images" in ran.error


def test_text_is_written_as_it_is_generated_and_evidence_under_it(capsys):
    from anymodal.commands.ask import summary, write_text
    from anymodal.types import Delta

    answer = Answer("q", "red ring", 0.9, (Evidence(1.0, 3.0, "video"), Evidence(2.0, 3.0, "audio")), 32, 1, 8, 0.05)
    seen = []

    def stream():
        for piece in (Delta(" red"), Delta(" ring"), answer):
            yield 0, piece
            seen.append(capsys.readouterr().out)

    write_text(stream(), ["q"])
    assert seen == ["red", " ring", "\n" + summary(answer) + "\n"]
    assert summary(answer) == ("  1.0-3.0 s video, 2.0-3.0 s audio | confidence 0.90 | 32 frames, 1 dropped "
                               "| first text after 0.05 s")


def test_version_and_help(cli):
    assert cli("--version").out == f"anymodal {__version__}\n"
    text = cli("--help").out
    for command in ("ask", "playground", "train", "eval", "doctor", "job"):
        assert f" {command} " in text
        if command != "job":  # job's own help is tested with the actors
            shown = cli(command, "--help")
            assert shown.code == 0 and f"anymodal {command}" in shown.out and "Examples" in shown.out


def test_playground_renders_files_with_their_truth(cli, tmp_path):
    ran = cli("playground", "--seed", 3, "--count", 1, "--seconds", 4, "--out", tmp_path / "clips")
    assert ran.code == 0 and "rendering 1/1" in ran.err
    names = sorted(p.suffix for p in (tmp_path / "clips").iterdir())
    assert names == [".csv", ".json", ".mp4"]
    truth = json.loads(next((tmp_path / "clips").glob("*.json")).read_text())
    assert truth["questions"] and "scene" in truth


# --- what is wrong: exit code and one line -----------------------------------------------------------------------

def broken(name: str, folder: Path, files: Path) -> Path:
    """Make one broken media file."""
    path, clip = folder / name, files / "clip.mp4"
    if name == "empty.mp4":
        path.write_bytes(b"")
    elif name == "truncated.mp4":
        path.write_bytes(clip.read_bytes()[:3000])
    elif name == "text.mp4":
        path.write_text("this is not a film\n" * 50)
    elif name == "noise.mp4":
        path.write_bytes(np.random.default_rng(0).bytes(5000))
    elif name == "zeros.mp4":
        path.write_bytes(bytes(5000))
    elif name == "no_samples.wav":
        make_wav(path, TONE[:0], 16000)
    elif name == "lying.mp4":  # an mp4 header, and noise where its frames should be
        data = bytearray(clip.read_bytes())
        start = data.index(b"mdat") + 4
        end = data.index(b"moov") - 4
        data[start:end] = np.random.default_rng(1).bytes(end - start)
        path.write_bytes(data)
    elif name == "no_codec.mp4":  # the codec's four letters name none that exists
        make_video(path, FRAMES)
        path.write_bytes(path.read_bytes().replace(b"avc1", b"zzz9"))
    elif name == "folder":
        path.mkdir()
        (path / "notes.txt").write_text("no images here")
    return path


@pytest.mark.parametrize(("name", "wanted"), [
    ("missing.mp4", "no file .*missing.mp4 .check the path"),
    ("folder", "is a directory without images .give a media file"),
    ("empty.mp4", r"is empty \(0 bytes\) .copy or record"),
    ("truncated.mp4", "cannot be opened as media: .*cut short"),
    ("text.mp4", "cannot be opened as media: .*give a media file"),
    ("noise.mp4", "cannot be opened as media: .*give a media file"),
    ("zeros.mp4", "only zeros: copy it again"),
    ("no_samples.wav", r"no_samples.wav .*\("),
    ("lying.mp4", "no decodable frame.*copy or export"),
    ("no_codec.mp4", r"no decoder for its video codec zzz9 .convert it first"),
])
def test_bad_media(cli, files, random_model, tmp_path, name, wanted):
    began_s = time.monotonic()
    ran = cli("ask", broken(name, tmp_path, files), "what is it?", "--model", random_model)
    assert ran.code == 3 and ran.out == ""
    assert re.search(wanted, ran.error), ran.error
    assert time.monotonic() - began_s < 60


def test_audio_where_video_is_asked_of(cli, files, random_model):
    ran = cli("ask", files / "sound.wav", "what colour?", "--require", "video", "--model", random_model)
    assert ran.code == 3
    assert "sound.wav has no usable video, only audio (give a clip with video" in ran.error
    assert cli("ask", files / "clip.mp4", "what?", "--require", "video", "--require", "imu", "--model",
               random_model).code == 0
    ran = cli("ask", files / "clip.mp4", "what?", "--require", "vidio", "--model", random_model)
    assert ran.code == 3 and "no usable vidio, only audio, imu, video (did you mean 'video'?)" in ran.error


@pytest.mark.parametrize(("arguments", "wanted"), [
    (["", ], "the question is empty (ask something"),
    (["   \t"], "the question is empty (ask something"),
    (["why? " * 100], "tokens, at most 96 are read (shorten it)"),
    (["why? " * 1000], "has 5000 characters, at most 2000 are read (shorten it)"),
    (["good?", ""], "the question is empty"),
    (["what?", "--at", "-1"], "cannot answer as of -1 s: a clip begins at 0 (give a time of 0 or later)"),
    (["what?", "--at", "99"], "2.00 s long (give a time from 0 to 2"),
    (["what?", "--at", "nan"], "nan"),
    (["what?", "--at", "soon"], "'--at'"),
    (["what?", "--sidecar", "imu"], "--sidecar 'imu' is not NAME=FILE (for example"),
    (["what?", "--sidecar", "imu=a", "--imu", "b"], "sidecar 'imu' is given twice"),
    (["what?", "--att", "3"], "--at"),
    ([], "Missing argument 'QUESTION...'"),
])
def test_bad_questions_and_options(cli, files, random_model, arguments, wanted):
    ran = cli("ask", files / "clip.mp4", *arguments, "--model", random_model)
    assert ran.code == 2 and ran.out == ""
    assert wanted in ran.error


def test_a_stream_that_cannot_be_decoded_is_said_and_the_rest_is_used(cli, files, random_model, tmp_path):
    path = tmp_path / "half.mp4"
    path.write_bytes((files / "clip.mp4").read_bytes().replace(b"avc1", b"zzz9"))
    ran = cli("ask", path, "what did you hear?", "--model", random_model)
    assert ran.code == 0 and ran.out and ran.err.startswith("warning: ") and "zzz9" in ran.err
    ran = cli("ask", path, "what colour?", "--model", random_model, "--require", "video")
    assert ran.code == 3 and "no usable video: no decoder for zzz9, only audio" in ran.error


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
@pytest.mark.timeout(120)
def test_a_pipe_is_no_clip_and_no_log_and_is_not_waited_for(cli, random_model, tmp_path):
    os.mkfifo(pipe := tmp_path / "pipe.mp4")
    for command in (("ask", pipe, "what?"), ("watch", pipe), ("watch", "--log", pipe)):
        ran = cli(*command, "--model", random_model)
        assert ran.code in (3, 9) and "is not a regular file" in ran.error or f"no log at {pipe}" in ran.error
    assert cli("forget", pipe).code == 9 and pipe.exists()


def test_a_time_without_media(cli, random_model):
    ran = cli("ask", "-", "what?", "--at", 3, "--model", random_model)
    assert ran.code == 2 and "there is no media" in ran.error


GOOD_ROW = ",".join("0" * 6)


@pytest.mark.parametrize(("text", "wanted"), [
    (f"0.1,{GOOD_ROW}\n0.0,{GOOD_ROW}\n", "line 3: time_s 0 comes after 0.1 (sort the rows"),
    (f"0.1,{GOOD_ROW}\n0.1,{GOOD_ROW}\n", "line 3: time_s 0.1 is repeated (sort the rows"),
    (f"0.1,{GOOD_ROW}\nnow,{GOOD_ROW}\n", "line 3: time_s is 'now', not a number"),
    ("0.1,0,0,x,0,0,0\n", "line 2: accel_z_m_s2 is 'x', not a number"),
    ("0.1,1\n", "line 2: 2 cells, the header has 7"),
    ("", "has no readings"),
])
def test_bad_sidecars(cli, files, random_model, tmp_path, text, wanted):
    table = tmp_path / "t.csv"
    table.write_text(",".join(("time_s", *AXES)) + "\n" + text)
    ran = cli("ask", files / "clip.mp4", "what?", "--imu", table, "--model", random_model)
    assert ran.code == 3 and wanted in ran.error


def test_a_sidecar_without_its_columns_or_of_no_sensor(cli, files, random_model, tmp_path):
    table = tmp_path / "t.csv"
    table.write_text("time_s,acel_x_m_s2\n0,1\n")
    ran = cli("ask", files / "clip.mp4", "what?", "--imu", table, "--model", random_model)
    assert ran.code == 3 and "no column 'accel_x_m_s2'" in ran.error and "did you mean 'acel_x_m_s2'" in ran.error
    ran = cli("ask", files / "clip.mp4", "what?", "--imu", tmp_path / "none.csv", "--model", random_model)
    assert ran.code == 3 and "no sidecar" in ran.error
    ran = cli("ask", files / "clip.mp4", "what?", "--sidecar", f"imo={table}", "--model", random_model)
    assert ran.code == 3 and "did you mean 'imu'" in ran.error
    ran = cli("ask", "-", "what?", "--imu", table, "--model", random_model)
    assert ran.code == 3 and f"there is no media that {table} could be beside (give a clip" in ran.error


@pytest.mark.parametrize(("spoil", "wanted"), [
    (lambda raw: raw.update(windw_s=1), "unknown key 'windw_s' (did you mean 'window_s'?)"),
    (lambda raw: raw["modalities"]["video"]["encoder"].update(layer=2), "unknown key 'layer' (did you mean 'layers'?)"),
    (lambda raw: raw["language"].update(use="anymodal.language.causal:CausalLN"), "did you mean 'CausalLM'?"),
    (lambda raw: raw["language"].update(use="os:system"), "add 'os' to the bundle's `trust`"),
    (lambda raw: raw["prompt"].update(order=["vidio"]), "names 'vidio' (did you mean 'video'?)"),
    (lambda raw: raw["language"].update(width=64), "perception.safetensors: tensor 'adapters.audio.to_lm.1.weight'"),
    (lambda raw: raw["language"].update(mlp_width=32), "language.safetensors: tensor 'model.layers.0.mlp."),
    (lambda raw: raw["language"].update(layers=3), "language.safetensors: no tensor 'model.layers.2."),
    (lambda raw: raw["modalities"]["imu"]["encoder"].update(layers=2), "perception.safetensors: no tensor 'encoders."),
    (lambda raw: raw["modalities"].pop("imu") and raw["prompt"].update(order=["video", "audio"]),
     "perception.safetensors: unknown tensor '"),
])
def test_bad_bundles(cli, own_bundle, spoil, wanted):
    path, raw, _ = own_bundle
    spoil(raw)
    path.write_text(yaml.safe_dump(raw))
    ran = cli("ask", "-", "what?", "--model", path)
    assert ran.code == 5 and wanted in ran.error


def test_bad_weights(cli, own_bundle):
    path, _, weights = own_bundle
    file = weights / "language.safetensors"
    file.write_bytes(file.read_bytes()[:-1000])
    ran = cli("ask", "-", "what?", "--model", path)
    assert ran.code == 5 and "language.safetensors" in ran.error and "damaged" in ran.error
    file.unlink()
    ran = cli("ask", "-", "what?", "--model", path)
    assert ran.code == 5 and "has no weights at" in ran.error and "anymodal train" in ran.error


@pytest.mark.parametrize("name", ["tokenizer.json", "calibration.json"])
@pytest.mark.parametrize("content", [b"", b'{"scale": 1', b"[]", b'{"scale": "x"}', b'{"scal": 1}', b'{"scale": NaN}',
                                     b"\xff"])
def test_bad_json_beside_the_weights(cli, own_bundle, name, content):
    path, _, weights = own_bundle
    (weights / name).write_bytes(content)
    ran = cli("ask", "-", "what?", "--model", path)
    assert ran.code == 5 and f"{name} is damaged" in ran.error and "copy it" in ran.error


@pytest.mark.parametrize(("argv", "code", "wanted"), [
    (["ask", "-", "what?", "--model", "tinny"], 5, "unknown bundle 'tinny' (did you mean 'tiny'?)"),
    (["ask", "-", "what?", "--model", "no/such.yaml"], 5, "no bundle file no/such.yaml"),
    (["eval", "tinny"], 5, "unknown bundle 'tinny' (did you mean 'tiny'?)"),
    (["train", "no/such.yaml"], 5, "no bundle file no/such.yaml"),
    (["train", "tiny", "--only", "languag"], 5, "no stage 'languag' in tiny"),
    (["train", "tiny", "--device", "gpu"], 5, "unknown device 'gpu'"),
    (["doctr"], 2, "no command 'doctr'; did you mean 'doctor'?"),
    (["playground", "--count", "0"], 2, "'--count'"),
    (["playground", "--split", "tests", "--count", "1"], 2, "unknown split 'tests' (did you mean 'test'?)"),
    (["playground", "--seconds", "0", "--count", "1"], 2, "clips of 0 s"),
    (["--nonsense"], 2, "--nonsense"),
])
def test_bad_names(cli, tmp_path, monkeypatch, argv, code, wanted):
    monkeypatch.chdir(tmp_path)
    ran = cli(*argv)
    assert ran.code == code and wanted in ran.error


def test_output_that_cannot_be_written(cli, tmp_path):
    (tmp_path / "taken").write_text("a file")
    ran = cli("playground", "--count", 1, "--seconds", 4, "--out", tmp_path / "taken")
    assert ran.code == 7 and "taken" in ran.error
    ran = cli("playground", "--count", 1, "--seconds", 4, "--out", tmp_path / "taken" / "below")
    assert ran.code == 7 and "taken" in ran.error


def test_a_report_that_cannot_be_written_is_said_before_a_clip_is_asked(cli, tmp_path, random_model, monkeypatch):
    (tmp_path / "kept.json").write_text("before")
    for path in (tmp_path / "nowhere" / "report.json", tmp_path):
        ran = cli("eval", random_model, "--count", 1, "--json", path)
        assert ran.code == 7 and ran.out == "" and "cannot be written" in ran.error and "clips" not in ran.err

    def full(report, path):
        raise OutputError(f"{path} cannot be written: no space", fix="give another file")

    monkeypatch.setattr("anymodal.training.evaluate.write_json", full)
    ran = cli("eval", random_model, "--count", 1, "--seconds", 2, "--no-controls", "--json", tmp_path / "kept.json")
    assert ran.code == 7 and "exact match on 1 held-out clips" in ran.out, "what was found is shown all the same"
    assert "clips 2/2 (1 of pairs of words never trained on)" in ran.err
    assert (tmp_path / "kept.json").read_text() == "before"


# --- as a process ------------------------------------------------------------------------------------------------

def start(*argv: object, **options) -> subprocess.Popen:
    """As a terminal would: a suite run in the background hands its children SIGINT ignored."""
    return subprocess.Popen([sys.executable, "-m", "anymodal", *map(str, argv)], stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True,
                            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), **options)


def test_errors_are_one_line_without_a_traceback_in_a_real_process(tmp_path):
    process = start("ask", tmp_path / "missing.mp4", "what?", "--model", "tinny")
    out, err = process.communicate(timeout=300)
    assert process.returncode == 5 and out == ""
    assert err.startswith("error: unknown bundle") and err.count("\n") == 1


def test_interrupting_ends_with_130_and_one_line(tmp_path):
    process = start("playground", "--count", 500, "--seconds", 30, "--out", tmp_path / "clips")
    deadline_s = time.monotonic() + 60
    while not (tmp_path / "clips").exists() and time.monotonic() < deadline_s:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "error: interrupted" and "Traceback" not in err


def test_a_reader_that_has_seen_enough_is_no_error(files, random_model):
    process = start("ask", files / "clip.mp4", *(["what?"] * 5), "--json", "--model", random_model)
    assert process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=300) == 1 and process.stderr.read() == ""
