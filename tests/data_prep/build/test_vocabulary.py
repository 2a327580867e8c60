import subprocess
import sys

from umemma_jax.data.tokenizer import load_tokenizer
from umemma_jax.data_prep.build.vocabulary import tokenizer_file

TEXTS = ["Red shirt for men", "red SHOES, red bags", "Café shirts", "blue shoe for women"] * 5


def test_it_knows_the_words_of_the_texts_and_marks_start_and_end(tmp_path):
    (tmp_path / "tokenizer.json").write_bytes(tokenizer_file(TEXTS))
    tokenizer = load_tokenizer(tmp_path)
    found = tokenizer.encode(["red shirt", "RED cafe", ""], length=8)
    assert found["length"].tolist() == [4, 4, 2]
    assert found["tokens"][0, 1] == found["tokens"][1, 1]
    assert tokenizer.pad == 0 and tokenizer.specials == 2
    unknown = 1
    assert unknown not in found["tokens"]
    assert unknown in tokenizer.encode(["漢"], length=8)["tokens"]


def test_the_same_texts_give_the_same_tokenizer_in_any_process():
    code = "import tests.data_prep.build.test_vocabulary as t; print(t.tokenizer_file(t.TEXTS).decode())"
    found = [subprocess.run([sys.executable, "-c", code], check=True, capture_output=True).stdout for _ in range(2)]
    assert found[0] == found[1] == tokenizer_file(TEXTS) + b"\n"
