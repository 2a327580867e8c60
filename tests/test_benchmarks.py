import dataclasses
import pathlib
import shutil
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import jpeg as jpeg_benchmark
from benchmarks import roofline, text_baselines, timing, workload
from umemma_jax.data import jpeg
from umemma_jax.data.dataset import DatasetWriter, Modality, open_dataset

ROOT = pathlib.Path(__file__).resolve().parents[1]


def run(name, *arguments):
    command = [sys.executable, "-m", f"benchmarks.{name}", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "rows"),
    [
        (
            "train_step",
            [
                f"70 % incomplete, {variant}"
                for variant in ("all rows", "compacted", "stratified", "without augmentation")
            ],
        ),
        ("evaluation_grid", ["one pass", "the report", "whole evaluation", "noise, the report"]),
        ("pipeline", ["step", "pipeline, disk", "training, disk", "pipeline, memory", "training, memory"]),
    ],
)
def test_benchmark_runs_without_any_file_and_prints_its_table_and_the_machine(name, rows):
    done = run(name, "--quick", "--config=tests/small_run.py:replaced")  # the argument is its data folder
    assert done.returncode == 0, done.stderr
    title, header, rule, *table, machine = filter(None, done.stdout.splitlines())
    assert "medians" in title and set(rule) == {"-", " "}
    assert [next(name for name in rows if line.startswith(name)) for line in table] == rows
    assert all(len(line) == len(rule) for line in (header, *table))  # numbers are right-aligned
    assert "jax" in machine and "cores" in machine and "backend" in machine


@pytest.mark.slow
def test_a_pass_of_few_examples_is_scaled():
    done = run("evaluation_grid", "--quick", "--encode=16", "--config=tests/small_run.py:replaced")
    assert done.returncode == 0, done.stderr
    _, _, _, *table, _ = filter(None, done.stdout.splitlines())
    assert [line.split("  ")[0] for line in table] == [
        "one pass, 16 examples scaled",
        "noise, the report",
        "whole evaluation",
    ]
    assert [line.split()[-4] for line in table] == ["64"] * 3  # examples
    assert table[0].split()[-1] == "1.000"


@pytest.mark.slow
def test_readers_are_compared_by_kind_place_and_number_of_threads():
    pytest.importorskip("aiohttp", reason="aiohttp is not installed (extra `cloud`)")
    done = run("readers", "--quick", "--threads=1,3", "--latency=0.01")
    assert done.returncode == 0, done.stderr
    title, header, rule, *table, machine = filter(None, done.stdout.splitlines())
    assert "medians" in title and header.split() == ["1", "3", "auto"] and "cores" in machine
    kinds, places = ("arrays", "photos", "clips", "texts"), ("disk", "http", "far")
    assert [line.split()[:2] for line in table] == [[f"{kind},", place] for place in places for kind in kinds]
    assert all(len(line) == len(rule) for line in table)


@pytest.mark.slow
def test_photos_are_read_at_a_rate_beside_that_of_pillow():
    done = run("jpeg", "--quick", "--threads=2", "--side=64")
    assert done.returncode == 0, done.stderr
    title, header, rule, *table, machine = filter(None, done.stdout.splitlines())
    assert "squares of 64 pixels: medians" in title and header.split() == [
        "photos/s",
        "per",
        "thread",
        "rate",
        "/",
        "Pillow",
    ]
    rows = ["loop, Pillow, 2 thread(s)", "pipeline, 2 thread(s)", "square, Pillow", "square, ours", "decode, Pillow"]
    assert [line[: len(row)] for line, row in zip(table, rows, strict=False)] == rows
    assert table[-1].startswith("decode, simplejpeg") and all(len(line) == len(rule) for line in table)
    assert "cores" in machine


@pytest.mark.slow
def test_clips_are_read_at_a_rate_beside_that_of_ffmpeg():
    done = run("clips", "--quick")
    assert done.returncode == 0, done.stderr
    lines = list(filter(None, done.stdout.splitlines()))
    if shutil.which("ffmpeg"):
        rows = ["96x64, raw.clips", "96x64, ffmpeg"]
    else:
        rows = ["96x64, raw.clips"]
        assert lines.pop(0) == "ffmpeg is not installed: nothing to compare with"
    title, header, rule, *table, machine = lines
    assert "Clips of 2 s to frames and sound: medians" in title and "clips/s per core" in header and "cores" in machine
    assert [line[: len(row)] for line, row in zip(table, rows, strict=True)] == rows
    assert all(len(line) == len(rule) for line in table)


def test_outcomes_of_damage_are_counted_by_trial_or_by_kind():
    done = run("faults", "weights", "reports", "--share=0.02")
    assert done.returncode == 0, done.stdout
    [(_, header, rows)], _ = tables(done.stdout)
    assert header.split() == ["inputs", "same", "refused", "silent", "traceback", "s"]
    assert [(line.split()[0], line.split()[1], line.split()[4:6]) for line in rows] == [
        ("weights", "12", ["0", "0"]),
        ("reports", "40", ["0", "0"]),
    ]
    by_kind = run("faults", "reports", "--share=0.02", "--kinds")
    assert [line.rsplit(maxsplit=6)[0] for line in tables(by_kind.stdout)[0][0][2]] == [
        f"reports, {kind}" for kind in ("flip", "cut", "value")
    ]


def test_photos_of_a_dataset_without_any(tmp_path):
    with workload.data_folder(None, {"train": 4}) as folder:
        done = run("jpeg", "--quick", f"--data={folder}")
    assert done.returncode == 1
    assert done.stderr == f"error: --data={folder}: no modality of JPEG images, choose another dataset\n"


def test_both_ways_to_a_square_show_the_same():
    photo = jpeg_benchmark.synthetic_photo(0)
    file = jpeg.encode(photo, quality=90)
    difference = jpeg_benchmark.pillow_square(file, 224) - jpeg.decode(file, 224).astype(float)
    assert np.abs(difference).mean() < 6 and photo.std() > 25  # other filters


@pytest.mark.slow
def test_every_family_is_compared_with_its_original_class():
    pytest.importorskip("torch", reason="PyTorch is not installed (extra `torch`)")
    done = run("parity", "--quick")
    assert done.returncode == 0, done.stderr
    _, _, _, *table, _ = filter(None, done.stdout.splitlines())
    assert sorted(line.split()[0] for line in table) == ["ast", "audionet", "bert", "resnet", "vit"]
    for line in table:
        *_, difference, _, _, _ = line.split()
        assert float(difference) < 2e-5


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "layouts", "precisions"),
    [
        ("vision_language_step", ("random", "stratified"), ("fp32", "bf16")),
        ("audio_visual_step", ("complete", "stratified"), ("fp32",)),
    ],
)
def test_training_step_is_compared_with_that_of_the_same_model_in_pytorch(name, layouts, precisions):
    pytest.importorskip("torch", reason="PyTorch is not installed (extra `torch`)")
    done = run(name, "--quick", "--batch=3", *([] if len(precisions) == 2 else [f"--precision={precisions[0]}"]))
    assert done.returncode == 0, done.stderr
    title, header, rule, *table, machine = filter(None, done.stdout.splitlines())
    assert float(title.split("fp32 losses of both frameworks agree to ")[1]) < 1e-4
    frameworks = ("PyTorch {}", *(f"ours {{}} {layout}" for layout in layouts))
    rows = [framework.format(precision) for precision in precisions for framework in frameworks]
    assert [line[: len(row)] for line, row in zip(table, rows, strict=True)] == rows
    flops = [float(line.split()[-1]) for line in table]
    assert flops[0] == flops[1] and 0.6 < flops[2] / flops[1] < 0.75  # two of three rows, and the optimiser
    assert all(len(line) == len(rule) for line in (header, *table)) and "cores" in machine


def test_mistake_on_the_command_line_is_one_line_and_status_1(tmp_path):
    done = run("pipeline", f"--data={tmp_path}")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1 and str(tmp_path) in done.stderr


def test_runs_are_warmed_up_and_then_take_turns_in_changing_order():
    calls = []
    runs = {name: lambda name=name: calls.append(name) or jnp.zeros(()) for name in "abcde"}
    seconds = timing.interleaved(runs, seconds=0)
    warm_up, *rounds = ("".join(calls[i : i + 5]) for i in range(0, len(calls), 5))
    assert warm_up == "abcde" and len(rounds) == timing.MIN_ROUNDS
    assert all(sorted(names) == list("abcde") for names in rounds) and len(set(rounds)) > 1
    assert [len(values) for values in seconds.values()] == [timing.MIN_ROUNDS] * 5
    assert all((values > 0).all() for values in seconds.values())


def test_what_a_run_returns_is_waited_for():
    class Pending:
        waited = 0

        def block_until_ready(self):
            self.waited += 1

    pending = Pending()
    timing.seconds_of(lambda: {"loss": pending})
    assert pending.waited == 1


def test_table_is_aligned_and_names_the_machine(capsys):
    timing.print_table("Speed", ("", "ms"), [("one", "1.5"), ("another", "10.0")])
    assert capsys.readouterr().out == (
        f"\nSpeed\n\n           ms\n-------  ----\none       1.5\nanother  10.0\n\n{timing.machine()}\n"
    )


def test_synthetic_data_is_a_dataset_of_av_mnist_s_shapes_and_is_gone_afterwards():
    with workload.data_folder(None, {"train": 12, "test": 5}) as folder:
        info = open_dataset(folder).info
        assert {name: split.examples for name, split in info.splits.items()} == {"train": 12, "test": 5}
        assert info.modalities["image"].shape == (28, 28, 1) and 4000 <= info.modalities["audio"].max_samples <= 8000
    assert not pathlib.Path(folder).exists()


def test_given_data_is_left_alone(tmp_path):
    with workload.data_folder(str(tmp_path), {}) as folder:
        assert folder == str(tmp_path)
    assert tmp_path.exists()


def test_recipes_load_with_their_argument():
    assert workload.load_config("configs/quickstart.py:late_fusion").unimodal.epochs == 0
    assert workload.load_config("benchmarks/multibench.py").data.batch_size == 48


def tables(text):
    """[(title, header, rows)] of a benchmark's tables, and the lines that are in none."""
    found, others = [], []
    for block in text.strip("\n").split("\n\n"):
        lines = block.splitlines()
        if len(lines) > 2 and set(lines[1]) == {"-", " "}:
            found.append((others.pop(), lines[0], lines[2:]))
            assert all(len(line) == len(lines[1]) for line in lines)
        else:
            others += lines
    return found, others


@pytest.mark.slow
def test_roofline_has_a_row_for_every_value_of_the_chosen_switches():
    switches = ("attention", "scan", "layout", "accumulate", "donate")
    done = run("roofline", "--quick", "--pair=vision_language", *(f"--switch={name}" for name in switches))
    assert done.returncode == 0, done.stderr
    [(title, _, table)], (machine, *others) = tables(done.stdout)
    assert "ceiling" in title and "a copy moves" in title and "cores" in machine
    assert others == ["left out: attention cudnn: cuDNN needs a GPU, and this is cpu"]
    rows = ["baseline", "scan True"]
    rows += ["layout compacted", "layout stratified", "layout complete", "accumulate 2", "donate False"]
    assert [line[: len(row)] for line, row in zip(table, rows, strict=True)] == rows
    for line in table:
        bytes_moved, _, flop_per_byte, memory, _ = line.split()[-5:]
        assert float(memory.replace(",", "")) > 0
        counted_once = line.startswith(("scan", "accumulate"))
        assert (bytes_moved == flop_per_byte == "-") == counted_once


def transformer_products(tokens, width, mlp_width, depth):
    """FLOPs of the matrix products of a forward pass of one example."""
    projections, attention, mlp = 4 * tokens * width**2, 2 * tokens**2 * width, 2 * tokens * width * mlp_width
    return 2 * depth * (projections + attention + mlp)


@pytest.mark.slow
def test_model_flops_are_those_of_its_matrix_products_and_a_little_more():
    pair = roofline.PAIRS["vision_language"]
    patches = 2 * 196 * (16 * 16 * 3) * 768
    vit, bert = transformer_products(197, 768, 3072, depth=12), transformer_products(40, 768, 3072, depth=12)
    # The backward pass has two products for each; pixels need no gradient.
    for layout, rows in {"complete": 6, "random": 6, "stratified": 4, "compacted": 4}.items():
        counted = roofline.model_flops(pair, "base", layout, pair.batch(6, False))
        assert 1.0 < counted / rows / (3 * (vit + bert) + 2 * patches) < 1.05


def test_lenets_count_as_the_plain_ones_also_where_theirs_are_computed_by_windows():
    pair = roofline.PAIRS["lenets"]
    batch = pair.batch(6, True)
    ours = roofline.model_flops(dataclasses.replace(pair, counted=None), "base", "complete", batch)
    assert roofline.model_flops(pair, "base", "complete", batch) < 0.8 * ours


@pytest.mark.slow
def test_training_loop_is_timed_beside_the_bare_step_and_the_step_at_growing_batch_sizes():
    done = run("loop", "--quick", "--config=tests/small_run.py:replaced")
    assert done.returncode == 0, done.stderr
    [(loop, _, loop_rows), (batches, _, batch_rows)], machine = tables(done.stdout)
    assert "log_every 1:" in loop and "growing batch sizes" in batches and len(machine) == 2
    rows = ["bare step", "step on new batches", "train.train"]
    assert [line[: len(row)] for line, row in zip(loop_rows, rows, strict=True)] == rows
    assert loop_rows[0].split()[-4:] == ["1.000", "1.000", "to", "1.000"]
    assert [line.split()[0] for line in batch_rows] == ["1", "2"]
    assert "fusion 9/9" in done.stderr


@pytest.mark.slow
def test_starts_of_main_py_are_timed_without_and_with_what_was_compiled_before():
    done = run("start_up", "--quick", "--config=tests/small_run.py:replaced")
    assert done.returncode == 0, done.stderr
    [(title, header, table)], _ = tables(done.stdout)
    assert "main.py --config=tests/small_run.py:replaced" in title and "filled cache, s" in header
    rows = ["process and imports", "first step", "first step, less process and imports", "first step of stage fusion"]
    rows += ["compiling stage unimodal", "compiling stage fusion"]
    assert [line[: len(row)] for line, row in zip(table, rows, strict=True)] == rows


def test_start_that_fails_says_why(tmp_path):
    done = run("start_up", "--quick", "--config=tests/small_run.py:replaced", f"--data={tmp_path}")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: ") and str(tmp_path) in done.stderr.splitlines()[-1]


@pytest.mark.slow
def test_memory_between_steps_is_that_of_the_state(tmp_path):
    recipe = tmp_path / "recipe.py"
    recipe.write_text(
        "from tests import small_run\n"
        "from umemma_jax.config import tower_config\n"
        "encoder = {'name': 'vit', 'width': 256, 'depth': 1, 'heads': 4, 'mlp_width': 1024, 'patch': 4}\n"
        "def get_config():\n"
        "    config = small_run.get_config('replaced')\n"
        "    config.inputs.image = tower_config(encoder)\n"
        "    config.inputs.audio = tower_config(encoder, {'n_mels': 16}, length=640)\n"
        "    return config\n"
    )
    done = run("state_memory", f"--config={recipe}")
    assert done.returncode == 0, done.stderr
    [(_, _, table)], _ = tables(done.stdout)
    held = {line.rsplit(maxsplit=3)[0]: float(line.split()[-1]) for line in table}
    copies = {  # of the parameters
        "fusion, AdamW": 3,
        "fusion, AdamW, moments in bfloat16": 2.5,
        "fusion, AdamW, moving average": 4,
        "fusion, SGD with momentum": 2,
        "fusion, frozen encoders": 1,
        "unimodal, AdamW, best epochs": 4,
        "fusion after unimodal, AdamW, best epoch": 4,  # the uni-modal models wait on the host for the evaluation
    }
    assert held == pytest.approx(copies, rel=0.05 / 3)


@pytest.mark.slow
@pytest.mark.usefixtures("one_device")
def test_texts_that_tell_the_class_are_learned_by_ours_and_by_the_baselines(tmp_path, capsys):
    modalities = {
        "text": Modality(kind="text", encoding="utf-8"),
        "noise": Modality(kind="tabular", encoding="float32", shape=(2,)),
    }
    rng = np.random.default_rng(0)
    with DatasetWriter(tmp_path / "toy", name="t", description="", classes=["a", "b"], modalities=modalities) as writer:
        for split, count in {"train": 200, "val": 40, "test": 40}.items():
            for number in range(count):
                noise = rng.normal(size=2).astype(np.float32)
                text = f"{('apple', 'pear')[number % 2]} {rng.integers(9)}" if number % 5 else None
                writer.write(split, id=str(number), label=number % 2, text=text, noise=noise)
    text_baselines.compare(tmp_path / "toy", "text", seed=0)
    rows = [line.rsplit(maxsplit=4) for line in capsys.readouterr().out.splitlines() if line.startswith("toy")]
    assert len(rows) == 3
    for _, precision, f1, tuned, _ in rows:
        assert (precision, f1, tuned) == ("100.0", "100.0", "-")


def test_classes_that_no_training_text_has_are_below_all_others():
    split = text_baselines.Split(["red", "blue", "red shoe", "blue bag"] * 4, np.array([0, 2, 0, 2] * 4))
    for logits in text_baselines.baseline(text_baselines.words(), split, split, split, classes=4):
        assert logits.argmax(axis=1).tolist() == split.label.tolist()
        assert np.isneginf(logits[:, [1, 3]]).all()


@pytest.mark.slow
def test_tables_beside_gradient_boosting(tmp_path):
    done = run("tabular_baselines", f"--data={tmp_path}", "--tables=tumours", "--seeds=1")
    assert done.returncode == 0, done.stderr
    *_, row = done.stdout.splitlines()
    _, name, rows, columns, boosting, ours, _ = (cell.strip() for cell in row.split("|"))
    assert (name, rows, columns) == ("tumours", "569", "30")
    assert float(boosting) > 85 and float(ours) > 85
