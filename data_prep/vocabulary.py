"""A tokenizer of a dataset's own, for text encoders that are trained from scratch."""

from collections import Counter
from collections.abc import Iterable

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

MOST_WORDS = 8192
RAREST = 2  # times that a word must occur
PAD, UNKNOWN, START, END = "[PAD]", "[UNK]", "[CLS]", "[SEP]"


def tokenizer_file(texts: Iterable[str]) -> bytes:
    """A `tokenizer.json` whose vocabulary is the texts' frequent words, and characters to spell the others with.

    Words are split, lower-cased and rid of accents as BERT's. The same texts give the same file; the trainers of the
    `tokenizers` library, which learn pieces of words, do not: they break ties at random.

    Args:
      texts: of the training split.
    """
    normalizer, splitter = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()
    words = Counter(word for text in texts for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(text)))
    ranked = sorted(words, key=lambda word: (-words[word], word))
    frequent = [word for word in ranked[:MOST_WORDS] if words[word] >= RAREST]
    characters = sorted({character for word in words for character in word})
    spelling = [*characters, *(f"##{character}" for character in characters)]
    tokens = dict.fromkeys([PAD, UNKNOWN, START, END, *frequent, *spelling])
    vocabulary = {token: number for number, token in enumerate(tokens)}

    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splitter
    tokenizer.add_special_tokens([PAD, UNKNOWN, START, END])
    ends = [(token, vocabulary[token]) for token in (START, END)]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{START} $A {END}", special_tokens=ends)
    return tokenizer.to_str(pretty=True).encode()
