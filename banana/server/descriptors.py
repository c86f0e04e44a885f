"""How many file descriptors there are, and so how many requests can be served at once.

A process without a free descriptor answers nobody, `/health` neither. Many systems give 1,024 unless more is asked for.
"""

import resource

# Above the limit of requests there is always room for so many connections: for /health, and to refuse the others.
SPARE_CONNECTIONS = 32
# The log, the store, the metrics, the event loop, what libraries open.
_OTHER_FILES = 64


def raise_limit(max_requests: int, max_connections: int) -> None:
    """Raise this process's limit to what it needs, as far as the system lets it; its children inherit that.

    `max_requests` are served at once, with `max_connections` to Google.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = max_requests + max_connections + SPARE_CONNECTIONS + _OTHER_FILES
    if hard != resource.RLIM_INFINITY:
        needed = min(needed, hard)
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def requests_within_limit(max_requests: int, max_connections: int) -> int:
    """Return how many requests can be served at once: `max_requests`, or fewer where descriptors are short."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return max_requests
    return max(1, min(max_requests, soft - max_connections - SPARE_CONNECTIONS - _OTHER_FILES))
