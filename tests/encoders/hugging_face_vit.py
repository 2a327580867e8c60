"""Hugging Face's Vision Transformers in tiny sizes, images for them, and their features."""

import torch
import transformers

from tests.encoders import parity

SIZES = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 40}
VISION = {**SIZES, "image_size": 32, "patch_size": 8}
TEXT = {**SIZES, "vocab_size": 10, "max_position_embeddings": 5}
CLIP = {"vision_config": VISION, "text_config": TEXT, "projection_dim": 10}
TINY = {
    "ViTMSN": (transformers.ViTMSNConfig, VISION),
    "ViTMAE": (transformers.ViTMAEConfig, {**VISION, "mask_ratio": 0.0}),
    "ViT": (transformers.ViTConfig, VISION),
    "DeiT": (transformers.DeiTConfig, VISION),
    "CLIPVision": (transformers.CLIPVisionConfig, {**VISION, "projection_dim": 10}),
    "CLIP": (transformers.CLIPConfig, CLIP),
}


def original(name, pooler=True, **config):
    """A tiny model of a Hugging Face class, every parameter drawn anew."""
    config_class, sizes = next(value for key, value in TINY.items() if name.startswith(key))
    options = {} if pooler else {"add_pooling_layer": False}
    return parity.redraw(getattr(transformers, name)(config_class(**{**sizes, **config}), **options))


def images(height=32, width=32, channels=3, batch=3, seed=0):
    return parity.normal(batch, height, width, channels, seed=seed)


def features_of(network, x, pool="cls", **options):
    """What the original makes of images, pooled here where it has no output of its own for that."""
    pixels = torch.from_numpy(x.transpose(0, 3, 1, 2))
    if type(network).__name__ == "CLIPModel":
        return network.get_image_features(pixels, **options).pooler_output
    output = network(pixels, **options)
    if pool == "cls" and "image_embeds" in output:
        return output.image_embeds
    hidden = output.last_hidden_state
    if type(network).__name__ == "CLIPVisionModel":
        return output.pooler_output if pool == "cls" else network.post_layernorm(hidden[:, 1:].mean(1))
    if type(network).__name__ == "CLIPVisionModelWithProjection":
        return network.visual_projection(network.vision_model.post_layernorm(hidden[:, 1:].mean(1)))
    prefix = 2 if type(network).__name__.startswith("DeiT") else 1
    return (hidden[:, :prefix] if pool == "cls" else hidden[:, prefix:]).mean(1)
