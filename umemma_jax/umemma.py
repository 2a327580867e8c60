"""The console script `umemma`: what main.py and the modules of `data_prep`, `weights` and `serving` do, by one name."""

import importlib
import pkgutil
import sys
from collections.abc import Sequence
from typing import NoReturn

from umemma_jax import __version__, command
from umemma_jax.errors import UserError, did_you_mean

PREP = "prep"  # each of its own commands is a module of `data_prep`
MODULES = {"convert": "umemma_jax.weights.convert", "serve": "umemma_jax.serving.__main__"}
ABOUT = {
    "quickstart": "a first model and its report, without any download",
    PREP: "a dataset from raw files, or from a table of your own",
    "convert": "a PyTorch checkpoint to the weights of an encoder here, and back",
    "serve": "a trained model over HTTP, with a page to try it on (extra `serve`)",
}


def main() -> NoReturn:
    """Does what the process's command line says, and ends the process."""
    command.begin()
    name, *arguments = sys.argv[1:] or ["--help"]
    if name == PREP:
        command.run(lambda: _prepare(arguments))
    if name in MODULES:
        command.run(lambda: _run_module(MODULES[name], f"umemma {name}", arguments))
    if name == "--version":
        command.run(lambda: print(f"umemma_jax {__version__}"))

    from umemma_jax import cli

    if name == "quickstart":
        cli.main(["umemma train", "--config=quickstart", *arguments])
    if name in cli.MODES:
        cli.main([f"umemma {name}", *arguments], name)
    about = cli.MODES | ABOUT
    if name in ("-h", "--help"):
        command.run(lambda: _show("umemma COMMAND", about))
    command.run(lambda: _refuse("umemma", name, list(about)))


def _prepare(arguments: Sequence[str]) -> None:
    from umemma_jax import data_prep

    known = [module.name for module in pkgutil.iter_modules(data_prep.__path__) if not module.ispkg]
    name, *rest = arguments or ["--help"]
    if name in ("-h", "--help"):
        _show("umemma prep DATASET", dict.fromkeys(known, ""))
    elif name in known:
        _run_module(f"{data_prep.__name__}.{name}", f"umemma prep {name}", rest)
    else:
        _refuse("umemma prep", name, known)


def _run_module(module: str, program: str, arguments: Sequence[str]) -> None:
    """Calls the `main` of a module, whose parser reads `sys.argv`."""
    sys.argv = [program, *arguments]
    with command.loading():
        run = importlib.import_module(module).main
    run()


def _show(usage: str, about: dict[str, str]) -> None:
    print(f"usage: {usage} ...\n")
    for name, text in about.items():
        print(f"  {name:<15} {text}".rstrip())
    print(f"\n`{usage} --help` says more.")


def _refuse(program: str, name: str, known: Sequence[str]) -> NoReturn:
    raise UserError(f"{program} {name}: {did_you_mean(name, known)}There are {', '.join(known)}")
