"""Tokenizers against transformers' and against the published algorithms, and what can be wrong with their files."""

import csv
import hashlib
import json
import pickle
import subprocess
import sys
import unicodedata
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import regex
import tokenizers
import transformers

from umemma_jax.data.tokenizer import load_tokenizer
from umemma_jax.errors import UserError

TEXTS = [
    "",
    " ",
    "\n\t\r\n ",
    "a",
    "Levi's Men's 501® Jeans - “Café Noir”, size 34/32",
    "It's we'll they've I'm don't he'd you're",
    "ÀÉÎÕÜ àéîõü ñ ç ß Ø Å İstanbul ǅ",
    "e\u0301cole cafe\u0301 A\u030aA",  # decomposed accents
    "日本語のタイトル 中文标题 한국어 제목",
    "Привет, мир! Ελληνικά ὀδυσσεύς עברית العربية",
    "😀 👩‍👩‍👧 🇩🇪 ❤️ tshirt",
    "zero\u200bwidth no\u00a0break soft\u00adhyphen \ufeffbom line\u2028separator",
    "nul\x00 bell\x07 delete\x7f replaced\ufffd",
    "tabs\tand\nnewlines\r\nand   many    spaces   ",
    "100% 3.14 1,000,000 $9.99 #1 @home a_b-c x=y+z 12345678901234567890",
    "!!! ??? ... --- ''' \"\"\" `` '' “single” «double»",
    "x" * 100 + " " + "y" * 101 + " " + "unbelievable" * 50,
    "[CLS] [SEP] [PAD] [MASK] [UNK] <s> </s> <pad> <unk> <|startoftext|> <|endoftext|> [sep]",
    "https://example.org/a?b=c&d=%20 me@example.org <br/> &amp;",
    "The quick brown fox jumps over the lazy dog. " * 20,
    "ΟΔΥΣΣΕΥΣ",  # Python's lower() alone knows of a final sigma
]
IN_PYTHON_TOO = TEXTS[:-1]
ROBERTA_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
CLIP_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"
BYTES = [*range(33, 127), *range(161, 173), *range(174, 256)]  # that stand for themselves
LETTERS = {b: chr(b) for b in BYTES} | {b: chr(256 + n) for n, b in enumerate(b for b in range(256) if b not in BYTES)}


@pytest.fixture
def bert(shared_data, tmp_path) -> Callable[..., Path]:
    """Makes a folder with bert-base-uncased's vocabulary and a configuration."""

    def folder(**config) -> Path:
        (tmp_path / "vocab.txt").write_bytes((shared_data / "bert_vocab" / "vocab.txt").read_bytes())
        if config:
            (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
        return tmp_path

    return folder


def byte_pairs(folder: Path, specials: list[str], suffix: str, **config) -> Path:
    """Learns a small byte-level vocabulary from `TEXTS`, and writes vocab.json and merges.txt."""
    library = tokenizers.Tokenizer(tokenizers.models.BPE(end_of_word_suffix=suffix))
    library.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=600, end_of_word_suffix=suffix, show_progress=False)
    library.train_from_iterator([text.lower() for text in TEXTS] + TEXTS, trainer)
    merges = [tuple(pair) for pair in json.loads(library.to_str())["model"]["merges"]]
    assert len(merges) > 50
    letters = list(LETTERS.values())
    tokens = [*letters, *(letter + suffix for letter in letters), *("".join(pair) for pair in merges), *specials]
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    folder.mkdir(exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    if config:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def roberta(folder: Path, **config) -> Path:
    return byte_pairs(folder, ["<s>", "<pad>", "</s>", "<unk>", "<mask>"], "", **config)


def clip(folder: Path, **config) -> Path:
    return byte_pairs(folder, ["<|startoftext|>", "<|endoftext|>"], "</w>", **config)


def merged(word: str, folder: Path, suffix: str) -> list[int]:
    """Byte-pair encoding of one word as Sennrich et al. (2016) define it: merge the best-ranked pair until none is."""
    vocabulary = json.loads((folder / "vocab.json").read_text())
    lines = (folder / "merges.txt").read_text(encoding="utf-8").split("\n")[1:-1]
    ranks = {tuple(line.split(" ")): rank for rank, line in enumerate(lines)}
    parts = [LETTERS[b] for b in word.encode()]
    parts[-1] += suffix
    while pairs := [pair for pair in pairwise(parts) if pair in ranks]:
        best, rest, parts = min(pairs, key=ranks.get), parts, []
        while rest:
            size = 2 if tuple(rest[:2]) == best else 1
            parts.append("".join(rest[:size]))
            rest = rest[size:]
    return [vocabulary[part] for part in parts]


def assert_same(folder: Path, reference, texts: list[str], lengths=(3, 4, 7, 16, 64, 256)) -> None:
    """Compares with a tokenizer of transformers, at several lengths."""
    tokenizer = load_tokenizer(folder)
    for length in lengths:
        got = tokenizer.encode(texts, length)
        expected = reference(texts, truncation=True, max_length=length, padding="max_length")
        assert got["tokens"].dtype == got["length"].dtype == np.int32
        np.testing.assert_array_equal(got["tokens"], expected["input_ids"])
        np.testing.assert_array_equal(got["length"], np.sum(expected["attention_mask"], axis=1))
    assert tokenizer.pad == reference.pad_token_id
    assert tokenizer.specials == reference.num_special_tokens_to_add()
    assert tokenizer.vocabulary == len(reference)


# The same tokens


@pytest.mark.parametrize("name", ["BertTokenizer", "DistilBertTokenizer"])
@pytest.mark.parametrize("config", [{}, {"do_lower_case": True}, {"do_lower_case": False}])
def test_word_piece_is_that_of_transformers(bert, name: str, config: dict):
    folder = bert(tokenizer_class=name, **config)
    assert_same(folder, getattr(transformers, name).from_pretrained(folder), TEXTS)


def test_word_piece_without_configuration_is_uncased(bert):
    folder = bert()
    assert_same(folder, transformers.BertTokenizer.from_pretrained(folder, do_lower_case=True), TEXTS)


@pytest.mark.parametrize("lower", [True, False])
def test_word_piece_is_that_of_the_original_in_python(bert, lower: bool):
    legacy = pytest.importorskip("transformers.models.bert.tokenization_bert_legacy")
    folder = bert(do_lower_case=lower)
    reference = legacy.BertTokenizerLegacy(folder / "vocab.txt", do_lower_case=lower)
    assert_same(folder, reference, IN_PYTHON_TOO, lengths=(7, 256))


@pytest.mark.parametrize("config", [{"strip_accents": False}, {"tokenize_chinese_chars": False}])
def test_word_piece_options(bert, config: dict):
    folder = bert(**config)
    assert_same(folder, transformers.BertTokenizer.from_pretrained(folder, **config), TEXTS)


def test_real_titles(bert, shared_data):
    files = sorted((shared_data / "product_pairs_upmc_layout" / "texts").glob("*.csv"))
    titles = [row[1] for file in files for row in csv.reader(file.read_text(encoding="utf-8").splitlines())]
    assert len(titles) > 6000
    folder = bert()
    assert_same(folder, transformers.BertTokenizer.from_pretrained(folder), titles, lengths=(5, 40))


WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    "new",
    "token",
    "a",
    "b",
    "##a",
    "##b",
    "##new",
    "[",
    "]",
    "<",
    ">",
]
ADDED = [
    {"added_tokens.json": {"<new>": 16, "brandnew": 17}},
    {"added_tokens.json": {"<new>": 16}, "special_tokens_map.json": {"additional_special_tokens": ["<new>"]}},
    {"special_tokens_map.json": {"unk_token": "[MASK]", "pad_token": "a"}},
    {
        "tokenizer_config.json": {
            "added_tokens_decoder": {
                "0": {"content": "[PAD]", "special": True},
                "2": {"content": "[CLS]", "special": True},
                "16": {"content": "<new>", "special": True, "lstrip": True},
                "17": {"content": "Brandnew", "special": False, "normalized": False, "single_word": True},
            }
        },
        "added_tokens.json": {"not this": 16},
    },
]


def added(folder: Path, files: dict) -> Path:
    """A small BERT vocabulary, and files beside it."""
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n")
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize("files", ADDED)
def test_added_tokens_are_those_of_transformers(files: dict, tmp_path: Path):
    folder = added(tmp_path, files)
    texts = ["a <new> b", "a<new>b", "brandnew brandnewer Brandnew", "new token [MASK] nonsense", "<NEW>", ""]
    assert_same(folder, transformers.BertTokenizer.from_pretrained(folder), texts, lengths=(4, 16))


def test_an_added_token_of_another_id_is_refused(tmp_path: Path):
    fails(added(tmp_path, {"added_tokens.json": {"<new>": 99}}), "'<new>' is listed with id 99, and would get 16")


def test_sentence_transformers_make_letters_small(tmp_path: Path):
    folder = added(tmp_path, {"tokenizer_config.json": {"do_lower_case": False}})
    words = load_tokenizer(folder).encode(["A new"], 4)["tokens"][0, 1:3].tolist()
    assert words == [WORDS.index("[UNK]"), WORDS.index("new")]
    (folder / "sentence_bert_config.json").write_text('{"max_seq_length": 256, "do_lower_case": true}')
    words = load_tokenizer(folder).encode([" A new "], 4)["tokens"][0, 1:3].tolist()
    assert words == [WORDS.index("a"), WORDS.index("new")]


@pytest.mark.parametrize("config", [{}, {"add_prefix_space": True}, {"tokenizer_class": "RobertaTokenizer"}])
def test_roberta_is_that_of_transformers(tmp_path: Path, config: dict):
    folder = roberta(tmp_path, **config)
    reference = transformers.RobertaTokenizer.from_pretrained(folder, **config)
    assert_same(folder, reference, TEXTS)


@pytest.mark.parametrize("config", [{}, {"tokenizer_class": "CLIPTokenizerFast"}])
def test_clip_is_that_of_transformers(tmp_path: Path, config: dict):
    folder = clip(tmp_path, **config)
    assert_same(folder, transformers.CLIPTokenizer.from_pretrained(folder), TEXTS)


@pytest.mark.parametrize(
    ("make", "words", "suffix", "normalise"),
    [
        (roberta, ROBERTA_WORDS, "", str),
        (clip, CLIP_WORDS, "</w>", lambda text: regex.sub(r"\s+", " ", unicodedata.normalize("NFC", text)).lower()),
    ],
)
def test_byte_pairs_are_the_published_algorithm(tmp_path: Path, make, words: str, suffix: str, normalise):
    folder = make(tmp_path)
    texts = [text for text in IN_PYTHON_TOO if "<s>" not in text]
    got = load_tokenizer(folder).encode(texts, 2000)
    for text, tokens, length in zip(texts, got["tokens"], got["length"], strict=True):
        expected = [i for word in regex.findall(words, normalise(text)) for i in merged(word, folder, suffix)]
        assert tokens[1 : length - 1].tolist() == expected


@pytest.mark.parametrize("make", [roberta, clip])
def test_tokenizer_json_of_byte_pairs(tmp_path: Path, make):
    folder = make(tmp_path / "a")
    name = "RobertaTokenizer" if make is roberta else "CLIPTokenizer"
    getattr(transformers, name).from_pretrained(folder).save_pretrained(tmp_path / "b")
    assert (tmp_path / "b" / "tokenizer.json").is_file()
    assert_same(tmp_path / "b", transformers.AutoTokenizer.from_pretrained(tmp_path / "b"), TEXTS)


@pytest.mark.parametrize("lower", [True, False])
def test_configuration_overrules_the_case_of_tokenizer_json(bert, tmp_path: Path, lower: bool):
    folder = tmp_path / "saved"
    transformers.BertTokenizer.from_pretrained(bert(), do_lower_case=not lower).save_pretrained(folder)
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(config | {"do_lower_case": lower}))
    assert_same(folder, transformers.AutoTokenizer.from_pretrained(folder), TEXTS)


def test_truncation_and_padding_kept_in_tokenizer_json_change_nothing(bert):
    folder = bert()
    library = transformers.BertTokenizer.from_pretrained(folder).backend_tokenizer
    library.enable_truncation(5)
    library.enable_padding(length=9, pad_id=7, pad_token="[unused6]")
    library.save(str(folder / "kept.json"))
    kept, plain = load_tokenizer(folder / "kept.json"), load_tokenizer(folder / "vocab.txt")
    assert (kept.pad, plain.pad) == (7, 0)
    got, expected = kept.encode(TEXTS, 30), plain.encode(TEXTS, 30)
    np.testing.assert_array_equal(got["length"], expected["length"])
    valid = np.arange(30) < expected["length"][:, None]
    np.testing.assert_array_equal(got["tokens"], np.where(valid, expected["tokens"], 7))


def test_a_tokenizer_without_special_tokens(tmp_path: Path):
    library = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<pad>": 0, "?": 1, "red": 5}, unk_token="?"))
    library.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    library.save(str(tmp_path / "tokenizer.json"))
    tokenizer = load_tokenizer(tmp_path)
    assert (tokenizer.specials, tokenizer.vocabulary, tokenizer.pad) == (0, 6, 0)
    got = tokenizer.encode(["red blue red red", "", "red"], 3)
    np.testing.assert_array_equal(got["tokens"], [[5, 1, 5], [0, 0, 0], [5, 0, 0]])
    np.testing.assert_array_equal(got["length"], [3, 0, 1])


def test_no_texts(tmp_path: Path):
    got = load_tokenizer(roberta(tmp_path)).encode([], 4)
    assert (got["tokens"].shape, got["length"].shape) == ((0, 4), (0,))


# The same object everywhere


def test_pickled_and_from_several_threads(tmp_path: Path):
    tokenizer = load_tokenizer(roberta(tmp_path))
    expected = tokenizer.encode(TEXTS, 32)
    copy = pickle.loads(pickle.dumps(tokenizer))
    assert (copy.path, copy.fingerprint, copy.pad) == (tokenizer.path, tokenizer.fingerprint, tokenizer.pad)
    with ThreadPoolExecutor(4) as threads:
        results = list(threads.map(lambda _: (tokenizer.encode(TEXTS, 32), copy.encode(TEXTS, 32)), range(20)))
    for result in (got for pair in results for got in pair):
        np.testing.assert_array_equal(result["tokens"], expected["tokens"])
        np.testing.assert_array_equal(result["length"], expected["length"])


def test_forked_process_encodes_and_nothing_is_printed(tmp_path: Path):
    folder = roberta(tmp_path)
    program = f"""
import os
from umemma_jax.data.tokenizer import load_tokenizer
tokenizer = load_tokenizer({str(folder)!r})
before = tokenizer.encode(["some text"] * 100, 8)
child = os.fork()
if not child:
    same = (tokenizer.encode(["some text"] * 100, 8)["tokens"] == before["tokens"]).all()
    os._exit(0 if same else 1)
raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_fingerprint_is_of_all_files_read(tmp_path: Path):
    folder = roberta(tmp_path)
    content = [(folder / name).read_bytes() for name in ("vocab.json", "merges.txt")]
    assert load_tokenizer(folder).fingerprint == hashlib.sha256(b"".join(content)).hexdigest()
    assert load_tokenizer(folder / "vocab.json").fingerprint == load_tokenizer(folder).fingerprint
    (folder / "tokenizer_config.json").write_text('{"add_prefix_space": true}')
    assert load_tokenizer(folder).fingerprint != hashlib.sha256(b"".join(content)).hexdigest()


def test_neither_torch_nor_transformers_nor_jax_is_imported():
    program = """
import sys
import umemma_jax.data.tokenizer
raise SystemExit(" ".join({"torch", "transformers", "jax"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stderr.strip() == ""


# Mistakes


def fails(path: Path, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load_tokenizer(path)
    assert "\n" not in str(caught.value)


def test_paths_without_a_tokenizer(tmp_path: Path):
    fails(tmp_path / "absent", "absent: no such file or folder")
    fails(tmp_path / ("x" * 300), "cannot be read")
    fails(tmp_path, f"{tmp_path}: no tokenizer here, looked for tokenizer.json, vocab.txt, and vocab.json")
    (tmp_path / "model.safetensors").write_bytes(b"")
    fails(tmp_path / "model.safetensors", "model.safetensors: not a vocabulary: give tokenizer.json")
    roberta(tmp_path)
    fails(tmp_path / "merges.txt", "merges.txt: not a vocabulary")
    (tmp_path / "merges.txt").unlink()
    fails(tmp_path, "merges.txt: cannot be read")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tokenizer.json", "", r"damaged, or no tokenizer \(.*\)"),
        ("tokenizer.json", '{"version": "1.0", "mod', "damaged, or no tokenizer"),
        ("tokenizer.json", '{"architectures": ["BertModel"]}', "damaged, or no tokenizer"),
        ("vocab.json", '{"a": 0', r"damaged \(Expecting"),
        ("vocab.json", "[1]", "holds no JSON object"),
        ("vocab.json", '{"a": 0, "b": 1}', "neither RoBERTa's nor CLIP's vocabulary"),
        ("vocab.json", '{"<s>": "zero", "</s>": 1, "<pad>": 2}', "damaged"),
        ("vocab.json", '{"<s>": 0, "</s>": 1}', "the vocabulary lacks <pad>"),
        ("merges.txt", "#version: 0.2\na b\na b c\n", "merges.txt: line 3 is not a pair of tokens"),
        ("merges.txt", "#version: 0.2\nq Ω\n", "damaged, or no tokenizer"),
        ("vocab.txt", "", r"the vocabulary lacks \[CLS\], \[SEP\], \[UNK\], \[PAD\]"),
        ("vocab.txt", "[PAD]\n[CLS]\n[UNK]\nthe\n", r"vocab.txt: the vocabulary lacks \[SEP\]"),
        ("tokenizer_config.json", "{", "tokenizer_config.json: damaged"),
        ("tokenizer_config.json", "[" * 100_000, "tokenizer_config.json: damaged"),
        ("vocab.json", "version https://git-lfs.github.com/spec/v1\noid", "vocab.json: is a Git-LFS pointer"),
        ("added_tokens.json", '{"new": "last"}', "damaged, or no tokenizer"),
        ("added_tokens.json", "[1]", "added_tokens.json: damaged"),
        ("tokenizer_config.json", '{"added_tokens_decoder": [1]}', "damaged, or no tokenizer"),
        ("tokenizer_config.json", '{"additional_special_tokens": 3}', "damaged, or no tokenizer"),
        ("tokenizer_config.json", '{"tokenizer_class": "GPT2Tokenizer"}', "of a GPT2Tokenizer, but"),
        ("tokenizer_config.json", '{"pad_token": "[NONE]"}', r"the vocabulary lacks \[NONE\]"),
    ],
)
def test_damaged_files(tmp_path: Path, name: str, content: str, message: str):
    roberta(tmp_path)
    (tmp_path / name).write_text(content, encoding="utf-8")
    fails(tmp_path, message)


def test_a_file_that_is_not_utf8(tmp_path: Path):
    (tmp_path / "vocab.txt").write_bytes(b"[PAD]\n\xff\xfe\n")
    fails(tmp_path, r"vocab.txt: damaged \('utf-8' codec can't decode byte 0xff")


def test_tokenizers_that_cannot_be_used(tmp_path: Path):
    library = tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "b": 1}, unk_token="?"))
    library.save(str(tmp_path / "tokenizer.json"))
    fails(tmp_path, r"no padding token: name it as pad_token in tokenizer_config.json")
    (tmp_path / "tokenizer_config.json").write_text('{"pad_token": {"content": "b"}}')
    fails(tmp_path, r"damaged, or no tokenizer \(.*[Mm]issing")  # "?" is not in the vocabulary


def test_a_file_that_the_library_panics_on(tmp_path: Path):
    library = tokenizers.Tokenizer(tokenizers.models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")]))
    damaged = json.loads(library.to_str())
    damaged["model"]["continuing_subword_prefix"] = "longer than the tokens it should begin"
    (tmp_path / "tokenizer.json").write_text(json.dumps(damaged))
    fails(tmp_path, r"damaged, or no tokenizer \(range")


def test_a_length_without_room(tmp_path: Path):
    tokenizer = load_tokenizer(roberta(tmp_path))
    for length in (-1, 0, 2):
        with pytest.raises(ValueError, match="no room for text beside 2 special tokens: use 3 or more"):
            tokenizer.encode(["a"], length)
    np.testing.assert_array_equal(tokenizer.encode([""], 3)["length"], [2])
