"""Which of timm's and transformers' architectures are taken for ours, and whether they compute what ours do.

python -m benchmarks.sweep_architectures [timm] [transformers] [--numerics] [--only=REGEX]

Every architecture is built without memory for its weights (PyTorch's `meta` device), and its names, shapes and
config.json are shown to the tables of every encoder. With `--numerics`, those that are accepted are made again with two
layers and random weights, converted, and compared with the original on random inputs. Bare, without a config.json, they
are counted too: there, tensors alone cannot always tell what they are of. Needs timm (and torchvision), which is no
dependency.
"""

import argparse
import collections
import contextlib
import json
import re
import sys
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch

from umemma_jax.errors import UserError
from umemma_jax.model import encoder_module
from umemma_jax.weights import convert
from umemma_jax.weights.files import Weights
from umemma_jax.weights.pretrained import Converted

FAMILIES = ("ast", "audionet", "bert", "resnet", "vit")
MAPPINGS = ("MODEL", "IMAGE_CLASSIFICATION", "AUDIO_CLASSIFICATION", "SEQUENCE_CLASSIFICATION", "MASKED_LM")
MAPPINGS += ("PRETRAINING", "TEXT_ENCODING", "BACKBONE")
LARGEST = 1e-4  # difference, by the standard deviation of the features
SMALL = {"num_hidden_layers": 2, "n_layers": 2, "max_length": 128}

Architecture = tuple[str, dict[str, tuple[int, ...]], dict[str, Any]]


def timms(only: str) -> Iterator[Architecture]:
    """Name, shapes and config.json of all that timm lists."""
    import timm

    for name in timm.list_models():
        if re.search(only, name):
            with torch.device("meta"):
                network = timm.create_model(name)
            yield name, shapes_of(network.state_dict()), card_of(network)


def card_of(network: Any, **arguments: Any) -> dict[str, Any]:
    """The config.json that timm writes of a model."""
    from timm.models._hub import save_config_for_hf

    with tempfile.TemporaryDirectory() as folder:
        save_config_for_hf(network, Path(folder, "config.json"), model_args=arguments or None)
        return json.loads(Path(folder, "config.json").read_text())


def transformers_models(only: str) -> Iterator[Architecture]:
    """Class, shapes and config.json of all of the automatic classes whose default config can be built."""
    from transformers.core_model_loading import revert_weight_conversion

    for name, (network_class, config_class) in sorted(transformers_classes().items()):
        if not re.search(only, name):
            continue
        with contextlib.suppress(Exception):  # some need other packages, or have no default config
            with torch.device("meta"):
                network = network_class(config_class())
            state = network.state_dict()
            with contextlib.suppress(Exception):  # few cannot be named as in files on this device
                state = revert_weight_conversion(network, dict(state))
            network.config.architectures = [name]
            yield name, shapes_of(state), json.loads(network.config.to_json_string())


def transformers_classes() -> dict[str, tuple[type, type]]:
    """Name -> (class, class of its config)."""
    from transformers.models.auto import modeling_auto

    found = {}
    for task in MAPPINGS:
        prefix = "MODEL" if task == "MODEL" else f"MODEL_FOR_{task}"
        mapping = getattr(modeling_auto, f"{prefix}_MAPPING", {})
        for config_class in list(mapping):
            with contextlib.suppress(Exception):
                classes = mapping[config_class]
                for network_class in classes if isinstance(classes, tuple) else (classes,):
                    found[network_class.__name__] = network_class, config_class
    return found


def shapes_of(state: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """Shapes of tensors by name."""
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def taken_by(shapes: dict[str, tuple[int, ...]], config: dict[str, Any]) -> tuple[list[str], str]:
    """The families that take a checkpoint; and an exception that is no refusal, or empty."""
    found = []
    for family in FAMILIES:
        opened = Weights((Path("folder/model.safetensors"),), config, shapes, {})
        try:
            convert.make_plan(family, opened, {}, "folder")
            found.append(family)
        except UserError:
            pass
        except Exception as error:
            return found, f"{family}: {type(error).__name__}: {error}"
    return found, ""


# --- numerics ---------------------------------------------------------------------------------------------------------


def timm_pair(name: str, family: str, folder: Path) -> tuple[np.ndarray, torch.Tensor]:
    """An input, and the features that a small model of this architecture makes of it; its weights are saved."""
    import timm

    del family  # which the name decides

    arguments = {}
    if "patch" in name:
        patch = int(re.search(r"patch(\d+)", name)[1])
        arguments = {"depth": 2, "img_size": 4 * patch}
    network = redrawn(timm.create_model(name, **arguments))
    save(network.state_dict(), card_of(network, **arguments), folder)
    side = arguments.get("img_size", 64)
    x = normal(2, side, side, 3)
    return x, network.forward_head(network.forward_features(channels_first(x)), pre_logits=True)


def transformers_pair(name: str, family: str, folder: Path) -> tuple[Any, torch.Tensor]:
    """As `timm_pair`, of a class of transformers."""
    network_class, config_class = transformers_classes()[name]
    config = config_class()
    parts = [getattr(config, part) for part in ("vision_config", "text_config") if hasattr(config, part)]
    for part in (config, *parts):
        for key in SMALL.keys() & vars(part).keys():
            setattr(part, key, SMALL[key])
    if hasattr(config, "mask_ratio"):
        config.mask_ratio = 0.0
    network = redrawn(network_class(config))
    network.save_pretrained(folder)
    base = getattr(network, network.base_model_prefix, network)
    kind = config.model_type
    if kind == "audio-spectrogram-transformer":
        x = normal(2, config.max_length, config.num_mel_bins)
        return x, base(torch.from_numpy(x)).last_hidden_state[:, :2].mean(1)
    if family in ("vit", "resnet"):
        side = 64 if family == "resnet" else getattr(parts[0] if parts else config, "image_size", 224)
        x = normal(2, side, side, 3)
        if kind == "timm_wrapper":
            timm_model = network.timm_model
            return x, timm_model.forward_head(timm_model.forward_features(channels_first(x)), pre_logits=True)
        if kind == "clip" and hasattr(network, "get_image_features"):
            return x, network.get_image_features(channels_first(x)).pooler_output
        output = getattr(base, "vision_model", base)(channels_first(x))
        if kind in ("resnet", "clip", "clip_vision_model"):
            return x, getattr(output, "image_embeds", output.pooler_output).flatten(1)
        return x, output.last_hidden_state[:, : 2 if kind == "deit" else 1].mean(1)
    tokens = np.random.default_rng(0).integers(5, 1000, (2, 12)).astype(np.int32)
    if kind.startswith("clip"):  # whose feature is that of the end of the text
        tokens[:, -1] = (parts[-1] if parts else config).eos_token_id
    x = {"tokens": tokens, "length": np.full(2, 12, np.int32)}
    if hasattr(network, "get_text_features"):
        return x, network.get_text_features(torch.from_numpy(tokens).long()).pooler_output
    output = base(torch.from_numpy(tokens).long())
    if "text_embeds" in output:
        return x, output.text_embeds
    return x, output.last_hidden_state[:, -1 if kind.startswith("clip") else 0]


def redrawn(network: Any) -> Any:
    """The network with every parameter and statistic random, of a scale that keeps features of order 1."""
    torch.manual_seed(0)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if not tensor.is_floating_point():
                continue
            near_one = name.endswith("running_var") or (tensor.ndim == 1 and name.endswith("weight"))
            scale = (2 / tensor[0].numel()) ** 0.5 if tensor.ndim > 1 else 0.2
            noise = torch.randn(tensor.shape) * scale
            tensor.copy_(1 + noise.clamp(-0.5, 0.5) if near_one else noise)
    return network.eval()


def save(state: dict[str, Any], config: dict[str, Any], folder: Path) -> None:
    """Writes weights and config.json."""
    from safetensors.torch import save_file

    save_file({name: tensor.contiguous() for name, tensor in state.items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))


def normal(*shape: int) -> np.ndarray:
    """Normally distributed float32."""
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def channels_first(x: np.ndarray) -> torch.Tensor:
    """[B, H, W, C] -> [B, C, H, W]."""
    return torch.from_numpy(x.transpose(0, 3, 1, 2).copy())


@torch.no_grad()
def difference(pair: Any, name: str, family: str) -> float:
    """Largest difference between our features and the original's, by the standard deviation of the latter."""
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        (folder / "theirs").mkdir()
        x, expected = pair(name, family, folder / "theirs")
        card = convert.convert(family, folder / "theirs", folder / "ours")
        model = encoder_module(family).Model(**card.fields)
        like = jax.eval_shape(model.init, jax.random.key(0), x)
        found = jax.jit(model.apply)(Converted(folder / "ours").fit(like), x)
    return float(np.abs(np.asarray(found) - expected.numpy()).max() / expected.numpy().std())


LIBRARIES = {"timm": (timms, timm_pair), "transformers": (transformers_models, transformers_pair)}


def main() -> int:
    """Prints counts, and what is wrong; 1 where an architecture is accepted that computes something else."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("libraries", nargs="*", metavar="LIBRARY", help=", ".join(LIBRARIES))
    parser.add_argument("--numerics", action="store_true", help="compare what is accepted with the original")
    parser.add_argument("--only", default="", help="names that this regular expression finds")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    wrong = []
    for library in arguments.libraries or LIBRARIES:
        architectures, pair = LIBRARIES[library]
        taken, counts = collections.defaultdict(dict), collections.Counter()
        for name, shapes, config in architectures(arguments.only):
            for kind, stated in (("with config.json", config), ("bare", {})):
                families, error = taken_by(shapes, stated)
                counts[kind, "accepted" if families else "error" if error else "refused"] += 1
                taken[kind] |= {name: families} if families else {}
                wrong += [f"{name}, {kind}: {error}"] if error else []
        print(f"{library}: {dict(counts)}", flush=True)
        stated, bare = taken["with config.json"], taken["bare"]
        print(f"  accepted: {', '.join(stated)}\n  bare alone: {', '.join(bare.keys() - stated.keys())}", flush=True)
        pairs = [(name, family) for name, families in stated.items() for family in families]
        for name, family in pairs if arguments.numerics else ():
            found = difference(pair, name, family)
            print(f"  {name}, {family}: {found:.1e}", flush=True)
            if not found < LARGEST:
                wrong.append(f"{name}, {family}: {found:.1e} standard deviations off")
    print("\n".join(["wrong:", *wrong] if wrong else ["none wrongly accepted"]))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
