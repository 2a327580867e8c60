"""Checkpoints on the Hugging Face Hub: fetched where their address is given, and never otherwise."""

import os
from pathlib import Path

from umemma_jax.data import tokenizer
from umemma_jax.errors import UserError
from umemma_jax.weights import files

SCHEME = "hf://"
WANTED = ("*.safetensors", "*.safetensors.index.json", files.CONFIG, "preprocessor_config.json", *tokenizer.FILES)
PICKLES = ("pytorch_model*.bin", "pytorch_model.bin.index.json")


def local(path: str | os.PathLike) -> Path:
    """The folder of a checkpoint: `hf://OWNER/NAME[@REVISION]` is downloaded, once; anything else is a path already.

    Raises:
      UserError: it cannot be had, with what the Hub says.
    """
    if not str(path).startswith(SCHEME):
        return Path(path)
    name, _, revision = str(path).removeprefix(SCHEME).partition("@")
    import huggingface_hub  # here, since it takes long to load
    from huggingface_hub import errors

    try:
        fetched = huggingface_hub.snapshot_download(name, revision=revision or None, allow_patterns=list(WANTED))
        if not any(Path(fetched).glob("*.safetensors")):
            fetched = huggingface_hub.snapshot_download(
                name, revision=revision or None, allow_patterns=[*WANTED, *PICKLES]
            )
    except (errors.HfHubHTTPError, errors.HFValidationError, errors.LocalEntryNotFoundError, OSError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{path}: cannot be fetched ({reason}): see to the name and the network, or name a folder with the files"
        ) from error
    return Path(fetched)
