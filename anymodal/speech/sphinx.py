"""Speech to words by pocketsphinx, whose wheel carries a model of American English: no network, no GPU, little memory.

With `phrases`, a file of sentences such as people will say, it expects their words and no others: far fewer errors where
the questions are known to be about little. Without, it expects any English.
"""

from __future__ import annotations

import logging
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from anymodal.errors import ConfigError, need
from anymodal.speech.words import spoken

log = logging.getLogger("anymodal")


class PocketSphinx:
    """A Recognizer. Not safe to use from two threads at once."""

    @dataclass(frozen=True)
    class Config:
        phrases: str = ""
        """A text file in the weights' folder, one sentence a line."""
        discount: float = 0.5
        """How much of the probability is left for what the phrases do not say in this order."""
        language_weight: float = 6.5
        """What words that are expected count against what is heard."""
        dither: float = 0.003
        """Standard deviation of the noise that is added, of full scale: the model knows no sound without any, such as a
        synthesised voice or a microphone behind a noise gate."""

        def __post_init__(self) -> None:
            if not 0 < self.discount < 1 or not self.language_weight > 0:
                raise ValueError(f"discount {self.discount:g} is not in (0, 1), or language_weight not positive")
            if not 0 <= self.dither <= 0.1:
                raise ValueError(f"dither {self.dither:g} is not in [0, 0.1]")

    def __init__(self, config: Config, *, folder: Path) -> None:
        sphinx = need("pocketsphinx", extra="speech")
        self.name = "pocketsphinx en-us" + (", own words" if config.phrases else "")
        self._dither = config.dither
        settings = {"loglevel": "FATAL", "lw": config.language_weight}
        if config.phrases:
            with tempfile.TemporaryDirectory() as scratch:
                given = _model(folder / config.phrases, config.discount, Path(scratch))
                self._decoder = sphinx.Decoder(**given, **settings)
        else:
            self._decoder = sphinx.Decoder(**settings)

    def transcribe(self, samples: np.ndarray) -> str:
        """Words of an utterance, float32 (T,) at 16 kHz; "" where nothing was understood."""
        if not len(samples):
            return ""
        noise = np.random.default_rng(0).normal(0, self._dither, len(samples))  # the same each time: so is what is heard
        pcm = (np.clip(samples + noise, -1, 1) * 32767).round().astype("<i2").tobytes()
        self._decoder.start_utt()
        self._decoder.process_raw(pcm, full_utt=True)
        self._decoder.end_utt()
        found = self._decoder.hyp()
        return found.hypstr if found else ""


def _model(path: Path, discount: float, scratch: Path) -> dict[str, str]:
    """What a decoder needs to expect a file's phrases: a trigram model in ARPA's format and a dictionary of their words.

    Phrases with words whose sound is not known are left out. Of the whole dictionary a decoder would be built for seconds.
    """
    from pocketsphinx import get_model_path
    from pocketsphinx.lm import ArpaBoLM

    phrases = _read(path)
    words = {word for phrase in phrases for word in phrase.split()}
    sounds: dict[str, list[str]] = {}
    for line in Path(get_model_path("en-us/cmudict-en-us.dict")).read_text(encoding="utf-8").splitlines():
        if (word := line.split(" ", 1)[0].split("(")[0]) in words:
            sounds.setdefault(word, []).append(line)
    if missing := words - set(sounds):
        log.warning("%s: no pronunciation of %s", path, ", ".join(sorted(missing)[:9]))
    known = [phrase for phrase in phrases if missing.isdisjoint(phrase.split())]
    if not known:
        raise ConfigError(f"{path}: no phrase has only words that pocketsphinx knows", fix="write English sentences")
    model = ArpaBoLM(text="\n".join(known), add_start=True, discount_mass=discount)
    model.compute()
    model.write_file(str(scratch / "phrases.lm"))
    (scratch / "phrases.dict").write_text("\n".join(line for each in sounds.values() for line in each) + "\n",
                                          encoding="utf-8")
    return {"lm": str(scratch / "phrases.lm"), "dict": str(scratch / "phrases.dict")}


def _read(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"speech.asr.phrases: {path} cannot be read: {error}",
                          fix="name a text file in the weights' folder") from error
    return [words for line in lines if not line.startswith("#") and (words := spoken(line))]
