"""A checkpoint's own tokenizer: from a batch of texts to token ids, on the host.

Read from what checkpoints come with: `tokenizer.json`, or BERT's `vocab.txt`, or the `vocab.json` and `merges.txt` of
RoBERTa and CLIP; beside each, `tokenizer_config.json` (or, older, `special_tokens_map.json`) overrules the defaults of
its class, and it or `added_tokens.json` adds tokens; `sentence_bert_config.json` may ask for small letters.
"""

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors

from umemma_jax.data import documents
from umemma_jax.data.remote import Location, RemotePath, locate
from umemma_jax.errors import UserError

TOKENIZER = "tokenizer.json"
_VOCAB_TXT, _VOCAB_JSON, _MERGES_TXT = "vocab.txt", "vocab.json", "merges.txt"
_CONFIG, _SPECIALS = "tokenizer_config.json", "special_tokens_map.json"
_ADDED, _SENTENCE = "added_tokens.json", "sentence_bert_config.json"
# All that a tokenizer may be read from.
FILES = (TOKENIZER, _CONFIG, _SPECIALS, _ADDED, _SENTENCE, _VOCAB_TXT, _VOCAB_JSON, _MERGES_TXT)
_WORD_PIECE_CLASSES = ("BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer", "MobileBertTokenizer")
_BYTE_PAIR_CLASSES = ("RobertaTokenizer", "CLIPTokenizer")
# Batches are made in threads of ours: the library's would compete with the step, and a forked process lacks them.
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
_PADDING_TOKENS = ("[PAD]", "<pad>", "<|endoftext|>")

# CLIP's words: its two special tokens, English contractions, letters, single digits, runs of anything else.
_CLIP_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


class Tokenizer:
    """Makes the same tokens of a text as the checkpoint's original tokenizer.

    Picklable, and safe to use from several threads, which run side by side: the library's call for batches lets go of
    the interpreter's lock, that for one text does not.

    Attributes:
      path: what was loaded.
      files: that were read; a folder with copies of them loads as the same tokenizer.
      fingerprint: SHA-256 of their contents, one after the other.
      vocabulary: the largest token id plus 1; an encoder's embedding needs as many rows.
      pad: id of the padding token.
      specials: number of special tokens that each text gets.
    """

    def __init__(self, library: tokenizers.Tokenizer, pad: int, path: Location, files: "_Files") -> None:
        """Raises Exception, as the library does, if it cannot encode."""
        self.path = path
        self.files = tuple(files.read)
        self.fingerprint = files.fingerprint()
        self.pad = pad
        self.vocabulary = max(library.get_vocab().values()) + 1
        self._library = library
        self._start, self._end = _special_ids(library)
        self.specials = len(self._start) + len(self._end)

    def check_length(self, length: int) -> None:
        """Raises ValueError if `length` tokens hold none of the text."""
        if length <= self.specials:
            raise ValueError(
                f"a length of {length} tokens has no room for text beside {self.specials} special tokens: "
                f"use {self.specials + 1} or more"
            )

    def encode(self, texts: Sequence[str], length: int) -> dict[str, np.ndarray]:
        """Token ids of B texts, special tokens included.

        Args:
          texts: any, the empty one too.
          length: T. What is longer is cut before the special tokens at the end, what is shorter is padded at the end.

        Returns:
          {"tokens": int32 [B, T], "length": int32 [B], the tokens that are not padding}.

        Raises:
          ValueError: T is too small for the special tokens and one other.
        """
        self.check_length(length)
        tokens = np.full((len(texts), length), self.pad, np.int32)
        lengths = np.zeros(len(texts), np.int32)
        room = length - self.specials
        for row, encoded in enumerate(self._library.encode_batch_fast(list(texts), add_special_tokens=False)):
            content = encoded.ids[:room]
            lengths[row] = self.specials + len(content)
            tokens[row, : lengths[row]] = [*self._start, *content, *self._end]
        return {"tokens": tokens, "length": lengths}

    def count(self, texts: Sequence[str]) -> np.ndarray:
        """How many tokens B texts have that are not cut, special tokens included, int64 [B]."""
        encoded = self._library.encode_batch_fast(list(texts), add_special_tokens=False)
        return np.array([self.specials + len(of_text.ids) for of_text in encoded], np.int64)

    def __repr__(self) -> str:
        return f"Tokenizer({self.path}, {self.vocabulary} tokens)"


def load_tokenizer(path: str | os.PathLike | RemotePath) -> Tokenizer:
    """Loads the tokenizer of a checkpoint.

    Args:
      path: the checkpoint's folder, or the vocabulary's file, or the URL of either. Of several forms in a folder,
        `tokenizer.json` is used before `vocab.txt` before `vocab.json`.

    Raises:
      UserError: there is none, it is damaged, or it is of a class that these files do not define.
    """
    path = locate(path)
    try:
        file = _vocabulary_file(path)
    except OSError as error:  # a name too long, no permission
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    files = _Files()
    config = files.json(file.with_name(_CONFIG))
    if "added_tokens_decoder" not in config:  # which all newer ones state
        config |= files.json(file.with_name(_SPECIALS))
    try:
        library = _maker(file)(files, file, config)
        _add_tokens(library, files, file, config)
        _normalise_sentences(library, files, file)
        pad = _padding_id(library, config, file)
        library.no_padding()
        library.no_truncation()
        return Tokenizer(library, pad, path, files)
    except UserError:
        raise
    except BaseException as error:  # the library raises plain Exception, and PanicException, which is not even one
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise UserError(
            f"{file}: damaged, or no tokenizer ({documents.one_line(error)}): fetch the checkpoint again"
        ) from error


def _vocabulary_file(path: Location) -> Location:
    if path.is_file():
        return path
    if not path.is_dir():
        raise UserError(f"{path}: no such file or folder, give a checkpoint's folder or its vocabulary")
    for name in (TOKENIZER, _VOCAB_TXT, _VOCAB_JSON):
        if (path / name).is_file():
            return path / name
    raise UserError(
        f"{path}: no tokenizer here, looked for {TOKENIZER}, {_VOCAB_TXT}, and {_VOCAB_JSON} with {_MERGES_TXT}"
    )


def _maker(file: Location) -> Callable[["_Files", Location, Mapping[str, Any]], tokenizers.Tokenizer]:
    """The function that reads a vocabulary's file."""
    if file.name == _VOCAB_JSON:
        return _from_vocab_json
    if file.suffix == ".json":
        return _from_tokenizer_json
    if file.suffix == ".txt" and file.name != _MERGES_TXT:
        return _from_vocab_txt
    raise UserError(
        f"{file}: not a vocabulary: give {TOKENIZER}, {_VOCAB_TXT}, {_VOCAB_JSON} or the folder they are in"
    )


class _Files:
    """Reads text files, and remembers what it read."""

    def __init__(self) -> None:
        self.read: list[Location] = []
        self._digest = hashlib.sha256()

    def text(self, file: Location) -> str:
        """Content of a UTF-8 file. Raises UserError if it cannot be read."""
        try:
            data = file.read_bytes()
        except OSError as error:
            raise UserError(f"{file}: cannot be read ({error.strerror})") from error
        self.read.append(file)
        self._digest.update(data)
        return documents.decode(data, file)

    def json(self, file: Location) -> dict[str, Any]:
        """The JSON object in a file, {} where there is no file. Raises UserError if it holds none."""
        return documents.parse_object(self.text(file), file) if file.is_file() else {}

    def fingerprint(self) -> str:
        """SHA-256 of all that was read."""
        return self._digest.hexdigest()


def _from_tokenizer_json(files: _Files, file: Location, config: Mapping[str, Any]) -> tokenizers.Tokenizer:
    """`tokenizer.json`, in which BERT's normalisation still follows `tokenizer_config.json`, as in transformers."""
    library = tokenizers.Tokenizer.from_str(files.text(file))
    if isinstance(library.normalizer, normalizers.BertNormalizer):
        library.normalizer = _bert_normalizer(config, library.normalizer)
    return library


def _from_vocab_txt(files: _Files, file: Location, config: Mapping[str, Any]) -> tokenizers.Tokenizer:
    """BERT's `vocab.txt`: a token a line, the number of the line being its id."""
    _check_class(config, _WORD_PIECE_CLASSES, file)
    lines = files.text(file).replace("\r\n", "\n").removesuffix("\n").split("\n")
    vocabulary = {token: i for i, token in enumerate(lines)}
    start, end, unknown, pad, mask = _specials(
        config, cls_token="[CLS]", sep_token="[SEP]", unk_token="[UNK]", pad_token="[PAD]", mask_token="[MASK]"
    )
    _check_tokens(vocabulary, (start, end, unknown, pad), file)
    library = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token=unknown, max_input_chars_per_word=100))
    library.normalizer = _bert_normalizer(config, normalizers.BertNormalizer())
    library.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return _framed(library, start, end, [unknown, pad, mask])


def _bert_normalizer(config: Mapping[str, Any], default: normalizers.BertNormalizer) -> normalizers.BertNormalizer:
    return normalizers.BertNormalizer(
        clean_text=default.clean_text,
        handle_chinese_chars=config.get("tokenize_chinese_chars", default.handle_chinese_chars),
        strip_accents=config.get("strip_accents", default.strip_accents),  # None: where lower-cased
        lowercase=config.get("do_lower_case", default.lowercase),
    )


def _from_vocab_json(files: _Files, file: Location, config: Mapping[str, Any]) -> tokenizers.Tokenizer:
    """RoBERTa's or CLIP's `vocab.json`, with `merges.txt` beside it."""
    _check_class(config, _BYTE_PAIR_CLASSES, file)
    vocabulary = files.json(file)
    merges = _merges(files, file.with_name(_MERGES_TXT))
    named = _class(config)
    if named == "CLIPTokenizer" or (not named and "<|startoftext|>" in vocabulary):
        return _clip(vocabulary, merges, config, file)
    if named == "RobertaTokenizer" or (not named and "<s>" in vocabulary):
        return _roberta(vocabulary, merges, config, file)
    raise UserError(
        f"{file}: neither RoBERTa's nor CLIP's vocabulary (no token <s> or <|startoftext|>): "
        f"save the tokenizer as {TOKENIZER}"
    )


def _roberta(
    vocabulary: dict[str, int], merges: list[tuple[str, str]], config: Mapping[str, Any], file: Location
) -> tokenizers.Tokenizer:
    start, end, pad, mask, unknown = _specials(
        config, cls_token="<s>", sep_token="</s>", pad_token="<pad>", mask_token="<mask>", unk_token="<unk>"
    )
    _check_tokens(vocabulary, (start, end, pad), file)
    library = tokenizers.Tokenizer(models.BPE(vocabulary, merges))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=config.get("add_prefix_space", False))
    return _framed(library, start, end, [pad, mask, unknown])


def _clip(
    vocabulary: dict[str, int], merges: list[tuple[str, str]], config: Mapping[str, Any], file: Location
) -> tokenizers.Tokenizer:
    start, end, pad, unknown = _specials(
        config,
        bos_token="<|startoftext|>",
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
        unk_token="<|endoftext|>",
    )
    _check_tokens(vocabulary, (start, end, pad, unknown), file)
    library = tokenizers.Tokenizer(
        models.BPE(vocabulary, merges, unk_token=unknown, continuing_subword_prefix="", end_of_word_suffix="</w>")
    )
    library.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(tokenizers.Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    library.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(tokenizers.Regex(_CLIP_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    return _framed(library, start, end, [pad, unknown])


def _merges(files: _Files, file: Location) -> list[tuple[str, str]]:
    """The pairs of `merges.txt`, one a line, after a line that may give the version."""
    pairs = []
    for number, line in enumerate(files.text(file).replace("\r\n", "\n").split("\n"), start=1):
        if not line or (number == 1 and line.startswith("#version")):
            continue
        pair = tuple(line.split(" "))
        if len(pair) != 2:
            raise UserError(f"{file}: line {number} is not a pair of tokens: fetch the checkpoint again")
        pairs.append(pair)
    return pairs


def _framed(library: tokenizers.Tokenizer, start: str, end: str, others: Sequence[str]) -> tokenizers.Tokenizer:
    """Adds special tokens: two that every text stands between, and others that a text may name."""
    ids = library.get_vocab()
    library.add_special_tokens([token for token in dict.fromkeys((start, end, *others)) if token in ids])
    library.post_processor = processors.TemplateProcessing(
        single=[start, "$A", end], special_tokens=[(start, ids[start]), (end, ids[end])]
    )
    return library


def _add_tokens(library: tokenizers.Tokenizer, files: _Files, file: Location, config: Mapping[str, Any]) -> None:
    """Adds the tokens that are listed beside a vocabulary, as transformers does.

    Raises:
      UserError: one would not get the id that it is listed with.
    """
    listed = config.get("added_tokens_decoder")
    if listed is None:
        named = {content for content in config.values() if isinstance(content, str)}
        plain = sorted(files.json(file.with_name(_ADDED)).items(), key=lambda item: item[1])
        listed = {i: {"content": x, "special": x in named, "normalized": x not in named} for x, i in plain}
    for number, fields in sorted(listed.items(), key=lambda item: int(item[0])):
        token = tokenizers.AddedToken(**{key: value for key, value in fields.items() if key != "__type"})
        if token.content not in _added(library):
            (library.add_special_tokens if token.special else library.add_tokens)([token])
        if library.token_to_id(token.content) != int(number):
            raise UserError(
                f"{file}: the added token {token.content!r:.80} is listed with id {number}, and would get "
                f"{library.token_to_id(token.content)}: save the tokenizer as {TOKENIZER}"
            )
    others = config.get("extra_special_tokens", config.get("additional_special_tokens")) or []
    names = [
        x["content"] if isinstance(x, dict) else x for x in (others.values() if isinstance(others, dict) else others)
    ]
    library.add_special_tokens([name for name in names if name not in _added(library)])


def _added(library: tokenizers.Tokenizer) -> set[str]:
    return {token.content for token in library.get_added_tokens_decoder().values()}


def _normalise_sentences(library: tokenizers.Tokenizer, files: _Files, file: Location) -> None:
    """Strips texts, and makes their letters small if asked to, as sentence-transformers does before the tokenizer."""
    config = files.json(file.with_name(_SENTENCE))
    if not config:
        return
    before = [normalizers.Strip(), *([normalizers.Lowercase()] if config.get("do_lower_case") is True else [])]
    own = [library.normalizer] if library.normalizer else []
    library.normalizer = normalizers.Sequence([*before, *own])


def _special_ids(library: tokenizers.Tokenizer) -> tuple[list[int], list[int]]:
    """The ids that the tokenizer puts before and after a text."""
    library.encode("\U0010fffd")  # in no vocabulary: raises here rather than in training if that is an error
    probe = library.encode("a")
    if all(probe.special_tokens_mask):
        raise ValueError("it gives no token for the letter a")
    first = probe.special_tokens_mask.index(0)
    after = len(probe.ids) - probe.special_tokens_mask[::-1].index(0)
    return probe.ids[:first], probe.ids[after:]


def _padding_id(library: tokenizers.Tokenizer, config: Mapping[str, Any], file: Location) -> int:
    """What `tokenizer_config.json` or `tokenizer.json` says, or else the first of the customary tokens there is."""
    if config.get("pad_token"):
        (token,) = _specials(config, pad_token="")
        _check_tokens(library.get_vocab(), (token,), file)
        return library.token_to_id(token)
    if library.padding:
        return library.padding["pad_id"]
    for token in _PADDING_TOKENS:
        if library.token_to_id(token) is not None:
            return library.token_to_id(token)
    raise UserError(f"{file}: no padding token: name it as pad_token in {_CONFIG}")


def _specials(config: Mapping[str, Any], **defaults: str) -> list[str]:
    """Special tokens, in the order of their defaults; in the configuration a string, or an object with "content"."""
    tokens = [config.get(name) or default for name, default in defaults.items()]
    return [token["content"] if isinstance(token, dict) else token for token in tokens]


def _class(config: Mapping[str, Any]) -> str:
    return (config.get("tokenizer_class") or "").removesuffix("Fast")


def _check_class(config: Mapping[str, Any], known: Sequence[str], file: Location) -> None:
    if _class(config) and _class(config) not in known:
        raise UserError(
            f"{file}: of a {_class(config)}, but this file is understood for {', '.join(known)} only: "
            f"save the tokenizer as {TOKENIZER}"
        )


def _check_tokens(vocabulary: Mapping[str, int], tokens: Sequence[str], file: Location) -> None:
    if lacking := [token for token in dict.fromkeys(tokens) if token not in vocabulary]:
        raise UserError(f"{file}: the vocabulary lacks {', '.join(lacking)}: fetch the checkpoint again")
