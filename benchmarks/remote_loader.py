"""The loader from a host: clips per second over the round trip, with an empty and a full cache.

    python -m benchmarks.remote_loader [--clips 512] [--workers 0 2] [--delays-ms 0 20 80]
        [--image-size 224] [--batch 16]

The clips of benchmarks.loader are served by a process of this machine, which waits so long before
every answer. Every row is an epoch of a process of its own, after a first batch. "One by one" asks
for a clip when the one before has come; "at once" is what the pipeline does.
"""

import argparse
import asyncio
import multiprocessing
import os
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path

from aiohttp import web
from aiohttp.typedefs import Handler

from benchmarks.attention import machine
from benchmarks.loader import PLAIN, SIZE, read_epoch, write_clips
from pipeline.store import remote
from pipeline.store.clip_cache import FOLDER

# A forked process would begin with the memory and the threads of this one.
CONTEXT = multiprocessing.get_context("spawn")


def serve(folder: str, delay_ms: float, port: Connection) -> None:
    """Serve a folder until the process is ended, and say at which port."""

    @web.middleware
    async def wait(request: web.Request, handler: Handler) -> web.StreamResponse:
        await asyncio.sleep(delay_ms / 1000)
        return await handler(request)

    async def run() -> None:
        app = web.Application(middlewares=[wait])
        app.router.add_static("/", folder)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port.send(runner.addresses[0][1])
        await asyncio.Event().wait()

    asyncio.run(run())


def rate_of(place: str, num_workers: int, image_size: int, batch_size: int, at_once: int) -> float:
    """Clips per second of an epoch."""
    remote.AT_ONCE = at_once
    return read_epoch(place, num_workers, image_size, batch_size, PLAIN).rate


def measure(place: str, num_workers: int, args: argparse.Namespace, at_once: int = 16) -> float:
    """As `rate_of`, in a new process."""
    with ProcessPoolExecutor(1, mp_context=CONTEXT) as process:
        arguments = (place, num_workers, args.image_size, args.batch, at_once)
        return process.submit(rate_of, *arguments).result()


def main(args: argparse.Namespace) -> None:
    print(
        f"{machine()}; {args.clips} clips, frames of {args.image_size} px, batches of {args.batch}"
    )
    print(
        "\n| round trip (ms) | workers | one by one (clips/s) | at once (clips/s) "
        "| again, from the cache (clips/s) |\n|---:|---:|---:|---:|---:|"
    )
    with tempfile.TemporaryDirectory() as folder:
        write_clips(Path(folder), args.clips)
        for num_workers in args.workers:
            rate = measure(folder, num_workers, args)
            print(f"| the disk | {num_workers} | - | {rate:.1f} | - |", flush=True)
        for delay_ms in args.delays_ms:
            here, there = CONTEXT.Pipe()
            server = CONTEXT.Process(target=serve, args=(folder, delay_ms, there), daemon=True)
            server.start()
            address = f"http://127.0.0.1:{here.recv()}"
            for num_workers in args.workers:
                rates = []
                for at_once in (1, 16):
                    with tempfile.TemporaryDirectory() as cache:
                        os.environ[FOLDER] = cache
                        rates.append(measure(address, num_workers, args, at_once))
                        if at_once > 1:
                            rates.append(measure(address, num_workers, args))
                cells = " | ".join(f"{rate:.1f}" for rate in rates)
                print(f"| {delay_ms:g} | {num_workers} | {cells} |", flush=True)
            server.kill()
            server.join()
            time.sleep(0.1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=512, help="of the data set (%(default)s)")
    parser.add_argument(
        "--workers", type=int, nargs="+", default=[0, 2], help="processes that read (%(default)s)"
    )
    parser.add_argument(
        "--delays-ms",
        type=float,
        nargs="+",
        default=[0, 20, 80],
        help="of the host, in milliseconds (%(default)s)",
    )
    parser.add_argument("--image-size", type=int, default=SIZE, help="pixels (%(default)s)")
    parser.add_argument("--batch", type=int, default=16, help="clips at once (%(default)s)")
    main(parser.parse_args())
