"""Media in, windows out."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from anymodal.config import BundleSpec
from anymodal.errors import QuestionError, SidecarError
from anymodal.media import read_windows
from anymodal.stages.items import Clip
from anymodal.types import Window

log = logging.getLogger("anymodal")


class Source:
    """Decodes clips and cuts them into windows. Holds nothing between clips."""

    def __init__(self, spec: BundleSpec) -> None:
        self.spec = spec

    def push(self, clip: Clip, warnings: list[str] | None = None) -> Iterator[Window]:
        """Yield the clip's windows, numbered from 0 without holes, as they are decoded.

        Damage that did not stop the reading goes to `warnings`, or to the log. Raises MediaError, SidecarError, and
        QuestionError for a time before 0 or past the end.
        """
        if clip.media is None:
            if clip.at_s is not None:
                raise QuestionError(f"cannot answer as of {clip.at_s:g} s: there is no media",
                                    fix="give a clip, or leave the time out")
            if clip.sidecars:
                raise SidecarError(f"there is no media that {', '.join(clip.sidecars.values())} could be beside",
                                   fix="give a clip, or leave the sidecar out")
            return
        options = {} if clip.folder_rate_hz is None else {"folder_rate_hz": clip.folder_rate_hz}
        with read_windows(clip.media, self.spec, clip.at_s, sidecars=clip.sidecars, **options) as reader:
            yield from reader
            for warning in reader.warnings:
                if warnings is None:
                    log.warning(warning)
                else:
                    warnings.append(warning)
