"""Work on megabytes, beside the event loop: a second of it would be a second for every other request."""

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

# Below it a thread costs more than it saves: what is done to so much takes some milliseconds, however it is written.
LARGE_BYTES = 1 << 20

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


async def beside(
    size_bytes: int, work: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
) -> Result:
    """Return what `work`, on so many bytes, returns: in a thread where they are many.

    Only one thread runs Python at a time, so that `work` must be made of steps of a few milliseconds.
    """
    if size_bytes < LARGE_BYTES:
        return work(*args, **kwargs)
    return await asyncio.to_thread(work, *args, **kwargs)
