"""Which media type a caller prefers."""

from operator import itemgetter


def preferred_media_type(accept: str) -> str:
    """Return the media range of an `Accept` header with the highest quality, the first of equals; "" where none has any.

    Source: RFC 9110, section 12.5.1.
    """
    ranges = [item.partition(";") for item in accept.lower().split(",")]
    quality, name = max(((_quality(parameters), name.strip()) for name, _, parameters in ranges), key=itemgetter(0))
    return name if quality > 0 else ""


def _quality(parameters: str) -> float:
    for parameter in parameters.split(";"):
        name, _, value = parameter.strip().partition("=")
        if name == "q":
            try:
                return float(value)
            except ValueError:
                return 0
    return 1
