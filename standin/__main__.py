"""`python -m standin`: serve the stand-in, and print its base URL as the first and only line."""

import argparse
import asyncio
import contextlib
import sys

from standin.server import StandIn


async def serve(port: int, latency_seconds: float, until_eof: bool) -> None:
    """Serve until standard input ends, or for ever."""
    stand_in = StandIn(latency_seconds=latency_seconds, varies=True)
    print(await stand_in.start(port), flush=True)
    if until_eof:
        await asyncio.to_thread(sys.stdin.read)
    else:
        await asyncio.Event().wait()
    await stand_in.stop()


def main() -> None:
    """Read the arguments and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--latency-seconds", type=float, default=0.5, help="how long a picture takes")
    parser.add_argument("--until-eof", action="store_true", help="end when standard input ends")
    arguments = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(arguments.port, arguments.latency_seconds, arguments.until_eof))


if __name__ == "__main__":
    main()
