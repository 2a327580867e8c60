"""AutoGluon's MultiModalPredictor (AutoMM), at its defaults but for the encoders where a BERT is given."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import timm
import torch
from autogluon.multimodal import MultiModalPredictor

from benchmarks.peers.protocol import Predict, Settings, Table, take_part

NAMES = {"text": "hf_text", "image": "timm_image", "number": "numerical_mlp", "category": "categorical_mlp"}
IMAGE = "resnet18"  # from scratch


def fit(table: Table, settings: Settings) -> Predict:
    """Fits within the time limit."""
    model = MultiModalPredictor(label=table.label, path=str(settings.folder / "model"), verbosity=1)
    model.fit(
        train_data=table.parts["train"],
        tuning_data=table.parts["validation"],
        column_types=_types(table),
        time_limit=settings.seconds,
        hyperparameters=_hyperparameters(table, settings),
        seed=0,
    )

    def predict(rows: pd.DataFrame) -> list[str]:
        return model.predict(rows, as_pandas=False)

    return predict


def _types(table: Table) -> dict[str, str]:
    names = {"number": "numerical", "category": "categorical", "image": "image_path"}
    return {column: names.get(type, type) for column, type in table.types.items()}


def _hyperparameters(table: Table, settings: Settings) -> dict[str, Any]:
    found = {"env.num_workers": 0, "env.num_workers_inference": 0}
    if settings.text is None:
        return found
    parts = [name for type, name in NAMES.items() if table.of_type(type)]
    found["model.names"] = [*parts, "fusion_mlp"] if len(parts) > 1 else parts
    if "hf_text" in parts:
        found["model.hf_text.checkpoint_name"] = str(settings.text)
    if "timm_image" in parts:
        found["model.timm_image.checkpoint_name"] = str(_untrained(settings.folder / IMAGE))
    return found


def _untrained(folder: Path) -> Path:
    """A folder as timm's checkpoints are, with weights as they are initialised."""
    folder.mkdir(parents=True, exist_ok=True)
    model = timm.create_model(IMAGE, pretrained=False, num_classes=0)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    config = {"architecture": IMAGE, "num_features": model.num_features, "pretrained_cfg": model.pretrained_cfg}
    (folder / "config.json").write_text(json.dumps(config, default=str), encoding="utf-8")
    return folder


if __name__ == "__main__":
    take_part(fit)
