"""Training step of ViT-B/16 and BERT-base in late fusion: ours against the same model in PyTorch.

python -m benchmarks.vision_language_step [--batch=N] [--precision=fp32] [--xla=OPTION=VALUE]
    [--attention=cudnn] [--quick]

Images of 224x224 pixels beside 40 tokens, missing augmentation by thirds, a linear head, cross-entropy, gradients
clipped per encoder, AdamW. PyTorch runs `transformers`' ViTModel and BertModel, bfloat16 by autocast, and on a GPU
`torch.compile`d too. Its weights are converted to ours; on rows of one modality each, where both draw the same masks,
both must then have the same float32 loss, in a first step and after its update. Then all steps take turns, on one batch
that lies on the device. float32 is float32 here, not TF32. FLOPs are XLA's count for our float32 step; PyTorch's, which
computes the same, is credited with those of the random layout.

Needs `pip install -e '.[torch]'`. One row more, for options of XLA:
--xla=xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_DOT,LIBRARY_FUSION_TYPE_ELTWISE,LIBRARY_FUSION_TYPE_REDUCE
"""

import types
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks import late_fusion_step, workload
from umemma_jax.data.kinds import Modality

PyTree = Any

IMAGE = Modality(kind="image", encoding="jpeg", mean=(127.5,) * 3, std=(127.5,) * 3)
CLASSES, SIDE, TOKENS = 101, 224, 40  # as of UPMC Food101
SMALL_SIDE = 32
SMALL = {"hidden_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 96}


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line."""
    task = late_fusion_step.Task(
        encoders="ViT and BERT",
        families={"image": "vit", "text": "bert"},
        modalities={"image": IMAGE, "text": Modality(kind="text", encoding="utf-8")},
        preprocess={},
        classes=CLASSES,
        layouts=("random", "stratified"),
        pytorch_encoders=pytorch_encoders,
        batch=example_batch,
    )
    late_fusion_step.compare(task, late_fusion_step.parse(__doc__, argv))


def pytorch_encoders(pytorch: types.ModuleType, quick: bool) -> Mapping[str, Any]:
    """By fields of `transformers`' ViTConfig and BertConfig, whose defaults are ViT-B/16 and BERT-base."""
    vit = {**SMALL, "image_size": SMALL_SIDE, "patch_size": 8} if quick else {}
    bert = {**SMALL, "vocab_size": 200} if quick else {}
    return {"image": pytorch.ViT(IMAGE, **vit), "text": pytorch.Bert(**bert)}


def example_batch(batch_size: int, quick: bool) -> PyTree:
    """A training batch of noise, with texts of several lengths, as NumPy arrays."""
    rng = np.random.default_rng(0)
    side = SMALL_SIDE if quick else SIDE
    text = {
        "tokens": rng.integers(1, 200, (batch_size, TOKENS)).astype(np.int32),
        "length": rng.integers(8, TOKENS, batch_size, endpoint=True).astype(np.int32),
    }
    return {
        "inputs": {"image": rng.integers(0, 256, (batch_size, side, side, 3), np.uint8), "text": text},
        "present": np.ones((batch_size, 2), bool),
        "label": rng.integers(0, CLASSES, batch_size).astype(np.int32),
        "weight": np.ones(batch_size, np.float32),
    }


if __name__ == "__main__":
    workload.run(main)
