"""Whether OpenTelemetry collects anything here; where it does not, nothing is done for it."""

import sys


def is_collecting() -> bool:
    """Return whether an SDK of OpenTelemetry has been set up; that it was imported says nothing, as redis imports it."""
    if "opentelemetry.sdk" not in sys.modules:
        return False
    from opentelemetry import metrics, trace

    providers = trace.get_tracer_provider(), metrics.get_meter_provider()
    return any(type(provider).__module__.startswith("opentelemetry.sdk") for provider in providers)
