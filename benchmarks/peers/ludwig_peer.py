"""Ludwig at its defaults: encoders from scratch, joined by its concatenating combiner."""

import pandas as pd
from ludwig.api import LudwigModel

from benchmarks.peers.protocol import Predict, Settings, Table, take_part


def fit(table: Table, settings: Settings) -> Predict:
    """Fits until validation gets no better; Ludwig has no time limit."""
    inputs = [{"name": column, "type": type} for column, type in table.types.items()]
    outputs = [{"name": table.label, "type": "category"}]
    model = LudwigModel({"input_features": inputs, "output_features": outputs})
    model.train(
        training_set=table.parts["train"],
        validation_set=table.parts["validation"],
        test_set=table.parts["test"],
        output_directory=str(settings.folder),
        skip_save_processed_input=True,
        random_seed=0,
    )

    def predict(rows: pd.DataFrame) -> list[str]:
        found, _ = model.predict(rows, skip_save_predictions=True)
        return found[f"{table.label}_predictions"].astype(str).tolist()

    return predict


if __name__ == "__main__":
    take_part(fit)
