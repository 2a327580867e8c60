"""`python -m umemma_jax.encoders`: what can be converted, and what a checkpoint is."""

import json

import pytest

from tests.encoders import parity
from umemma_jax.encoders.__main__ import listing, main
from umemma_jax.errors import UserError
from umemma_jax.weights import convert, files

RESNET18 = {
    "embedding_size": 64,
    "hidden_sizes": [64, 128, 256, 512],
    "depths": [2, 2, 2, 2],
    "layer_type": "basic",
}


def test_every_format_of_every_family_is_listed(capsys):
    main([])
    assert capsys.readouterr().out.splitlines() == list(listing())
    assert {"bert: Hugging Face ELECTRA", "vit: timm ViT"} <= set(listing())


@pytest.mark.parametrize(
    "name, sizes, kind",
    [
        ("Bert", {}, "Hugging Face BERT, RoBERTa"),
        ("Electra", {"embedding_size": 14}, "Hugging Face ELECTRA"),
        ("ResNet", RESNET18, "Hugging Face ResNet"),
    ],
)
def test_a_checkpoint_is_what_converting_it_says(name, sizes, kind, tmp_path, capsys):
    transformers = pytest.importorskip("transformers")
    small = {"vocab_size": 61, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3}
    config = getattr(transformers, f"{name}Config")(**({} if name == "ResNet" else small), **sizes)
    getattr(transformers, f"{name}Model")(config).save_pretrained(tmp_path / "original")
    main([str(tmp_path / "original")])
    line = capsys.readouterr().out
    family = "resnet" if name == "ResNet" else "bert"
    card = convert.convert(family, tmp_path / "original", tmp_path / "converted")
    assert f"original: {kind}, {card.parameters:,} parameters, loads as {family} (" in line
    assert card.format == kind and all(f"{field}={value}" in line for field, value in card.fields.items())


def test_what_no_encoder_takes_ends_in_one_line(tmp_path):
    files.write_safetensors(tmp_path / "model.safetensors", ["other.weight"], [parity.normal(3, 4)])
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "other"}))
    with pytest.raises(UserError, match=r"is no checkpoint of .*bert.* or vit: name another one") as error:
        main([str(tmp_path)])
    assert "\n" not in str(error.value)
