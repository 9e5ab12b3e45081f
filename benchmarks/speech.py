"""Spoken questions: how many words are misheard, and what that costs in right answers.

    python -m benchmarks.speech [--clips N] [--questions N] [--voices V,V] [--model M] [--json FILE]
    python -m benchmarks.speech --phrases FILE

Playground questions in wordings kept from training are spoken by espeak-ng and flite ("espeak:en-us", "flite:slt"), cut by
silero-vad out of silence, transcribed by the bundle's `speech.asr`, and asked about their clips. `speech_accuracy` is that
of the transcripts, against that of the same questions typed. `--phrases` writes what the default's recognizer expects: the
playground's training wordings.
"""

from __future__ import annotations

import io
import random
import shutil
import subprocess
import sys
import tempfile
import wave
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from anymodal.agent import Agent, load  # noqa: E402
from anymodal.playground.files import render_clips  # noqa: E402
from anymodal.playground.questions import Question, make_questions  # noqa: E402
from anymodal.playground.truth import load_truth  # noqa: E402
from anymodal.playground.world import make_scene  # noqa: E402
from anymodal.speech import SPEECH_HZ, Speech, SpeechStopped, load_speech  # noqa: E402
from anymodal.speech.sound import to_rate  # noqa: E402
from anymodal.speech.words import spoken, word_errors  # noqa: E402
from anymodal.training.scoring import is_right  # noqa: E402
from benchmarks.report import Row, parser, report  # noqa: E402

VOICES = ("flite:slt", "flite:rms", "flite:awb", "flite:kal16", "espeak:en-us", "espeak:en-gb")
UNSCORED = ("caption", "describe_at")  # descriptions have no one right answer
SPEAK_TIMEOUT_S = 60
SCENES = 150  # whose questions are the phrases


def voices_here(wanted: Sequence[str]) -> list[str]:
    """Those whose program is installed."""
    return [voice for voice in wanted if shutil.which({"espeak": "espeak-ng"}.get(voice.split(":")[0], "flite"))]


def speak(text: str, voice: str) -> np.ndarray:
    """A text in a voice: float32 (T,) at SPEECH_HZ, between two silences."""
    program, _, name = voice.partition(":")
    with tempfile.NamedTemporaryFile(suffix=".wav") as file:
        command = (["flite", "-voice", name, "-t", text, "-o", file.name] if program == "flite" else
                   ["espeak-ng", "-v", name, "-s", "150", "-w", file.name, text])
        subprocess.run(command, check=True, capture_output=True, timeout=SPEAK_TIMEOUT_S)
        with wave.open(io.BytesIO(Path(file.name).read_bytes())) as sound:
            rate_hz = sound.getframerate()
            samples = np.frombuffer(sound.readframes(sound.getnframes()), "<i2").astype(np.float32) / 32768
    silence = np.zeros(SPEECH_HZ, np.float32)
    return np.concatenate([silence, to_rate(samples, rate_hz, SPEECH_HZ), silence])


def hear(speech: Speech, sound: np.ndarray) -> str:
    """What the server would make of it: utterances, transcribed and joined."""
    listener = speech.listener()
    found = [*listener.push(sound), *listener.flush()]
    return " ".join(speech.transcribe(e.samples, e.rate_hz) for e in found if isinstance(e, SpeechStopped))


@dataclass
class Tally:
    errors: int = 0
    words: int = 0
    right: int = 0
    typed_right: int = 0
    asked: int = 0

    def add(self, other: Tally) -> None:
        for name in vars(self):
            setattr(self, name, getattr(self, name) + getattr(other, name))

    @property
    def wer(self) -> float:
        return self.errors / max(1, self.words)


def measure(agent: Agent, speech: Speech, clips: Sequence[Path], count: int, voices: Sequence[str]) -> list[Row]:
    """Rows: word error rate of each voice and of all, accuracy of each and of all."""
    tallies = {voice: Tally() for voice in voices}
    for number, clip in enumerate(clips):
        rng = random.Random(number)
        scene = load_truth(clip.with_suffix(".json")).scene
        questions = [q for q in make_questions(scene, rng, held_out=True, noise=0.0) if q.type not in UNSCORED]
        questions = rng.sample(questions, min(count, len(questions)))
        texts = {voice: [hear(speech, speak(spoken(q.question), voice)) for q in questions] for voice in voices}
        asked = [q.question for q in questions] + [text for voice in voices for text in texts[voice]]
        answers = dict(zip((a := [t for t in dict.fromkeys(asked) if t]), agent.ask(clip, a), strict=True))
        for voice in voices:
            for question, text in zip(questions, texts[voice], strict=True):
                tallies[voice].add(scored(question, text, answers))
        print(f"  {clip.stem}: {len(questions)} questions, {len(answers)} texts", flush=True)
    total = Tally()
    for tally in tallies.values():
        total.add(tally)
    rows = []
    for voice, tally in (*tallies.items(), ("", total)):
        rows.append(Row("speech_wer", tally.wer, 0.0, tally.wer, unit="of words", case=voice, at_most=True))
        typed, said = tally.typed_right / max(1, tally.asked), tally.right / max(1, tally.asked)
        rows.append(Row("speech_accuracy", said, typed, said / typed if typed else 1.0, unit="right", case=voice))
    return rows


def scored(question: Question, text: str, answers: dict) -> Tally:
    errors, words = word_errors(text, question.question)
    right = bool(text) and is_right(question, answers[text].text)
    return Tally(errors, words, right, is_right(question, answers[question.question].text), 1)


def phrases() -> list[str]:
    """The playground's questions in the wordings of training, as they are spoken."""
    found: set[str] = set()
    for number in range(SCENES):
        scene = make_scene("train", 11, number)
        found |= {spoken(q.question) for q in make_questions(scene, random.Random(number), noise=0.0)}
    return sorted(found)


def main() -> None:
    """Command line."""
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--clips", type=int, default=20, help="clips to ask about (default 20)")
    arguments.add_argument("--questions", type=int, default=5, help="questions of each (default 5)")
    arguments.add_argument("--voices", default=",".join(VOICES), help=f"default {','.join(VOICES)}")
    arguments.add_argument("--model", default="tiny", help="a bundle with `speech` (default tiny)")
    arguments.add_argument("--phrases", metavar="FILE", type=Path, help="only write the recognizer's phrases to FILE")
    options = arguments.parse_args()
    if options.phrases:
        head = "# What people are likely to ask, a sentence a line; benchmarks/speech.py --phrases writes it."
        options.phrases.write_text("\n".join([head, *phrases(), ""]), encoding="utf-8")
        return
    voices = voices_here(options.voices.split(","))
    if not voices:
        raise SystemExit("error: neither espeak-ng nor flite is installed (apt-get install espeak-ng flite)")
    agent = load(options.model)
    speech = load_speech(agent.spec, agent.bundle.folder)
    if speech is None:
        raise SystemExit(f"error: bundle {options.model!r} has no speech (add it to its YAML)")
    with tempfile.TemporaryDirectory() as folder:
        clips = render_clips(folder, split="test", seed=23, count=options.clips, seconds=6)
        rows = measure(agent, speech, clips, options.questions, voices)
    report(f"questions spoken by {len(voices)} voices, heard by {speech.name}", rows, options.json)


if __name__ == "__main__":
    main()
