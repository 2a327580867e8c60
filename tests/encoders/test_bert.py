"""Text transformers against Hugging Face's classes: features, gradients, export; padding; bad input."""

import functools
import json

import jax
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from safetensors.numpy import load_file

from tests.encoders import parity
from umemma_jax.encoders.bert import FORMATS, Model, of_unit_length
from umemma_jax.encoders.foreign import Source
from umemma_jax.errors import UserError

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

VOCABULARY, POSITIONS = 61, 16
END = VOCABULARY - 1  # CLIP's end of text
SIZES = {"vocab_size": VOCABULARY, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3}
BERT = {**SIZES, "intermediate_size": 40, "max_position_embeddings": POSITIONS}
# The position ids of RoBERTa start at 2.
ROBERTA = {
    **BERT,
    "max_position_embeddings": POSITIONS + 2,
    "type_vocab_size": 1,
    "pad_token_id": 1,
    "layer_norm_eps": 1e-5,
}
DISTILBERT = {
    "vocab_size": VOCABULARY,
    "dim": 24,
    "n_layers": 2,
    "n_heads": 3,
    "hidden_dim": 40,
    "max_position_embeddings": POSITIONS,
}
ELECTRA = {**BERT, "embedding_size": 14}
CLIP = {**BERT, "projection_dim": 10, "eos_token_id": END, "bos_token_id": 2}
CLIP_VISION = {**CLIP, "image_size": 8, "patch_size": 4}
TINY = {
    "Bert": (transformers.BertConfig, BERT),
    "Roberta": (transformers.RobertaConfig, ROBERTA),
    "XLMRoberta": (transformers.XLMRobertaConfig, ROBERTA),
    "Electra": (transformers.ElectraConfig, ELECTRA),
    "DistilBert": (transformers.DistilBertConfig, DISTILBERT),
    "CLIPText": (transformers.CLIPTextConfig, CLIP),
    "CLIPModel": (transformers.CLIPConfig, {"text_config": CLIP, "vision_config": CLIP_VISION, "projection_dim": 10}),
}
POOLS = {
    "BertModel": ("cls", "pooler", "mean", "last"),
    "RobertaModel": ("cls", "pooler", "mean", "last"),
    "ElectraModel": ("cls", "mean", "last"),
    "DistilBertModel": ("cls", "mean", "last"),
    "CLIPTextModelWithProjection": ("cls", "mean", "last"),
}


assert_same_features = functools.partial(parity.assert_same_features, "bert")


def original(name, **config):
    """A tiny model of a Hugging Face class, every parameter drawn anew."""
    config_class, sizes = next(value for key, value in TINY.items() if name.startswith(key))
    return parity.redraw(getattr(transformers, name)(config_class(**{**sizes, **config})), scale=0.3)


def texts(length, lengths=(9, 4, 1), seed=0):
    """Token ids padded with 1, RoBERTa's padding; the last of each text is CLIP's end."""
    lengths = np.minimum(lengths, length).astype(np.int32)
    tokens = np.random.default_rng(seed).integers(3, END, (len(lengths), length)).astype(np.int32)
    tokens[np.arange(len(lengths)), lengths - 1] = END
    tokens[np.arange(length) >= lengths[:, None]] = 1
    return {"tokens": tokens, "length": lengths}


def features_of(network, x, pool):
    """What the original makes of texts, pooled here where it has no output of its own for that."""
    tokens, lengths = torch.from_numpy(x["tokens"]).long(), torch.from_numpy(x["length"]).long()
    kept = torch.arange(tokens.shape[1])[None] < lengths[:, None]
    output = network(input_ids=tokens, attention_mask=kept.long())
    if pool == "pooler":
        return output.pooler_output
    if pool == "last" and "text_embeds" in output:
        return output.text_embeds
    hidden = output.last_hidden_state
    pooled = {
        "cls": hidden[:, 0],
        "mean": (hidden * kept[..., None]).sum(1) / lengths[:, None],
        "last": hidden[torch.arange(len(lengths)), lengths - 1],
    }[pool]
    return network.text_projection(pooled) if hasattr(network, "text_projection") else pooled


def converted(pools, folder, x):
    """(x -> {pool: features}, variables) of the checkpoint in a folder; compiled as one."""
    widest = "pooler" if "pooler" in pools else pools[0]
    model, variables = parity.load("bert", folder, x, pool=widest)

    @jax.jit
    def apply(variables, x, mask=None):
        return {pool: model.clone(pool=pool).apply(variables, x, mask) for pool in pools}

    return apply, variables


def small(x, **fields):
    """A Model of one layer and random variables."""
    model = Model(**{"vocabulary": VOCABULARY, "width": 24, "depth": 1, "heads": 3, "mlp_width": 40, **fields})
    return model, parity.random_variables(model, x)


@pytest.fixture(scope="module", params=POOLS)
def pair(request, tmp_path_factory):
    """Name, original and the folder that it was saved in."""
    folder, network = tmp_path_factory.mktemp(request.param), original(request.param)
    network.save_pretrained(folder)
    return request.param, network, folder


@pytest.mark.parametrize("length", [POSITIONS, 11, 1])
def test_features_are_those_of_the_original(pair, length):
    name, network, folder = pair
    padded, full = texts(length), texts(length, [length] * 3, seed=1)
    apply, variables = converted(POOLS[name], folder, padded)
    for x in (padded, full):
        for pool, found in apply(variables, x).items():
            expected = features_of(network, x, pool).detach().numpy()
            assert 0.3 < np.abs(expected).max() < 10  # of order 1
            assert_allclose(found, expected, rtol=0, atol=2e-5, err_msg=pool)


def test_gradients_are_those_of_the_original(pair, tmp_path):
    name, network, _ = pair
    pool = {"DistilBertModel": "mean", "ElectraModel": "mean", "CLIPTextModelWithProjection": "last"}.get(
        name, "pooler"
    )
    x = texts(11)
    parity.assert_same_gradients("bert", network, features_of(network, x, pool), x, tmp_path, pool=pool)


@pytest.mark.parametrize("act", ["gelu", "gelu_new", "gelu_pytorch_tanh", "quick_gelu", "relu"])
def test_activations(act, tmp_path):
    network, x = original("BertModel", hidden_act=act, intermediate_size=64), texts(8)
    network.save_pretrained(tmp_path)
    assert_same_features(tmp_path, x, features_of(network, x, "cls"))


@pytest.mark.parametrize("name", ["BertModel", "ElectraModel"])
def test_a_decoder_sees_the_past_only(name, tmp_path):
    network, x = original(name, is_decoder=True), texts(8)
    network.save_pretrained(tmp_path)
    assert_same_features(tmp_path, x, features_of(network, x, "cls"))


@pytest.mark.parametrize(
    "name",
    [
        "BertModel",
        "BertForPreTraining",
        "BertForMaskedLM",
        "BertForSequenceClassification",
        "BertForQuestionAnswering",
        "RobertaModel",
        "RobertaForMaskedLM",
        "RobertaForSequenceClassification",
        "XLMRobertaForMaskedLM",
        "ElectraModel",
        "ElectraForPreTraining",
        "ElectraForMaskedLM",
        "ElectraForSequenceClassification",
        "DistilBertModel",
        "DistilBertForMaskedLM",
        "DistilBertForSequenceClassification",
        "CLIPTextModel",
        "CLIPTextModelWithProjection",
    ],
)
def test_every_class_converts_and_loads_again_what_is_exported(name, tmp_path):
    network, x = original(name), texts(9)
    network.save_pretrained(tmp_path / "original")
    base = getattr(network, network.base_model_prefix, network)
    with_projection = network if name.endswith("WithProjection") else base
    pool = "last" if name.startswith("CLIP") else "cls"
    assert_same_features(tmp_path / "original", x, features_of(with_projection, x, pool))
    parity.assert_export_is_the_original("bert", network, tmp_path / "original", tmp_path)


@pytest.mark.parametrize(
    "sizes",
    [
        {"embedding_size": 24},  # as in ELECTRA-base: no projection
        {"embedding_size": 32, "hidden_size": 16, "num_attention_heads": 4, "num_hidden_layers": 3},
        {"embedding_size": 128, "hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 1024},
    ],
)
def test_sizes_of_electra(sizes, tmp_path):
    network, x = original("ElectraModel", **sizes), texts(9)
    if sizes.get("hidden_size", 0) > 100:
        parity.redraw(network, scale=0.05)
    network.save_pretrained(tmp_path / "original")
    assert_same_features(tmp_path / "original", x, features_of(network, x, "cls"))
    parity.assert_export_is_the_original("bert", network, tmp_path / "original", tmp_path)


def test_an_electra_that_its_config_contradicts_is_refused(tmp_path):
    original("ElectraModel").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "embedding_size": 24}))
    with pytest.raises(UserError, match=r"config\.json has embedding_size = 24, and this checkpoint's is 14"):
        parity.features("bert", tmp_path, texts(8))
    (tmp_path / "config.json").unlink()
    with pytest.raises(UserError, match="16 positions and 2 segments may be BERT or RoBERTa"):
        parity.features("bert", tmp_path, texts(8))


def test_of_a_whole_clip_the_text_tower_is_taken(tmp_path):
    network, x = original("CLIPModel"), texts(9)
    network.save_pretrained(tmp_path / "original")
    lengths = torch.from_numpy(x["length"])[:, None]
    mask = (torch.arange(9)[None] < lengths).long()
    expected = network.get_text_features(torch.from_numpy(x["tokens"]).long(), mask).pooler_output
    assert_same_features(tmp_path / "original", x, expected)

    exported = parity.export_roundtrip("bert", tmp_path / "original", tmp_path)
    tensors = load_file(tmp_path / "original" / "model.safetensors")
    assert exported.keys() == {name for name in tensors if name.startswith("text_")}


def test_old_files_name_the_norms_gamma_and_beta(tmp_path):
    network, x = original("BertForPreTraining"), texts(9)
    state = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
        for name, value in network.state_dict().items()
    }
    torch.save(state, tmp_path / "pytorch_model.bin")
    network.config.save_pretrained(tmp_path)
    assert_same_features(tmp_path, x, features_of(network.bert, x, "cls"))

    exported = parity.export_roundtrip("bert", tmp_path, tmp_path)
    assert exported.keys() == state.keys()
    parity.assert_loads_again(network, tmp_path / "exported")


def test_without_config_the_published_sizes_need_the_number_of_heads_only(tmp_path):
    network, x = original("RobertaForSequenceClassification", max_position_embeddings=514), texts(9)
    state = {f"module.{name}": value for name, value in network.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "best.pth")
    with pytest.raises(UserError, match="heads cannot be read from the tensors' shapes"):
        parity.features("bert", tmp_path / "best.pth", x)
    assert_same_features(tmp_path / "best.pth", x, features_of(network.roberta, x, "cls"), heads=3)


def test_options_of_speed_change_no_feature_and_no_gradient(tmp_path):
    original("BertModel").save_pretrained(tmp_path)
    x = texts(11)

    def run(**given):
        model, variables = parity.load("bert", tmp_path, x, **given)

        def loss(variables):
            features = model.apply(variables, x)
            return (features**2).sum(), features

        gradients, features = jax.jit(jax.grad(loss, has_aux=True))(variables)
        return features, gradients["params"]["embeddings"]

    expected, gradients = run()
    found, found_gradients = run(fused_qkv=False, scan=True, remat=True)
    assert_allclose(found, expected, rtol=0, atol=1e-5)
    for table, gradient in gradients.items():
        assert_allclose(found_gradients[table], gradient, rtol=0, atol=1e-4 * np.abs(gradient).max())

    found, _ = run(dtype="bfloat16")
    parity.assert_close_in_bfloat16(found, expected)


def test_features_of_unit_length():
    x = texts(11)
    model, variables = small(x, pool="mean")
    features = model.apply(variables, x)
    expected = torch.nn.functional.normalize(torch.from_numpy(np.array(features))).numpy()
    assert_allclose(model.clone(unit_length=True).apply(variables, x), expected, rtol=1e-5)
    of_nothing, gradient = jax.value_and_grad(lambda y: of_unit_length(y).sum())(np.zeros((2, 3), np.float32))
    assert of_nothing == 0 and np.isfinite(gradient).all()


def test_nothing_but_the_first_tokens_matters(pair):
    """Not the ids of padding, not how much of it there is, not the mask."""
    name, _, folder = pair
    x = texts(11)
    padding = np.arange(11) >= x["length"][:, None]
    other = {**x, "tokens": np.where(padding, VOCABULARY - 1 - x["tokens"], x["tokens"])}
    shorter = {**x, "tokens": x["tokens"][:, :9]}
    apply, variables = converted(POOLS[name], folder, x)
    features = apply(variables, x)
    jax.tree.map(assert_array_equal, apply(variables, other), features)
    jax.tree.map(assert_array_equal, apply(variables, x, mask=np.array([True, False, True])), features)
    jax.tree.map(lambda a, b: assert_allclose(a, b, rtol=0, atol=1e-5), apply(variables, shorter), features)


def test_absent_rows_are_finite_and_change_no_other():
    x = texts(8)
    model, variables = small(x, pool="pooler")

    def apply(variables, x):
        return {pool: model.clone(pool=pool).apply(variables, x) for pool in POOLS["BertModel"]}

    parity.assert_absent_rows_are_finite_and_change_no_other(apply, variables, x, model.width)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"positions": 7}, "texts of 8 tokens do not fit into 7 positions"),
        ({"heads": 5}, "width = 24 is not a multiple of heads = 5"),
        ({"pool": "max"}, "pool = 'max', use one of cls, pooler, mean, last"),
        ({"activation": "swish"}, "activation = 'swish', use one of gelu, "),
    ],
)
def test_fields_that_cannot_be(fields, message):
    with pytest.raises(UserError, match=message) as error:
        small(texts(8), **fields)
    assert "\n" not in str(error.value)


def test_an_image_is_no_text():
    with pytest.raises(UserError, match="the input is no text"):
        small(np.zeros((2, 8, 8, 3)))


def test_an_id_beyond_the_vocabulary_does_not_pass_for_another_word():
    x = texts(8)
    x["tokens"][1, 2] = VOCABULARY
    model, variables = small(x)
    features = jax.jit(model.apply)(variables, x)
    assert_array_equal(np.isnan(features).all(axis=1), [False, True, False])


def fields_of(name, without_config=False, **changes):
    """What the table of a tiny model reads, with changes to its config.json or without one."""
    network = original(name)
    config = {} if without_config else json.loads(network.config.to_json_string()) | changes
    shapes = {key.removeprefix("bert."): tuple(value.shape) for key, value in network.state_dict().items()}
    table = next(table for table in FORMATS if shapes.keys() >= set(table.markers))
    return table.fields(Source(shapes, config))


def test_what_neither_config_nor_shapes_say_is_left_to_the_user():
    with pytest.raises(UserError, match="16 positions and 2 segments may be BERT or RoBERTa"):
        fields_of("BertModel", without_config=True)
    fields = fields_of("DistilBertModel", without_config=True)
    assert fields["heads"] is None and fields["depth"] == 2 and fields["mlp_width"] == 40
    fields = fields_of("CLIPTextModelWithProjection", without_config=True)
    assert fields["heads"] is None and fields["activation"] is None and fields["projection"] == 10


@pytest.mark.parametrize("rows, segments, offset, epsilon", [(512, 2, 0, 1e-12), (514, 1, 2, 1e-5)])
def test_published_sizes_tell_bert_from_roberta(rows, segments, offset, epsilon):
    shapes = {
        "embeddings.word_embeddings.weight": (99, 24),
        "embeddings.position_embeddings.weight": (rows, 24),
        "embeddings.token_type_embeddings.weight": (segments, 24),
        "encoder.layer.0.intermediate.dense.weight": (40, 24),
    }
    fields = FORMATS[0].fields(Source(shapes, {}))
    assert (fields["positions"], fields["position_offset"], fields["epsilon"]) == (512, offset, epsilon)
    assert fields["heads"] is None


@pytest.mark.parametrize(
    "name, changes, message",
    [
        ("BertModel", {"position_embedding_type": "relative_key"}, "position_embedding_type 'relative_key' is not"),
        ("BertModel", {"hidden_act": "silu"}, "activation 'silu' is not supported, only gelu, gelu_new, "),
        ("DistilBertModel", {"activation": "tanh"}, "activation 'tanh' is not supported, only gelu, gelu_new, "),
    ],
)
def test_configs_of_what_the_model_cannot_do(name, changes, message):
    with pytest.raises(UserError, match=message) as error:
        fields_of(name, **changes)
    assert "\n" not in str(error.value)


def test_the_config_of_a_whole_clip_nests_that_of_the_text_tower():
    sizes = {"hidden_size": 24, "num_hidden_layers": 2, "intermediate_size": 40, "max_position_embeddings": POSITIONS}
    fields = fields_of("CLIPModel", text_config={**sizes, "num_attention_heads": 2, "hidden_act": "gelu"})
    assert (fields["heads"], fields["activation"], fields["epsilon"]) == (2, "gelu", 1e-5)
    fields = fields_of(
        "CLIPModel", text_config={"hidden_act": "gelu"}, text_config_dict={**sizes, "num_attention_heads": 4}
    )
    assert (fields["heads"], fields["activation"]) == (4, "quick_gelu")
