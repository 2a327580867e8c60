"""umemma_jax: the preset that learns from scratch, or the one with pre-trained encoders where a BERT is given."""

import pandas as pd

import umemma_jax as um
from benchmarks.peers.protocol import Predict, Settings, Table, take_part


def fit(table: Table, settings: Settings) -> Predict:
    """Fits within the time limit."""
    texts = [m for m, columns in table.modalities.items() if table.types[columns[0]] == "text"]
    given = settings.text is not None and texts
    model = um.fit(
        table.parts["train"],
        table.label,
        settings.folder / "run",
        validation=table.parts["validation"],
        test=table.parts["test"],
        columns=table.types,
        modalities=table.modalities,
        preset="base" if given else "small",
        checkpoints=dict.fromkeys(texts, str(settings.text)) if given else "",
        time_limit=settings.seconds,
    )

    def predict(rows: pd.DataFrame) -> list[str]:
        return [answer.prediction for answer in model.predict(rows)]

    return predict


if __name__ == "__main__":
    take_part(fit)
