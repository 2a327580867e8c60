import json
import os
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from umemma_jax import command
from umemma_jax.errors import UserError
from umemma_jax.weights import convert, files, model_card

FAMILY = "tests.own_family"
RNG = np.random.default_rng(0)
STATE = {
    "0.weight": RNG.normal(size=(6, 4)).astype(np.float32),
    "0.bias": RNG.normal(size=6).astype(np.float32),
    "2.weight": RNG.normal(size=(3, 6)).astype(np.float32),
    "2.bias": RNG.normal(size=3).astype(np.float32),
}


def save(folder, state=STATE, **config):
    folder.mkdir(exist_ok=True)
    save_file(state, folder / "model.safetensors")
    if config:
        (folder / "config.json").write_text(json.dumps(config))
    return folder


def refusal(tmp_path, state, family=FAMILY, **config):
    """The message with which a checkpoint is refused; nothing may be left of the attempt."""
    source = save(tmp_path / "source", state, **config)
    with pytest.raises(UserError) as caught:
        convert.convert(family, source, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_parameters_are_renamed_and_transposed(tmp_path):
    card = convert.convert(FAMILY, save(tmp_path / "source"), tmp_path / "out")
    arrays = load_file(tmp_path / "out" / model_card.PARAMETERS)
    assert card.fields == {"width": 6, "features": 3}
    assert card.parameters == 6 * 4 + 6 + 3 * 6 + 3
    assert set(arrays) == {f"params/{layer}/{part}" for layer in ("hidden", "out") for part in ("kernel", "bias")}
    np.testing.assert_array_equal(arrays["params/hidden/kernel"], STATE["0.weight"].T)
    np.testing.assert_array_equal(arrays["params/out/bias"], STATE["2.bias"])


def test_the_card_says_what_it_was_made_of(tmp_path):
    source = save(tmp_path / "source", model_type="mlp")
    card = convert.convert(FAMILY, source, tmp_path / "out")
    assert card.family == FAMILY and card.format == "nn.Sequential"
    assert card.config == {"model_type": "mlp"}
    assert card.shapes == {name: list(array.shape) for name, array in STATE.items()}
    assert card.sha256 == files.open_weights(source).sha256()
    assert set(card.libraries) >= {"jax", "flax"}
    assert model_card.read_card(tmp_path / "out") == card


@pytest.mark.parametrize("wrapper", ["module.", "backbone.", "module.encoder."])
def test_wrappers_around_the_whole_checkpoint_are_stripped(tmp_path, wrapper):
    state = {f"{wrapper}{name}": array for name, array in STATE.items()}
    convert.convert(FAMILY, save(tmp_path / "wrapped", state), tmp_path / "a")
    convert.convert(FAMILY, save(tmp_path / "bare"), tmp_path / "b")
    parts = [(tmp_path / folder / model_card.PARAMETERS).read_bytes() for folder in "ab"]
    assert parts[0] == parts[1]


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float64])
def test_other_floats_become_float32(tmp_path, dtype):
    state = {name: array.astype(dtype) for name, array in STATE.items()}
    convert.convert(FAMILY, save(tmp_path / "source", state), tmp_path / "out")
    found = load_file(tmp_path / "out" / model_card.PARAMETERS)["params/hidden/kernel"]
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, STATE["0.weight"].astype(dtype).astype(np.float32).T)


def test_an_export_has_the_original_names_and_bits(tmp_path):
    convert.convert(FAMILY, save(tmp_path / "source", STATE, model_type="mlp"), tmp_path / "ours")
    convert.export(tmp_path / "ours", tmp_path / "theirs")
    found = load_file(tmp_path / "theirs" / "model.safetensors")
    assert set(found) == set(STATE)
    for name, array in STATE.items():
        np.testing.assert_array_equal(found[name], array)
    assert json.loads((tmp_path / "theirs" / "config.json").read_text()) == {"model_type": "mlp"}
    convert.convert(FAMILY, tmp_path / "theirs", tmp_path / "again")
    again, ours = ((tmp_path / folder / model_card.PARAMETERS).read_bytes() for folder in ("again", "ours"))
    assert again == ours


def test_tensors_that_no_rule_names_stop_the_conversion(tmp_path):
    message = refusal(tmp_path, {**STATE, "extra.weight": np.zeros((2, 5), np.float32)})
    assert "does not match nn.Sequential: 1 not used: extra.weight (2, 5)" in message


def test_tensors_that_a_rule_misses_stop_the_conversion(tmp_path):
    message = refusal(tmp_path, {name: array for name, array in STATE.items() if name != "2.bias"})
    assert "1 missing: 2.bias" in message


def test_long_lists_are_cut(tmp_path):
    message = refusal(tmp_path, {**STATE, **{f"extra.{i}": np.zeros(1, np.float32) for i in range(20)}})
    assert "20 not used" in message and "and 14 more" in message


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused_by_name(tmp_path, value):
    broken = STATE["2.weight"].copy()
    broken[1, 2] = value
    assert "tensor 2.weight has values that are not finite" in refusal(tmp_path, {**STATE, "2.weight": broken})


def test_quantised_weights_are_refused_by_name(tmp_path):
    message = refusal(tmp_path, {**STATE, "2.weight": STATE["2.weight"].astype(np.int8)})
    assert "tensor 2.weight is int8" in message


def test_a_checkpoint_of_no_known_family(tmp_path):
    message = refusal(tmp_path, {"a": np.zeros(1, np.float32)}, model_type="llama")
    assert "is no checkpoint of family tests.own_family (nn.Sequential); its tensors are a" in message
    assert "llama" in message


def test_a_family_without_tables(tmp_path):
    assert "encoder 'lenet' exports no FORMATS" in refusal(tmp_path, STATE, family="lenet")
    assert "no module umemma_jax.encoders.nonsense" in refusal(tmp_path, STATE, family="nonsense")


def test_a_folder_in_use_is_left_alone(tmp_path):
    source = save(tmp_path / "source")
    before = sorted(path.name for path in source.iterdir())
    with pytest.raises(UserError, match="is in use"):
        convert.convert(FAMILY, source, source)
    assert sorted(path.name for path in source.iterdir()) == before


def test_a_target_that_is_a_file(tmp_path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(UserError, match="out: is in use"):
        convert.convert(FAMILY, save(tmp_path / "source"), tmp_path / "out")
    assert (tmp_path / "out").read_text() == "mine"


@pytest.mark.parametrize(
    "given, message",
    [
        ({"widht": 6}, "--field.widht: unknown, tests.own_family takes features, "),
        ({"width": "6"}, "--field.width: '6' is not of type int"),
        ({"width": 7}, "width = 7 was given, and the checkpoint has 6: leave it out"),
    ],
)
def test_given_fields_are_honoured_or_refused(given, message, tmp_path):
    with pytest.raises(UserError) as caught:
        convert.convert(FAMILY, save(tmp_path / "source"), tmp_path / "out", given)
    assert message in str(caught.value)
    assert convert.convert(FAMILY, tmp_path / "source", tmp_path / "out", {"width": 6}).fields["width"] == 6


@pytest.mark.parametrize("shape", [(6,), (6, 4, 1, 1), ()])
def test_tensors_of_another_rank_are_named(shape, tmp_path):
    message = refusal(tmp_path, {**STATE, "2.weight": np.zeros(shape, np.float32)})
    assert "2.weight" in message or "its tensors' shapes" in message


@pytest.mark.parametrize("contents", ["{", "[]", "[" * 100_000])
def test_a_damaged_preprocessor_config(tmp_path, contents):
    source = save(tmp_path / "source")
    (source / "preprocessor_config.json").write_text(contents)
    with pytest.raises(UserError, match=r"preprocessor_config\.json"):
        convert.convert(FAMILY, source, tmp_path / "out")


def run(*arguments):
    command = [sys.executable, "-m", "umemma_jax.weights.convert", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_command_line_converts_and_exports(tmp_path):
    source = save(tmp_path / "source")
    done = run(f"--family={FAMILY}", f"--from={source}", f"--to={tmp_path / 'ours'}")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["parameters"] == 51
    done = run("--export", f"--from={tmp_path / 'ours'}", f"--to={tmp_path / 'theirs.safetensors'}")
    assert done.returncode == 0, done.stderr
    assert set(load_file(tmp_path / "theirs.safetensors")) == set(STATE)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--from=x", "--to=y"], "--family is missing"),
        (["--family=vit", "--to=y"], "--from"),
        (["--family=vit", "--from=/no/such", "--to=y"], "/no/such: no such file"),
        (["--export", "--from=/no/such", "--to=y"], "/no/such/model.json: cannot be read"),
        (["--nonsense"], "see --help"),
    ],
)
def test_mistakes_on_the_command_line_are_one_line(capsys, arguments, message):
    assert command.status(lambda: convert.main(arguments)) == 1
    output, errors = capsys.readouterr()
    assert errors.startswith("error: ") and message in errors
    assert errors.count("\n") == 1
    assert output == ""


def bert_shapes(width=768, depth=12, vocabulary=30522, positions=512):
    """Names and shapes of a Hugging Face BertModel without its pooler."""
    shapes = {
        "embeddings.word_embeddings.weight": (vocabulary, width),
        "embeddings.position_embeddings.weight": (positions, width),
        "embeddings.token_type_embeddings.weight": (2, width),
    }
    linear = {
        "attention.self.query": (width, width),
        "attention.self.key": (width, width),
        "attention.self.value": (width, width),
        "attention.output.dense": (width, width),
        "intermediate.dense": (4 * width, width),
        "output.dense": (width, 4 * width),
    }
    norms = ["embeddings.LayerNorm"]
    for layer in range(depth):
        prefix = f"encoder.layer.{layer}"
        norms += [f"{prefix}.attention.output.LayerNorm", f"{prefix}.output.LayerNorm"]
        for name, shape in linear.items():
            shapes |= {f"{prefix}.{name}.weight": shape, f"{prefix}.{name}.bias": shape[:1]}
    return shapes | {f"{name}.{part}": (width,) for name in norms for part in ("weight", "bias")}


@pytest.fixture
def bert(tmp_path):
    """A file of a small BERT, without its config.json."""
    shapes = bert_shapes(width=48, depth=2, vocabulary=60)
    save_file({name: np.zeros(shape, np.float32) for name, shape in shapes.items()}, tmp_path / "bert.safetensors")
    return tmp_path / "bert.safetensors"


def test_a_checkpoint_of_another_family_says_of_which(bert, tmp_path):
    with pytest.raises(UserError, match="is no checkpoint of family vit, it looks like bert"):
        convert.convert("vit", bert, tmp_path / "out")


SMALL_BERT = {
    "model_type": "bert",
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "intermediate_size": 192,
    "vocab_size": 60,
    "num_attention_heads": 4,
}


def test_a_config_that_is_the_checkpoints_own_is_believed(bert, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({**SMALL_BERT, "architectures": ["BertForMaskedLM"]}))
    fields = convert.convert("bert", bert, tmp_path / "out").fields
    assert (fields["heads"], fields["pool"]) == (4, "cls")
    (tmp_path / "1_Pooling").mkdir()
    (tmp_path / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
    assert convert.convert("bert", bert, tmp_path / "pooled").fields["pool"] == "mean"
    assert convert.convert("bert", bert, tmp_path / "given", {"pool": "cls"}).fields["pool"] == "cls"
    modules = [{"type": f"sentence_transformers.models.{name}"} for name in ("Transformer", "Pooling", "Normalize")]
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    assert convert.convert("bert", bert, tmp_path / "scaled").fields["unit_length"] is True


@pytest.mark.parametrize(
    "changes, message",
    [
        # Other models under the same tensors' names.
        ({"model_type": "big_bird"}, "model_type 'big_bird', which may compute something else"),
        ({"model_type": "roberta-prelayernorm"}, "model_type 'roberta-prelayernorm'"),
        ({"architectures": ["BertWithRotaryModel"]}, "architectures 'BertWithRotaryModel'"),
        ({"architectures": 5}, "architectures 5"),
        ({"model_type": ["bert"]}, "model_type ['bert']"),
        ({"auto_map": {"AutoModel": "their_code.Model"}}, "auto_map"),
        ({"quantization_config": {"bits": 4}}, "quantization_config"),
        ({"position_embedding_type": "alibi"}, "position_embedding_type 'alibi' is not supported"),
        # That of another checkpoint, all of it or what its class would make of the rest.
        ({"hidden_size": 768}, "has hidden_size = 768, and this checkpoint's is 48"),
        ({"intermediate_size": None}, "intermediate_size = None, a int belongs there"),
        ({"num_hidden_layers": 2.5}, "num_hidden_layers = 2.5, a int belongs there"),
        ({"num_attention_heads": True}, "num_attention_heads = True, a int belongs there"),
        ({"layer_norm_eps": "small"}, "layer_norm_eps = 'small', a float belongs there"),
        ({"hidden_act": "silu"}, "activation 'silu' is not supported"),
    ],
)
def test_a_config_of_something_else_is_refused_by_name(changes, message, bert, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({**SMALL_BERT, **changes}))
    with pytest.raises(UserError) as caught:
        convert.convert("bert", bert, tmp_path / "out")
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_what_a_config_leaves_out_is_what_its_class_would_have(bert, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UserError, match="leaves it to the default hidden_size = 768, and this checkpoint's is 48"):
        convert.convert("bert", bert, tmp_path / "out")


VIT_LIKE = {
    "embeddings.cls_token": (1, 1, 8),
    "embeddings.patch_embeddings.projection.weight": (8, 3, 4, 4),
    "encoder.layer.0.layernorm_before.weight": (8,),
    "encoder.layer.0.intermediate.dense.weight": (16, 8),
}


@pytest.mark.parametrize(
    "shapes",
    [
        VIT_LIKE,  # BEiT: without positions
        # ViViT: with patches of several frames
        VIT_LIKE
        | {
            "embeddings.patch_embeddings.projection.weight": (8, 3, 2, 4, 4),
            "embeddings.position_embeddings": (1, 9, 8),
        },
    ],
    ids=["BEiT", "ViViT"],
)
def test_relatives_of_vit_without_config_are_refused(shapes, tmp_path):
    message = refusal(tmp_path, {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}, "vit")
    assert "is no checkpoint of family vit" in message or "tensor embeddings.patch_embeddings.projection" in message


def test_what_neither_shapes_nor_config_decide_must_be_given(bert, tmp_path):
    with pytest.raises(UserError) as caught:
        convert.convert("bert", bert, tmp_path / "out")
    assert "heads cannot be read from the tensors' shapes, and there is no config.json beside it" in str(caught.value)
    convert.main(["--family=bert", f"--from={bert}", f"--to={tmp_path / 'out'}", "--field=heads=4"])
    assert model_card.read_card(tmp_path / "out").fields["heads"] == 4


# Not resource.getrusage: its peak is inherited from the process that starts this one.
MEASURED = """
import re, sys
from umemma_jax.weights import convert
card = convert.convert(*sys.argv[1:])
assert "torch" not in sys.modules
print(card.parameters, 1024 * int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="the peak of memory is read from Linux's /proc")
def test_bert_base_converts_without_pytorch_in_little_memory(tmp_path):
    shapes, source = bert_shapes(), tmp_path / "source"
    source.mkdir()
    arrays = (np.full(shape, 0.01, np.float32) for shape in shapes.values())
    files.write_safetensors(source / "model.safetensors", list(shapes), arrays)
    (source / "config.json").write_text('{"model_type": "bert", "num_attention_heads": 12}')
    command = [sys.executable, "-c", MEASURED, "bert", str(source), str(tmp_path / "ours")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    parameters, peak = map(int, done.stdout.split())
    assert parameters == sum(int(np.prod(shape)) for shape in shapes.values())
    assert peak <= 2.2 * (source / "model.safetensors").stat().st_size


def test_the_original_class_loads_an_export_strictly(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra `torch`)")
    original = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 3))
    torch.save({"state_dict": original.state_dict()}, tmp_path / "original.pth")
    convert.convert(FAMILY, tmp_path / "original.pth", tmp_path / "ours")
    convert.export(tmp_path / "ours", tmp_path / "theirs.safetensors")
    from safetensors.torch import load_file as load_tensors

    copy = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.ReLU(), torch.nn.Linear(6, 3))
    copy.load_state_dict(load_tensors(tmp_path / "theirs.safetensors"), strict=True)
    for ours, theirs in zip(copy.parameters(), original.parameters(), strict=True):
        assert torch.equal(ours, theirs)
