"""Serves a trained model over HTTP, with a page to try it on: `umemma serve`, or `python -m umemma_jax.serving`."""

import contextlib
import itertools
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from umemma_jax import command, extras
from umemma_jax.errors import UserError
from umemma_jax.serving.limits import Batching, Limits

command.begin(__package__)

LOCAL = ("127.0.0.1", "localhost", "::1")
DEFAULTS, BATCHING = Limits(), Batching()
BOUNDS = {  # name -> default, metavar and help
    "batch": (BATCHING.rows, "ROWS", "most that are computed together; 1: each request by itself"),
    "wait": (BATCHING.milliseconds, "MS", "that a request waits for others"),
    "warm-up": (BATCHING.rows, "ROWS", "programs for batches up to these are made at the start; 1: of single rows"),
    "queue": (DEFAULTS.queue, "N", "requests at work or waiting; one more is turned away"),
    "max-body": (DEFAULTS.megabytes, "MB", "of a request"),
    "max-pixels": (DEFAULTS.megapixels, "MILLIONS", "of a picture or a frame"),
    "max-seconds": (DEFAULTS.sound_seconds, "S", "of sound or video"),
    "timeout": (DEFAULTS.seconds, "S", "from a request to its answer"),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line until the process is asked to end; what is queued then is answered first.

    Raises:
      UserError: a mistake in it, the extra is not installed, there is no such model, or the port is taken.
    """
    parser = command.Parser("umemma serve", description=__doc__, allow_abbrev=False)
    parser.add_argument("--model", type=Path, required=True, metavar="DIR", help="workdir of a run, or a saved model")
    parser.add_argument(
        "--host", default=LOCAL[0], help="address to listen at (default: 127.0.0.1, this machine alone)"
    )
    parser.add_argument("--port", type=int, default=8000, help="(default: 8000)")
    parser.add_argument("--allow-host", action="append", default=[], metavar="NAME", help="another name of this server")
    for name, (default, metavar, help) in BOUNDS.items():
        help = f"{help} (default: {default:g})"
        parser.add_argument(f"--{name}", type=type(default), default=default, metavar=metavar, help=help)
    options = parser.parse_args(argv)
    for name in BOUNDS:
        value = getattr(options, name.replace("-", "_"))
        if not 0 < value < math.inf:
            raise UserError(f"--{name}={value}: is not above 0")
    with command.loading(), extras.needed("serve", "umemma serve"):
        import uvicorn

        from umemma_jax import predictor
        from umemma_jax.data_prep.build.console import cores
        from umemma_jax.serving.app import make_app
        from umemma_jax.serving.connections import Connection

    limits = Limits(
        megabytes=options.max_body,
        megapixels=options.max_pixels,
        sound_seconds=options.max_seconds,
        queue=options.queue,
        seconds=options.timeout,
    )
    model = predictor.load(options.model)
    print(f"{model}: making the programs of every missing pattern", flush=True)
    for rows in itertools.takewhile(lambda rows: rows < 2 * options.warm_up, (1 << n for n in itertools.count())):
        model.compile(rows)
    hosts = (*LOCAL, options.host, *options.allow_host) if options.host in LOCAL or options.allow_host else ()
    app = make_app(model, limits, Batching(options.batch, options.wait), hosts, cores())
    config = uvicorn.Config(
        app,
        options.host,
        options.port,
        http=Connection,
        ws="none",
        log_level="warning",
        limit_concurrency=4 * options.queue,
        timeout_keep_alive=10,
        timeout_graceful_shutdown=int(options.timeout),
        server_header=False,
    )
    print(f"Open http://{options.host}:{options.port} - Ctrl-C ends the server", flush=True)
    with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises what has ended it once more
        uvicorn.Server(config).run()
    print("the server has ended; what was asked before is answered")


if __name__ == "__main__":
    command.run(lambda: main(sys.argv[1:]))
