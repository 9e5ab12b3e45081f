"""Speech to words by pocketsphinx, whose wheel carries a model of American English: no network, no GPU, little memory.

With `phrases`, a file of sentences such as people will say, it expects their words and no others: far fewer errors where
the questions are known to be about little. Without, it expects any English.
"""

from __future__ import annotations

import logging
import os
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

        def __post_init__(self) -> None:
            if not 0 < self.discount < 1 or not self.language_weight > 0:
                raise ValueError(f"discount {self.discount:g} is not in (0, 1), or language_weight not positive")

    def __init__(self, config: Config, *, folder: Path) -> None:
        sphinx = need("pocketsphinx", extra="speech")
        self.name = "pocketsphinx en-us" + (", own words" if config.phrases else "")
        settings = {"loglevel": "FATAL", "lw": config.language_weight}
        if not config.phrases:
            self._decoder = sphinx.Decoder(**settings)
            return
        self._decoder = sphinx.Decoder(lm=None, **settings)
        known = self._known(_read(folder / config.phrases), folder / config.phrases)
        path = _language_model(known, config.discount)
        try:
            self._decoder.add_lm("phrases", sphinx.NGramModel(self._decoder.config, self._decoder.logmath, path))
        finally:
            os.unlink(path)
        self._decoder.activate_search("phrases")

    def transcribe(self, samples: np.ndarray) -> str:
        """Words of an utterance, float32 (T,) at 16 kHz; "" where nothing was understood."""
        pcm = (np.clip(samples, -1, 1) * 32767).round().astype("<i2").tobytes()
        if not pcm:
            return ""
        self._decoder.start_utt()
        self._decoder.process_raw(pcm, full_utt=True)
        self._decoder.end_utt()
        found = self._decoder.hyp()
        return found.hypstr if found else ""

    def _known(self, phrases: list[str], path: Path) -> list[str]:
        """The phrases, but for those with words that it cannot hear."""
        missing = {word for phrase in phrases for word in phrase.split() if self._decoder.lookup_word(word) is None}
        if missing:
            log.warning("%s: no pronunciation of %s", path, ", ".join(sorted(missing)[:9]))
        known = [phrase for phrase in phrases if missing.isdisjoint(phrase.split())]
        if not known:
            raise ConfigError(f"{path}: no phrase has only words that pocketsphinx knows", fix="write English sentences")
        return known


def _read(path: Path) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"speech.asr.phrases: {path} cannot be read: {error}",
                          fix="name a text file in the weights' folder") from error
    return [words for line in lines if not line.startswith("#") and (words := spoken(line))]


def _language_model(phrases: list[str], discount: float) -> str:
    """A trigram model of the phrases in ARPA's format; the path of the file, which is the caller's to delete."""
    from pocketsphinx.lm import ArpaBoLM

    model = ArpaBoLM(text="\n".join(phrases), add_start=True, discount_mass=discount)
    model.compute()
    with tempfile.NamedTemporaryFile("w", suffix=".lm", delete=False) as file:
        model.write(file)
    return file.name
