"""A tokenizer of a dataset's own, for text encoders that are trained from scratch."""

from collections.abc import Iterable

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

MOST_TOKENS = 8192
RAREST = 2  # times that a piece of a word must occur
PAD, UNKNOWN, START, END = "[PAD]", "[UNK]", "[CLS]", "[SEP]"


def tokenizer_file(texts: Iterable[str]) -> bytes:
    """A `tokenizer.json` that knows the frequent words of the texts, and frequent pieces of the others.

    Texts are split, lower-cased and rid of accents as BERT's, and words cut into pieces by byte-pair encoding: of the
    trainers of the `tokenizers` library the one that makes the same file of the same texts in every process.

    Args:
      texts: of the training split.
    """
    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.BpeTrainer(
        vocab_size=MOST_TOKENS,
        min_frequency=RAREST,
        special_tokens=[PAD, UNKNOWN, START, END],
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    ends = [(token, tokenizer.token_to_id(token)) for token in (START, END)]
    tokenizer.post_processor = processors.TemplateProcessing(single=f"{START} $A {END}", special_tokens=ends)
    return tokenizer.to_str(pretty=True).encode()
