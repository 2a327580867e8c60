"""Bad input: command lines, values of every field of a config, config files, and the environment.

Each must end in one line that names what is wrong. Most are tried in this process, up to where training would begin;
what only a process of its own can show (the environment, streams, what is imported) is tried in one.
"""

import contextlib
import importlib
import io
import os
import subprocess
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from benchmarks.faults.trial import REFUSED, SILENT, TRACEBACK
from umemma_jax import cli, command, experiment
from umemma_jax.config import default_config, tower_config
from umemma_jax.data import jpeg
from umemma_jax.data.dataset import DatasetWriter, Modality
from umemma_jax.data.tokenizer import TOKENIZER
from umemma_jax.data_prep.build.vocabulary import tokenizer_file
from umemma_jax.inputs import LOADING_FIELDS
from umemma_jax.model import encoder_module
from umemma_jax.preprocess import KINDS
from umemma_jax.weights import convert

COUNT = 400
SHARE_OF_PROCESSES = 0.05
Case = tuple[str, Callable[[], Any], str]  # kind, what to try, what the refusal has to name

RECIPE = """
from benchmarks.faults.inputs import recipe

def get_config():
    config = recipe({data!r})
{change}
    return config
"""

# By the type of a field, as Python writes them; none can be right for any field of that type.
NONSENSE = {
    bool: ["'abc'", "3", "None", "1.5", "(True,)"],
    int: ["'abc'", "1.5", "None", "-7", "float('nan')", "2**31", "10**30", "(1,)", "{'a': 1}", "True"],
    float: ["'abc'", "None", "float('nan')", "float('inf')", "-float('inf')", "10**40", "1e300", "(0.5,)", "{'a': 1}"],
    str: ["3", "None", "('a',)", "{'a': 'b'}", "1.5", "'no\\nsuch\\x1b[31m'"],
    tuple: ["3", "'abc'", "{'a': 1}", "None", "float('nan')"],
    ConfigDict: ["3", "'abc'", "None", "()"],
}
FREE_TEXT = ("data.dir", "data.prep")  # any text can be right, or is refused as an address
NOT_TRIED = ("axis_name",)

# Sizes that are of the right type, and more than any machine has room or time for.
HUGE = {
    "n_mels": "10**8",
    "n_fft": "2**30",
    "win_length": "10**9",
    "frames": "10**9",
    "channels": "10**9",
    "width": "12 * 10**7",
    "mlp_width": "10**9",
    "depth": "10**6",
    "layers": "10**6",
    "vocabulary": "10**9",
    "positions": "10**9",
    "gain": "1e30",
    "noise": "1e30",
    "rotation": "1e9",
    "scale": "1e30",
}

# Encoders of each modality, with what makes them fit.
ENCODERS = {
    "image": {"lenet": {"layers": 1}, "resnet": {}, "vit": {"patch": 4, "depth": 1}},
    "audio": {"spectrogram_cnn": {}, "ast": {"depth": 1}, "lenet": {"layers": 1}},
    "video": {"lenet": {"layers": 1}, "resnet": {}},
    "text": {"word_embeddings": {}, "bert": {"depth": 1}},
    "numbers": {"mlp": {}},
}

COMMAND_LINES = [
    ([], "--config"),
    (["--config"], "--config"),
    (["--config="], "--config"),
    (["--config=/"], "--config"),
    (["--config=~/no/such"], "--config"),
    (["--config=no\nsuch.py"], "--config"),
    (["--config=" + "x" * 5000], "--config"),
    (["--config={recipe}:argument"], "get_config"),
    (["--config={recipe}:"], "get_config"),
    (["--config={recipe}", "--mode="], "--mode"),
    (["--config={recipe}", "--mode=TRAINN"], "--mode"),
    (["--config={recipe}", "--seeds=0"], "--seeds"),
    (["--config={recipe}", "--seeds=many"], "--seeds"),
    (["--config={recipe}", "--seeds=1.5"], "--seeds"),
    (["--config={recipe}", "--data=x"], "--data"),
    (["--config={recipe}", "--split=x"], "--split"),
    (["--config={recipe}", "--processes=2"], "--processes"),
    (["--config={recipe}", "--process=-1"], "--process"),
    (["--config={recipe}", "--nonsense"], "--nonsense"),
    (["--config={recipe}", "-x"], "x"),
    (["--config={recipe}", "extra"], "extra"),
    (["--config={recipe}", "--", "extra"], "extra"),
    (["--config={recipe}", ""], ""),
    (["--config={recipe}", "--config."], "--config."),
    (["--config={recipe}", "--config.=3"], "config."),
    (["--config={recipe}", "--config.seed"], "seed"),
    (["--config={recipe}", "--config.seed="], "seed"),
    (["--config={recipe}", "--config.seed=é"], "seed"),
    (["--config={recipe}", "--config.seed=" + "9" * 5000], "seed"),
    (["--config={recipe}", "--config.seed.x=3"], "seed"),
    (["--config={recipe}", "--config.sed=3"], "sed"),
    (["--config={recipe}", "--config.data=3"], "data"),
    (["--config={recipe}", "--config.inputs=3"], "inputs"),
    (["--config={recipe}", "--config.inputs.image=3"], "image"),
    (["--config={recipe}", "--config.inputs.image.encoder=lenet"], "encoder"),
    (["--config={recipe}", "--config.modalities=image"], "modalities"),
    (["--config={recipe}", "--config.modalities=('image','image')"], "modalities"),
    (["--config={recipe}", "--config.modalities=("], "modalities"),
    (["--config={recipe}", "--config.modalities=" + "(" * 500 + ")" * 500], "modalities"),
    (["--config={recipe}", "--config.evaluation.rates=(2,)"], "rates"),
    (["--config={recipe}", "--config.missing.keep.image=1"], "keep"),
    (["--config={recipe}", "--config.inputs.image.encoder.width=3"], "width"),
    (["--config={recipe}", "--config.inputs.image.encoder.channels=" + "(" * 500], "channels"),
    (["--config={recipe}", "--config.inputs.image.encoder.channels[0]=3"], "channels"),
    (["--config={recipe}", "--config.inputs.image.preprocess.form=x"], "form"),
    (["--config={recipe}", "--config.inputs.image.preprocess.shift=nan"], "shift"),
    (["--config={recipe}", "--config.inputs.nothing.encoder.name=lenet"], "nothing"),
    (["--config={recipe}", "--noconfig.missing.augment=3"], "augment"),
    (["--config={recipe}", "--noconfig.seed"], "seed"),
    (["--config={recipe}", "--config.data.dir=/no/such"], "/no/such"),
    (["--config={recipe}", "--config.data.dir=/dev/null"], "/dev/null"),
    (["--config={recipe}", "--config.data.dir=nonsense://x"], "nonsense://x"),
    (["--config={recipe}", "--config.data.dir=" + "x" * 5000], "xxx"),
]

CHANGES = [
    ("config.nonsense = 1", "nonsense"),
    ("config.fusion.epochs = 'many'", "recipe.py, line"),
    ("config.data.dir = '\\0'", "data"),
    ("raise SystemExit", ""),
    ("raise SystemExit('good-bye')", ""),
    ("import sys; sys.exit(3)", ""),
    ("raise KeyError", "recipe.py, line"),
    ("raise RecursionError", "recipe.py, line"),
    ("raise BaseException('odd')", "odd"),
    ("return get_config()", "recipe.py"),
    ("1 / 0", "recipe.py, line"),
    ("return None", "get_config"),
    ("return {}", "get_config"),
    ("return ConfigDict()", "recipe.py, line"),
    ("import no_such_module", "recipe.py, line"),
    ("open('/no/such')", "recipe.py, line"),
    ("x = ", "line"),
    ("\tx = 1", "line"),
    ("config.inputs = {}", "inputs"),
    ("config.modalities = ()", "modalities"),
    ("config.modalities = ('image', None)", "modalities"),
    ("config.modalities = ('image', 'absent')", "absent"),
    ("config.modalities = tuple(f'm{i}' for i in range(40))", "modalities"),
    ("config.missing.keep = {'image': -1.0}", "keep"),
    ("config.missing.keep = {'image': float('nan')}", "keep"),
    ("config.missing.keep = {'image': 'much'}", "keep"),
    ("config.missing.keep = {'sound': 1.0}", "keep"),
    ("config.missing.keep = {'image': 0.0}", "keep"),
    ("config.missing.keep = {'image': (1, 2)}", "keep"),
    ("config.missing.eta = {'rate': 2.0, 'kind': 'mixed'}", "eta"),
    ("config.missing.eta.kind = 'smell'", "eta"),
    ("config.evaluation.rates = (0.1, 'x')", "rates"),
    ("config.evaluation.rates = ((0.1,),)", "rates"),
    ("config.evaluation.rates = tuple(i / 10**5 for i in range(10**5))", "rates"),
    ("config.evaluation.rates = (float('nan'),)", "rates"),
    ("config.inputs.image.buckets = (1, 2)", "buckets"),
    ("config.inputs.text.buckets = (64, 8)", "buckets"),
    ("config.inputs.text.buckets = ('a',)", "buckets"),
    ("config.inputs.text.length = 1", "length"),
    ("config.inputs.text.tokenizer = '/no/such'", "tokenizer"),
    ("config.inputs.image.tokenizer = '/no/such'", "tokenizer"),
    ("config.inputs.image.framing = 'oval'", "framing"),
    ("config.inputs.image.encoder.pretrained = '/no/such'", "/no/such"),
    ("config.inputs.image.encoder.name = '../lenet'", "encoder.name"),
    ("config.inputs.image.encoder.name = 'os'", "encoder"),
    ("config.inputs.image.encoder.name = 'os.path'", "encoder"),
    ("config.inputs.image.encoder.name = 'layers'", "encoder"),
    ("config.data.train_split = 'nonsense'", "train_split"),
    ("config.data.test_split = ''", "test_split"),
    ("config.data.validation_split = 'test '", "validation_split"),
    ("config.data.batch_size = 10**6", "batch_size"),
    ("config.evaluation.batch_size = 2**31 - 1", "batch_size"),
    ("config.evaluation.seeds = 2**31 - 1", "seeds"),
    ("config.inputs.audio.length = 2**31 - 1", "length"),
    ("config.inputs.text.length = 2**31 - 1", "length"),
    ("config.data.threads = 10**6", "threads"),
    ("config.fsdp = 10**6", "fsdp"),
    ("config.unimodal.accumulate = 10**6", "accumulate"),
    ("config.unimodal.epochs = config.fusion.epochs = 0", "epoch"),
    ("config.data = None", "config.data"),
    ("nested = {}\n    for _ in range(10**4): nested = {'a': nested}\n    config.missing.keep = nested", ""),
    ("config.inputs.image.encoder = {'name': 'lenet', 'channels': ((6,),)}", "channels"),
    ("config.inputs.image.encoder = {}", "encoder"),
    ("config.inputs.image.encoder = {'name': 'lenet', 3: 4}", ""),
    ("config.inputs.image.preprocess = {'mean': (1.0,) * 7}", "mean"),
    ("config.inputs.image.preprocess = {'std': (-1.0,)}", "std"),
    ("config.inputs.image.preprocess = {'mean': ('a',)}", "mean"),
    ("config.inputs.image.preprocess = {'crop': 9}", "crop"),
    ("config.inputs.audio.preprocess = {'form': 'fbank', 'win_length': 10**6}", "win_length"),
    ("config.inputs.audio.preprocess = {'form': ['stft']}", "form"),
    ("config.inputs.audio.preprocess = {'form': None}", "form"),
    ("config.inputs.audio.preprocess = {'f_min': 5000.0}", "f_max"),
]

ENVIRONMENT = [
    ({"JAX_NUM_PROCESSES": "abc", "JAX_COORDINATOR_ADDRESS": "127.0.0.1:1"}, "JAX_NUM_PROCESSES"),
    ({"JAX_PROCESS_ID": "-1", "JAX_COORDINATOR_ADDRESS": "127.0.0.1:1"}, "JAX_PROCESS_ID"),
    ({"JAX_COORDINATOR_ADDRESS": "nonsense"}, "nonsense"),
    ({"JAX_COORDINATOR_ADDRESS": "host:99999"}, "99999"),
    ({"JAX_COORDINATOR_ADDRESS": "auto", "SLURM_JOB_ID": "abc"}, "auto"),
    ({"JAX_COORDINATOR_ADDRESS": "auto", "OMPI_MCA_orte_hnp_uri": "abc"}, "auto"),
    ({"JAX_PLATFORMS": "abacus"}, "abacus"),
    ({"JAX_NUM_CPU_DEVICES": "abc"}, "JAX_NUM_CPU_DEVICES"),
    ({"JAX_ENABLE_X64": "perhaps"}, "JAX_ENABLE_X64"),
    ({"JAX_DEFAULT_MATMUL_PRECISION": "huge"}, "JAX_DEFAULT_MATMUL_PRECISION"),
    ({"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "soon"}, "JAX_PERSISTENT_CACHE"),
    ({"UMEMMA_MEMORY_GB": "plenty"}, "UMEMMA_MEMORY_GB"),
    ({"UMEMMA_MEMORY_GB": "1e-9"}, "UMEMMA_MEMORY_GB"),
]

# Command lines of the preparations, besides what all of them refuse.
PREPARATIONS = ("quickstart", "av_mnist", "food101", "mm_imdb", "ave", "kinetics_sound", "table", "rendered_clips")
REQUIRED = {
    "food101": ["--raw={none}"],
    "mm_imdb": ["--raw={none}"],
    "ave": ["--raw={none}"],
    "kinetics_sound": ["--raw={none}"],
    "table": ["--table={none}", "--text=title"],
    "rendered_clips": ["--mnist={none}", "--fsdd={none}"],
    "av_mnist": ["--mnist={none}", "--fsdd={none}"],
}
ARGUMENTS = ([], ["--out"], ["--seed=-1"], ["--seed=1e3"], ["--seed=²"], ["--nonsense"], ["extra"])
WRONG_OUT = ("", "x" * 5000, "/dev/null/x", "/proc/x", "no\nsuch\x1b[31m/" + "x" * 300)
CONVERSIONS = [
    [],
    ["--family=vit"],
    ["--family=vit", "--from={none}", "--to={none}/x"],
    ["--family=../vit", "--from={none}", "--to={none}/x"],
    ["--family=os.path", "--from=/dev/null", "--to={none}/x"],
    ["--family=vit", "--from=", "--to={none}/x"],
    ["--family=vit", "--from=/dev/null", "--to={none}/x"],
    ["--family=vit", "--from=/", "--to={none}/x"],
    ["--export", "--from={none}", "--to={none}/x"],
    ["--family=vit", "--from={none}", "--to={none}/x", "--field"],
    ["--nonsense"],
]


def run(rng: np.random.Generator, count: int, folder: Path) -> Iterator[tuple[str, str, str]]:
    """Tries `count` of the inputs: (kind, outcome, what was said) of each."""
    data = write_dataset(folder / "data")
    in_processes = max(1, round(count * SHARE_OF_PROCESSES))
    cases = [*command_lines(folder, data), *fields(folder, data), *recipes(folder, data), *preparations(folder)]
    sizes = Counter(kind for kind, *_ in cases)
    weights = np.array([1 / sizes[kind] for kind, *_ in cases])  # all kinds alike, as far as there are so many
    chosen = rng.choice(len(cases), min(count - in_processes, len(cases)), replace=False, p=weights / weights.sum())
    for kind, attempt, culprit in (cases[number] for number in sorted(chosen)):
        yield (kind, *_judged(_here(attempt), culprit))
    cases = list(processes(folder, data))
    for number in rng.permutation(len(cases))[:in_processes]:
        kind, attempt, culprit = cases[number]
        yield (kind, *_judged(attempt(), culprit))


def _here(attempt: Callable[[], Any]) -> tuple[str, str]:
    """The outcome in this process, and what was said."""
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            status = command.status(lambda: attempt() and None)
    except BaseException:
        return TRACEBACK, traceback.format_exc()
    return _seen(status, errors.getvalue())


def _seen(status: int, errors: str) -> tuple[str, str]:
    if status == 0:
        return SILENT, ""
    one = status == 1 and errors.startswith("error: ") and errors.count("\n") == 1
    return (REFUSED if one else TRACEBACK), errors


def _judged(found: tuple[str, str], culprit: str) -> tuple[str, str]:
    """A refusal that does not name the culprit leaves its user in the dark."""
    kind, said = found
    return (SILENT, f"does not name {culprit!r}: {said}") if kind == REFUSED and culprit not in said else found


def write_dataset(path: Path) -> Path:
    """A prepared dataset with one modality of each kind."""
    rng = np.random.default_rng(0)
    modalities = {
        "image": Modality(kind="image", encoding="raw", shape=(8, 8, 1)),
        "audio": Modality(kind="audio", encoding="pcm_s16le", sample_rate=8000),
        "text": Modality(kind="text", encoding="utf-8"),
        "numbers": Modality(kind="tabular", encoding="float32", shape=(3,)),
        "video": Modality(kind="video", encoding="jpeg", frame_rate=1.0),
    }
    texts = ["a yellow cup", "a green cup", "the yellow hat"]
    with DatasetWriter(path, name="faults", description="Noise.", classes=["a", "b"], modalities=modalities) as writer:
        for split, examples in {"train": 40, "test": 8}.items():
            for number in range(examples):
                writer.write(
                    split,
                    id=f"{split}{number}",
                    label=number % 2,
                    image=rng.integers(0, 256, (8, 8, 1), np.uint8),
                    audio=rng.integers(-1000, 1000, 4000, np.int16),
                    text=texts[number % 3],
                    numbers=rng.normal(size=3).astype(np.float32),
                    video=[jpeg.encode(rng.integers(0, 256, (32, 32, 3), np.uint8))] * 2,
                )
        writer.add_file(TOKENIZER, tokenizer_file(texts * 2))
    return path


def recipe(data: str) -> ConfigDict:
    """A good recipe for all modalities of it."""
    config = default_config()
    config.data.dir = data
    config.data.batch_size = config.evaluation.batch_size = 8
    config.modalities = ("image", "audio", "text", "numbers", "video")
    config.inputs.image = tower_config({"name": "lenet", "layers": 1})
    config.inputs.audio = tower_config({"name": "spectrogram_cnn", "channels": (4, 8)}, length=4000)
    config.inputs.text = tower_config({"name": "word_embeddings", "width": 8}, length=16)
    config.inputs.numbers = tower_config({"name": "mlp"})
    config.inputs.video = tower_config({"name": "lenet", "layers": 1}, length=32)
    return config


def _build(words: Sequence[str]) -> Any:
    """All that a command line comes to before training."""
    return experiment.build(cli.parse(["main.py", *words]).config)


def command_lines(folder: Path, data: Path) -> Iterator[Case]:
    """Those of main.py."""
    good = _write_recipe(folder / "good" / "recipe.py", data, "")
    for words, culprit in COMMAND_LINES:
        filled = [word.replace("{recipe}", str(good)) for word in words]
        yield "command line", lambda filled=filled: _build(filled), culprit


def recipes(folder: Path, data: Path) -> Iterator[Case]:
    """Config files."""
    for change, culprit in CHANGES:
        yield "config file", _try_recipe(folder, data, change), culprit


def fields(folder: Path, data: Path) -> Iterator[Case]:
    """Every field of a config, of its encoders and of its preprocessing, with every nonsense for its type."""
    changes = []
    for field, kind in _types(default_config()):
        changes += [(field, value) for value in _nonsense(field, kind)]
    for field, kind in _types(ConfigDict(tower_config({"name": "lenet"}))):
        if not field.startswith(("encoder", "preprocess")):
            changes += [(f"inputs.audio.{field}", value) for value in _nonsense(field, kind)]
    for field, value in changes:
        parent, _, name = f"config.{field}".rpartition(".")
        change = f"with {parent}.ignore_type(): {parent}.{name} = {value}"
        yield "config field", _try_recipe(folder, data, change), name
    for modality, names in ENCODERS.items():
        for name, fitting in names.items():
            model = encoder_module(name).Model
            known = {key: kind for key, kind in model.__annotations__.items() if key not in NOT_TRIED} | LOADING_FIELDS
            for change, field in _open_fields(f"config.inputs.{modality}.encoder", {"name": name, **fitting}, known):
                yield "encoder's field", _try_recipe(folder, data, change), field
    kinds = {"image": "image", "audio": "audio", "text": "text", "numbers": "tabular", "video": "video"}
    for modality, kind in kinds.items():
        for form, preprocess in KINDS[kind].items():
            known = {key: field.type for key, field in preprocess.__dataclass_fields__.items()}
            for change, field in _open_fields(f"config.inputs.{modality}.preprocess", {"form": form}, known):
                huge = field == "frames" and HUGE[field] in change  # is seen in the batch
                yield "preprocessing's field", _try_recipe(folder, data, change), modality if huge else field


def _open_fields(where: str, given: Mapping[str, str], known: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for field, kind in known.items():
        plain = kind if kind in NONSENSE else tuple if str(kind).startswith("tuple") else None
        values = [] if plain is None else _nonsense(field, plain)
        values = [value for value in values if value != "{'a': 1}"]
        values += [HUGE[field]] if field in HUGE else []
        for value in values:
            yield f"{where} = {{**{dict(given)!r}, {field!r}: {value}}}", field


def _types(config: ConfigDict, prefix: str = "") -> Iterator[tuple[str, type]]:
    for key, value in config.items():
        yield f"{prefix}{key}", type(value)
        if isinstance(value, ConfigDict):
            yield from _types(value, f"{prefix}{key}.")


def _nonsense(field: str, kind: type) -> list[str]:
    values = NONSENSE[kind]
    if field in FREE_TEXT:
        values = [value for value in values if not value.startswith("'")]
    return values


def _write_recipe(file: Path, data: Path, change: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(RECIPE.format(data=str(data), change=f"    {change}"), encoding="utf-8")
    return file


def _try_recipe(folder: Path, data: Path, change: str) -> Callable[[], Any]:
    return lambda: _build([f"--config={_write_recipe(folder / 'tried' / 'recipe.py', data, change)}"])


def preparations(folder: Path) -> Iterator[Case]:
    """Command lines of data_prep and of the conversion."""
    none = str(folder / "none")
    for name in PREPARATIONS:
        required = [word.format(none=none) for word in REQUIRED.get(name, [])]
        out = [f"--out={folder / 'out' / name}"]
        if required:
            yield "data_prep", _try_preparation(name, [*required, *out]), none
        for words in ARGUMENTS:
            needed = required + (out if words and words[0] != "--out" else [])
            yield "data_prep", _try_preparation(name, [*needed, *words]), (words or ["--out"])[0].partition("=")[0]
    for path in WRONG_OUT:
        yield "data_prep", _try_preparation("quickstart", [f"--out={path}"]), ""
    for words in CONVERSIONS:
        filled = [word.format(none=none) for word in words]
        yield "convert", lambda filled=filled: convert.main(filled), ""


def _try_preparation(name: str, words: Sequence[str]) -> Callable[[], None]:
    def attempt() -> None:
        argv, sys.argv = sys.argv, [name, *words]
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                importlib.import_module(f"data_prep.{name}").main()
        finally:
            sys.argv = argv

    return attempt


def processes(folder: Path, data: Path) -> Iterator[tuple[str, Callable[[], tuple[str, str]], str]]:
    """What is tried in processes of their own."""
    good = f"--config={_write_recipe(folder / 'good' / 'recipe.py', data, '')}"
    for variables, culprit in ENVIRONMENT:
        yield "environment", lambda variables=variables: _process(["main.py", good], folder, variables), culprit
    converting = ["-m", "umemma_jax.weights.convert"]
    yield "environment", lambda: _process(converting, folder, {"JAX_ENABLE_X64": "perhaps"}), "JAX_ENABLE_X64"
    for name in PREPARATIONS:
        words = ["-m", f"data_prep.{name}", "--out=x", "--nonsense"]
        yield "process", lambda words=words: _process(words, folder, {}), ""
    yield "process", lambda: _process(["main.py", good, "--config.seed=-1"], folder, {}), "seed"
    yield "process", lambda: _process(["-m", "benchmarks.loop", "--nonsense"], folder, {}), "--nonsense"


def _process(words: Sequence[str], folder: Path, variables: Mapping[str, str]) -> tuple[str, str]:
    root = Path(__file__).resolve().parents[2]
    environment = os.environ | {"PYTHONPATH": str(root)} | variables
    if words[0] == "main.py":
        words = [*words, f"--workdir={folder / 'run'}"]
    done = subprocess.run([sys.executable, *words], cwd=root, env=environment, capture_output=True, text=True)
    return _seen(done.returncode, done.stderr)
