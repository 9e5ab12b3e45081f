"""OpenTelemetry spans of each answer and its stages, where `--trace` asks for them. Off, nothing of it is imported.

Where spans go is set by OpenTelemetry's own variables: OTEL_TRACES_EXPORTER names an exporter that is installed ("otlp" is
the default, "console" prints), OTEL_EXPORTER_OTLP_ENDPOINT an address.
"""

from __future__ import annotations

import os
from importlib.metadata import entry_points
from typing import Any

from anymodal.errors import MissingExtraError, need

GROUP = "opentelemetry_traces_exporter"
DEFAULT = "otlp"


def make_provider(exporter: str | None = None) -> Any:
    """A TracerProvider of our own, with the exporter of this name. "none": only what is added by hand.

    Raises MissingExtraError for an exporter that is not installed.
    """
    sdk = need("opentelemetry.sdk.trace", extra="trace")
    resources = need("opentelemetry.sdk.resources", extra="trace")
    export = need("opentelemetry.sdk.trace.export", extra="trace")
    provider = sdk.TracerProvider(resource=resources.Resource.create({"service.name": "anymodal"}))
    name = exporter or os.environ.get("OTEL_TRACES_EXPORTER", DEFAULT)
    if name != "none":
        found = [*entry_points(group=GROUP, name=name), *entry_points(group=GROUP, name=f"{name}_proto_http")]
        if not found:
            raise MissingExtraError(f"no OpenTelemetry exporter {name!r} is installed",
                                    fix="pip install opentelemetry-exporter-otlp, or set OTEL_TRACES_EXPORTER=console")
        provider.add_span_processor(export.BatchSpanProcessor(found[0].load()()))
    return provider
