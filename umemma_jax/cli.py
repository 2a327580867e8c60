"""The command line of main.py and of `umemma train` and the like: flags to a run, a user's mistake to one line."""

import importlib
import os
import re
import shlex
import shutil
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from absl import flags
from ml_collections import ConfigDict, config_flags

from umemma_jax import command, start
from umemma_jax.addresses import redacted
from umemma_jax.data.remote import is_url
from umemma_jax.devices.memory import keep_freed_memory
from umemma_jax.errors import UserError

USAGE = (
    "{program} --config=RECIPE[:ARGUMENT] [--config.FIELD=VALUE ...] [--workdir=DIR] [--mode=MODE] [--seeds=N] "
    "[--methods=A,B] [--trials=N] [--data=DIR] [--split=NAME] [--format=FORMAT] "
    "[--coordinator=HOST:PORT --processes=N --process=I], or {program} --mode=report --logits=FILE.npz [--workdir=DIR]"
)
MODES = {
    "train": "also resumes",
    "eval": "report again from checkpoints",
    "predict": "classes of examples, with or without labels, into WORKDIR/predictions",
    "compare": "several methods, several seeds",
    "folds": "every fold of a cross-validation, of which config.data.dir is one",
    "export": "the model as --format says, into WORKDIR/export",
    "report": "the robustness report of any model, from its logits",
}


@dataclass(frozen=True)
class Command:
    """A parsed command line.

    Attributes:
      config: the recipe, with the fields that the command line overrides; None in mode `report`.
      workdir: folder of checkpoints, metrics and report.
      mode: of MODES.
      seeds: runs of each method in mode `compare`.
      data: dataset of mode `predict`; None for the run's own.
      split: of it; None for the test split.
      coordinator: where several processes meet; empty for one alone. See `distributed.join`.
      processes: how many they are.
      process: the number of this one.
      logits: file that mode `report` is about.
      format: of mode `export`, `pytorch`, `stablehlo` or `onnx`.
      methods: of mode `compare`, see `compare.compare`.
      trials: of the hyper-parameters of each of them, likewise.
    """

    config: ConfigDict | None
    workdir: Path
    mode: str
    seeds: int
    data: str | None = None
    split: str | None = None
    coordinator: str = ""
    processes: int | None = None
    process: int | None = None
    logits: Path | None = None
    format: str = "pytorch"
    methods: tuple[str, ...] = ()
    trials: int = 1


def main(argv: Sequence[str], mode: str = "train") -> NoReturn:
    """Does what the command line says, as `parse` reads it, and ends the process."""
    keep_freed_memory()
    command.run(lambda: _start(argv, mode))


def run(argv: Sequence[str]) -> int:
    """Does what the command line says; returns the exit status."""
    return command.status(lambda: _start(argv))


def _start(argv: Sequence[str], mode: str = "train") -> int:
    start.keep_compiled()
    parsed = parse(argv, mode)
    return 0 if parsed is None else _join_and_run(parsed, argv)


def parse(argv: Sequence[str], default_mode: str = "train") -> Command | None:
    """The command that a command line gives; None where it only asked for help, which is then printed.

    Args:
      argv: how the program was started, for people (`python main.py`, `umemma eval`), and its arguments.
      default_mode: of MODES, where no --mode is among them.

    Raises:
      UserError: what is wrong with a flag, or in the config file.
    """
    values = flags.FlagValues()
    values.set_gnu_getopt()  # flags may come in any order
    recipe = flags.DEFINE_string(
        "config", None, "Recipe: NAME[:ARGUMENT] or FILE.py[:ARGUMENT]. Default: the workdir's.", flag_values=values
    )
    workdir = flags.DEFINE_string(
        "workdir",
        None,
        "Folder of checkpoints, metrics and report. Default: runs/<name>[_<argument>].",
        flag_values=values,
    )
    mode = flags.DEFINE_enum(
        "mode",
        default_mode,
        list(MODES),
        " ".join(f"{name}: {about}." for name, about in MODES.items()),
        flag_values=values,
    )
    seeds = flags.DEFINE_integer(
        "seeds", 5, "Runs of each method in --mode=compare.", lower_bound=1, flag_values=values
    )
    methods = flags.DEFINE_list(
        "methods",
        [],
        "In --mode=compare: names, modules of your own (with a dot), or all. Default: switches of the recipe.",
        flag_values=values,
    )
    trials = flags.DEFINE_integer(
        "trials",
        1,
        "In --mode=compare: settings tried of each method that has such, chosen on validation. Default: 1, its own.",
        lower_bound=1,
        flag_values=values,
    )
    data = flags.DEFINE_string(
        "data", None, "Prepared dataset in --mode=predict. Default: the run's own.", flag_values=values
    )
    split = flags.DEFINE_string(
        "split", None, "Split in --mode=predict. Default: config.data.test_split.", flag_values=values
    )
    logits = flags.DEFINE_string(
        "logits", None, "Logits of any model in --mode=report, see docs/logits.md.", flag_values=values
    )
    format = flags.DEFINE_enum(
        "format",
        None,
        ["pytorch", "stablehlo", "onnx"],
        "In --mode=export. pytorch, the default: encoders that started from PyTorch checkpoints, back to those names. "
        "stablehlo: all of a finished run's model in one file, which JAX and NumPy alone run; onnx: one for ONNX "
        "Runtime, by the extra onnx. See docs/export.md.",
        flag_values=values,
    )
    coordinator = flags.DEFINE_string(
        "coordinator",
        os.environ.get("JAX_COORDINATOR_ADDRESS", ""),
        "For several processes: HOST:PORT of process 0, reachable by all, or auto: as SLURM, Open MPI, Kubernetes or "
        "the TPU pod says.",
        flag_values=values,
    )
    processes = flags.DEFINE_integer("processes", None, "How many, with --coordinator.", 1, flag_values=values)
    process = flags.DEFINE_integer("process", None, "The number of this one, from 0.", 0, flag_values=values)
    help_wanted = flags.DEFINE_bool("help", False, "Show this.", short_name="h", flag_values=values)
    try:
        rest = values(argv, known_only=True)
    except flags.Error as error:
        raise UserError(str(error).removeprefix("flag ")) from error
    if help_wanted.value:
        os.environ["COLUMNS"] = str(max(shutil.get_terminal_size().columns, 40))  # absl fails on less, and on no number
        print(f"usage: {_usage(argv)}\n{values.module_help(__name__)}")
        return None
    for flag, its_mode in ((data, "predict"), (split, "predict"), (logits, "report"), (format, "export")):
        if flag.value is not None and mode.value != its_mode:
            raise UserError(f"--{flag.name}={flag.value}: is for --mode={its_mode}, this is --mode={mode.value}")
    if mode.value == "report":
        return _report_command(logits.value, workdir.value, recipe.value, [argv[0], *rest[1:]])
    if recipe.value is None and workdir.value is None:
        raise UserError("--config is missing: name a recipe, e.g. --config=quickstart, or the --workdir of a run")
    folder = _folder(workdir.value or _default_workdir(recipe.value))

    with command.loading():  # after the flags, so that a typo in them does not wait for JAX
        from umemma_jax import config as config_lib
        from umemma_jax.training import workdir as run_folder

    config = run_folder.read_config(folder) if recipe.value is None else config_lib.load(recipe.value)
    _override(config, rest)
    config_lib.check(config)
    return Command(
        config,
        folder,
        mode.value,
        seeds.value,
        data.value,
        split.value,
        coordinator.value,
        _number_of(processes, "JAX_NUM_PROCESSES", coordinator),
        _number_of(process, "JAX_PROCESS_ID", coordinator),
        format=format.value or "pytorch",
        methods=tuple(methods.value),
        trials=trials.value,
    )


def _report_command(logits: str | None, workdir: str | None, recipe: str | None, rest: Sequence[str]) -> Command:
    """What the flags of mode `report` give, `rest` being the arguments that no flag has taken."""
    if logits is None:
        raise UserError("--logits is missing: name a file of logits, --logits=FILE.npz, see docs/logits.md")
    if recipe is not None:
        raise UserError(f"--config={recipe}: --mode=report takes no recipe, it is about --logits={logits} alone")
    if len(rest) > 1:
        raise UserError(f"unknown argument '{rest[1]}': usage: {_usage(rest)}")
    file = Path(logits)
    return Command(None, _folder(workdir or f"runs/{file.stem}"), "report", seeds=1, logits=file)


def _default_workdir(recipe: str) -> str:
    file, _, argument = recipe.partition(":")
    return f"runs/{'_'.join(filter(None, (Path(file).stem, argument)))}"


def _folder(name: str) -> Path:
    if "://" in name:
        raise UserError(f"--workdir={name}: is an address, name a folder (one that is mounted will do)")
    return Path(name)


def _number_of(flag: flags.FlagHolder, variable: str, coordinator: flags.FlagHolder) -> int | None:
    """The flag's value, or else that of the variable, which counts where there is a coordinator."""
    if flag.value is not None and not coordinator.value:
        raise UserError(f"--{flag.name}={flag.value}: say where the processes meet, with --coordinator=HOST:PORT")
    text = os.environ.get(variable, "") if coordinator.value and flag.value is None else ""
    if text and not (text.isascii() and text.isdecimal()):
        raise UserError(f"{variable}={text}: is no whole number: mend the variable, or give --{flag.name}")
    return int(text) if text else flag.value


def _override(config: ConfigDict, argv: Sequence[str]) -> None:
    """Sets the fields that `--config.<field>=<value>` names; there must be nothing else in `argv`."""
    from umemma_jax import config as config_lib

    for argument in argv[1:]:
        if found := re.match(r"--?config\.([^=[]+)=(.*)", argument, re.DOTALL):
            config_lib.add_open_field(config, found[1], found[2])
        if found := re.match(r"--?(?:no)?config\.([^=[]+)", argument):
            config_lib.get(config, found[1])  # raises where there is no such field
    values = flags.FlagValues()
    try:
        config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=list(argv))
        rest = values(argv)
    except flags.UnrecognizedFlagError as error:
        raise UserError(f"unknown flag --{error.flagname}: usage: {_usage(argv)}") from error
    except flags.IllegalFlagValueError as error:
        text = str(error).removeprefix("flag ")
        kind = type(config_lib.get(config, text.removeprefix("--config.").partition("=")[0])).__name__
        raise UserError(f"{text}; the field is of type {kind}") from error
    except (flags.Error, AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"--config.<field>: {error}") from error
    if len(rest) > 1:
        raise UserError(f"unknown argument '{rest[1]}': usage: {_usage(argv)}")


def _join_and_run(parsed: Command, argv: Sequence[str]) -> int:
    """Runs the command, as one of several processes where it says so."""
    if not parsed.coordinator:
        return _run(parsed, argv)
    with command.loading():
        from umemma_jax.devices import distributed

    distributed.join(parsed.coordinator, parsed.processes, parsed.process)
    with distributed.losses_told():
        status = _run(parsed, argv)
        distributed.leave()
        return status


def _run(parsed: Command, argv: Sequence[str]) -> int:
    if command.cache_folder() is None:  # nothing but the workdir can be written, and matplotlib wants a place
        os.environ.setdefault("MPLCONFIGDIR", str(parsed.workdir / ".matplotlib"))
    if parsed.mode == "report":
        return _report(parsed, argv)
    if parsed.format != "pytorch":
        return _export_model(parsed.workdir / "export" / f"model.{parsed.format}", parsed.workdir)
    with command.loading():
        from umemma_jax import compare, cross_validation, experiment, inputs, predict, runs
        from umemma_jax.data.dataset import open_dataset
        from umemma_jax.devices import distributed
        from umemma_jax.evaluation import pattern_calibration
        from umemma_jax.reporting import markdown
        from umemma_jax.training import train
        from umemma_jax.training.workdir import write_into

    config, workdir = parsed.config, parsed.workdir
    distributed.first_then_others(lambda: _prepare(config.data))
    tell = print if distributed.is_first() else _say_nothing
    try:
        if parsed.mode == "compare":
            comparison = compare.compare(config, workdir, parsed.seeds, parsed.methods, parsed.trials)
            tell(markdown.comparison_summary(comparison))
            tell(f"Comparison: {workdir / 'report'}")
            return 0
        if parsed.mode == "folds":
            found = cross_validation.cross_validate(config, workdir, _shown(argv))
            tell(markdown.cross_validation_summary(found))
            tell(f"Cross-validation: {workdir / 'report'}")
            return 0
        built = experiment.build(config)
        for line in built.cut_texts() if parsed.mode == "train" and distributed.is_first() else ():
            tell(line)
        trained = train.train(built, workdir) if parsed.mode == "train" else train.load(built, workdir)
        if parsed.mode == "export":
            for folder in inputs.export(built.inputs, trained.fusion, workdir / "export"):
                tell(f"Exported: {folder}")
            return 0
        if parsed.mode == "predict":
            dataset = open_dataset(parsed.data) if parsed.data else built.dataset
            split = parsed.split or config.data.test_split
            calibration = pattern_calibration.read(workdir, built.modalities)
            predictions = predict.predict(built, trained.fusion, dataset, split, calibration)
            for note in predictions.notes:
                tell(note)
            name = predict.file_name(dataset, split, built.dataset)
            write_into(workdir, lambda: predict.write(predictions, workdir / "predictions", name))
            tell(f"Predictions: {workdir / 'predictions' / name}.csv")
            return 0
        results = runs.conclude(built, trained, workdir, _shown(argv))
        tell(markdown.summary(results))
        tell(f"Report: {workdir / 'report'}")
        return 0
    except train.Preempted as stop:
        tell(f"{stop}; the same command continues")
        return 128 + stop.signal if stop.signal == signal.SIGINT else 0


def _export_model(path: Path, workdir: Path) -> int:
    """Writes the model of a finished run into one file; of several processes the first does."""
    with command.loading():
        from umemma_jax import predictor
        from umemma_jax.devices import distributed

    def export() -> None:
        predictor.load(workdir).export(path)
        print(f"Exported: {path}")

    distributed.by_first(export)
    return 0


def _report(parsed: Command, argv: Sequence[str]) -> int:
    """Reports on logits, without JAX."""
    from umemma_jax.evaluation import logits_file, robustness
    from umemma_jax.reporting import markdown, report

    found = logits_file.read(parsed.logits)
    options = robustness.Options(prior=found.prior, prior_source=found.prior_source)
    evaluated = robustness.report(found.test, found.validation, options)
    method = "prior_corrected_ensemble" if found.is_ensemble else "given_logits"
    results = {"dataset": parsed.logits.stem, "split": "test", "method": method, **evaluated.results}
    results["command"] = _shown(argv)
    report.write_evaluation(evaluated._replace(results=results), parsed.workdir)
    print(markdown.summary(results))
    print(f"Report: {parsed.workdir / 'report'}")
    return 0


def _shown(argv: Sequence[str]) -> str:
    """The command, without what is secret."""
    return redacted(" ".join([argv[0], *map(shlex.quote, argv[1:])]))


def _usage(argv: Sequence[str]) -> str:
    return USAGE.format(program=argv[0])


def _say_nothing(text: str) -> None:
    """What all processes but the first do."""


def _prepare(data: ConfigDict) -> None:
    """Makes the dataset where it is absent and the recipe says so, if its prep module needs nothing but the folder."""
    if not data.prepare or is_url(data.dir) or os.path.exists(data.dir):
        return
    prep, folder = data.prep, data.dir
    module, *arguments = prep.split() or [""]
    try:
        prepare = importlib.import_module(module).prepare
    except (ImportError, AttributeError, ValueError) as error:
        raise UserError(f"config.data.prep: '{module}' is no module with a function prepare ({error})") from error
    if arguments:
        raise UserError(
            f"config.data.prepare: `{prep}` needs more than the folder, run `python -m {prep} --out={folder}`"
        )
    prepare(folder)
