"""`python -m standin`: serve the stand-in, and print its base URL as the first and only line."""

import argparse
import asyncio
import contextlib
import sys

from standin.server import StandIn


async def serve(stand_in: StandIn, port: int, *, until_eof: bool) -> None:
    """Serve until standard input ends, or for ever."""
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
    parser.add_argument("--varies", action="store_true", help="draw another picture when a prompt comes again")
    parser.add_argument("--until-eof", action="store_true", help="end when standard input ends")
    arguments = parser.parse_args()
    stand_in = StandIn(arguments.latency_seconds, varies=arguments.varies)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(serve(stand_in, arguments.port, until_eof=arguments.until_eof))


if __name__ == "__main__":
    main()
