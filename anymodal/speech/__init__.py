"""Spoken questions: where speech begins and ends in a microphone's sound, and what was said.

    speech = load_speech(bundle.spec, bundle.folder)      # None where the bundle has no `speech`
    listener = speech.listener(rate_hz=24000)             # one for each microphone
    for found in listener.push(samples):                  # SpeechStarted, SpeechStopped
        if isinstance(found, SpeechStopped):
            speech.transcribe(found.samples, found.rate_hz)

Sound is float32 (T,) mono in [-1, 1]. The voice is found by silero-vad; the component that writes it down is the bundle's
`speech.asr`, with its `name` to be shown to people.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Protocol

import numpy as np

from anymodal.config import BundleSpec, SpeechSpec, build_part
from anymodal.speech.listener import Listener, SpeechStarted, SpeechStopped
from anymodal.speech.sound import SPEECH_HZ, to_rate
from anymodal.speech.words import written

__all__ = ["SPEECH_HZ", "Listener", "Recognizer", "Speech", "SpeechStarted", "SpeechStopped", "load_speech"]


class Recognizer(Protocol):
    """What `speech.asr` names."""

    name: str

    def transcribe(self, samples: np.ndarray) -> str:
        """Words of an utterance at SPEECH_HZ; "" where nothing was understood."""


class Speech:
    """What hears questions. Safe to use from several threads: utterances are written down one after the other."""

    def __init__(self, spec: SpeechSpec, asr: Recognizer) -> None:
        self.spec, self._asr, self._turns = spec, asr, threading.Lock()

    @property
    def name(self) -> str:
        """Of the recognizer, such as "pocketsphinx en-us"."""
        return self._asr.name

    def listener(self, rate_hz: int = SPEECH_HZ, *, threshold: float | None = None, silence_s: float | None = None,
                 padding_s: float | None = None) -> Listener:
        """Cuts one microphone's sound into utterances; what is not given is the bundle's."""
        spec = self.spec
        return Listener(rate_hz, threshold=spec.threshold if threshold is None else threshold,
                        silence_s=spec.silence_s if silence_s is None else silence_s,
                        padding_s=spec.padding_s if padding_s is None else padding_s, longest_s=spec.longest_s)

    def transcribe(self, samples: np.ndarray, rate_hz: int) -> str:
        """An utterance as a question would be typed: "what is there at 5 seconds"; "" where nothing was understood."""
        with self._turns:
            return written(self._asr.transcribe(to_rate(samples, rate_hz, SPEECH_HZ)))


def load_speech(spec: BundleSpec, folder: Path) -> Speech | None:
    """The bundle's `speech`, loaded; None where it has none. `folder`: its weights'.

    Raises ConfigError, WeightsError, and MissingExtraError without the extra `speech`.
    """
    if spec.speech is None:
        return None
    asr = build_part(spec.speech.asr, spec.trust, folder=folder)
    Listener(SPEECH_HZ)  # silero-vad is there
    return Speech(spec.speech, asr)
