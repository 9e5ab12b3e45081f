"""The mind's state of a session, which follows its log and can be rebuilt from it at any time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from anymodal.memory import Compaction
from anymodal.session.log import SessionLog

if TYPE_CHECKING:
    from anymodal.language.mind import Mind, MindState
    from anymodal.memory import Memory

FAR_BEHIND = 64  # windows; a state that is further behind the log is rebuilt


class LiveState:
    """One caller at a time. What fails leaves it to be rebuilt."""

    def __init__(self, mind: Mind, log: SessionLog) -> None:
        self._mind, self._log = mind, log
        self._state: MindState | None = None

    @property
    def memory(self) -> Memory:
        """As of the last window that was seen."""
        return self.caught_up().memory

    def lose(self) -> None:
        """Forget it: its mind is gone, or the session is over."""
        self._state = None

    def caught_up(self) -> MindState:
        """The state, having seen all that the log holds."""
        state, self._state = self._state, None
        if state is not None and self._is_far_behind(state.memory.last_window):
            state = None
        if state is None:
            state = self.rebuilt(self._log.last_window())
            for compaction in state.made:
                self._note(compaction)
        for compaction in self._mind.extend_all(state, list(self._log.windows(state.memory.last_window + 1))):
            self._note(compaction)
        self._state = state
        return state

    def rebuilt(self, last: int) -> MindState:
        """A state that has seen the windows up to `last`, from the compaction that was in effect then."""
        compaction = self._log.compaction_before(Compaction, (last + 1) * self._log.info.window_s)
        first = 0 if compaction is None else compaction.after_window + 1
        return self._mind.open(compaction, self._log.windows(first, last))

    def _is_far_behind(self, window: int) -> bool:
        """Whether the log has gone on so far that a rebuilt state is sooner there, or without what comes after `window`."""
        return self._log.last_window() > window + FAR_BEHIND or self._log.first_window() > window + 1

    def _note(self, compaction: Compaction) -> None:
        if self._log.writes:
            self._log.append(compaction)
