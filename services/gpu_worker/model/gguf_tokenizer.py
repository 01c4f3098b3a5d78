"""The tokenizer inside a GGUF file, in the format of the tokenizers library."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, processors
from tokenizers import pre_tokenizers as pre

from services.core.errors import FailedPrecondition

NORMAL, CONTROL, USER_DEFINED = 1, 3, 4  # kinds of token in GGUF

_LLAMA3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2_WORDS = _LLAMA3_WORDS.replace(r"\p{N}{1,3}", r"\p{N}")


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """The tokenizer.ggml.* entries."""

    model: str
    pre: str
    tokens: Sequence[str]
    kinds: Sequence[int]
    merges: Sequence[str]
    scores: Sequence[float]
    adds_bos: bool
    bos: int | None
    eos: int | None
    others: Mapping[str, int]  # further special tokens by their transformers name

    @classmethod
    def of(cls, facts: Mapping[str, Any]) -> "Vocabulary":
        def fact(name: str, default: Any) -> Any:
            return facts.get(f"tokenizer.ggml.{name}", default)

        tokens = fact("tokens", [])
        if not tokens:
            raise FailedPrecondition("the GGUF file has no tokenizer")
        named = {
            "unk_token": fact("unknown_token_id", None),
            "pad_token": fact("padding_token_id", None),
        }
        ends = {"eot": fact("eot_token_id", None), "eom": fact("eom_token_id", None)}
        model = str(fact("model", ""))
        return cls(
            model=model,
            pre=str(fact("pre", "default")),
            tokens=tokens,
            kinds=fact("token_type", [NORMAL] * len(tokens)),
            merges=fact("merges", []),
            scores=fact("scores", []),
            adds_bos=bool(fact("add_bos_token", model == "llama")),
            bos=fact("bos_token_id", None),
            eos=fact("eos_token_id", None),
            others={name: token for name, token in (named | ends).items() if token is not None},
        )

    @property
    def special_tokens(self) -> dict[str, str]:
        named = {"bos_token": self.bos, "eos_token": self.eos, **self.others}
        return {
            name: self.tokens[token]
            for name, token in named.items()
            if token is not None and name.endswith("_token")
        }

    @property
    def end_tokens(self) -> tuple[int, ...]:
        ends = {self.eos, self.others.get("eot"), self.others.get("eom")}
        return tuple(sorted(token for token in ends if token is not None))


def build_tokenizer(vocabulary: Vocabulary) -> Tokenizer:
    """Raises FailedPrecondition that names a kind of tokenizer that is not supported."""
    if vocabulary.model == "gpt2":
        tokenizer = _byte_level(vocabulary)
    elif vocabulary.model == "llama":
        tokenizer = _sentencepiece(vocabulary)
    else:
        raise FailedPrecondition(f"GGUF tokenizer {vocabulary.model!r} is not supported")
    tokenizer.add_special_tokens(
        [
            AddedToken(text, special=True, normalized=False)
            for text, kind in zip(vocabulary.tokens, vocabulary.kinds, strict=True)
            if kind == CONTROL
        ]
    )
    tokenizer.add_tokens(
        [
            AddedToken(text, normalized=False)
            for text, kind in zip(vocabulary.tokens, vocabulary.kinds, strict=True)
            if kind == USER_DEFINED
        ]
    )
    if vocabulary.adds_bos and vocabulary.bos is not None:
        bos = vocabulary.tokens[vocabulary.bos]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, vocabulary.bos)]
        )
    return tokenizer


def _byte_level(vocabulary: Vocabulary) -> Tokenizer:
    merges = [_pair(merge) for merge in vocabulary.merges]
    tokenizer = Tokenizer(
        models.BPE(
            vocab={text: index for index, text in enumerate(vocabulary.tokens)},
            merges=merges,
            ignore_merges=vocabulary.pre == "llama-bpe",
        )
    )
    tokenizer.pre_tokenizer = _pre_tokenizer(vocabulary.pre)
    tokenizer.decoder = decoders.ByteLevel()
    if vocabulary.pre == "qwen2":
        tokenizer.normalizer = normalizers.NFC()
    return tokenizer


def _pair(merge: str) -> tuple[str, str]:
    left, _, right = merge.partition(" ")
    return left, right


def _pre_tokenizer(kind: str) -> pre.PreTokenizer:
    """How text is cut before merging, by llama.cpp's name for it."""
    bytes_only = pre.ByteLevel(add_prefix_space=False, use_regex=False)
    match kind:
        case "smollm":
            digits = pre.Digits(individual_digits=True)
            return pre.Sequence([digits, pre.ByteLevel(add_prefix_space=False)])
        case "gpt-2" | "default":
            return pre.ByteLevel(add_prefix_space=False)
        case "llama-bpe" | "qwen2":
            words = _LLAMA3_WORDS if kind == "llama-bpe" else _QWEN2_WORDS
            return pre.Sequence([pre.Split(Regex(words), "isolated"), bytes_only])
        case other:
            raise FailedPrecondition(f"GGUF pre-tokenizer {other!r} is not supported")


def _sentencepiece(vocabulary: Vocabulary) -> Tokenizer:
    """SentencePiece BPE with byte fallback, as Llama 2 and Mistral have it."""
    vocab = {text: index for index, text in enumerate(vocabulary.tokens)}
    merges = []
    for text, score in zip(vocabulary.tokens, vocabulary.scores, strict=True):
        for cut in range(1, len(text)):
            if text[:cut] in vocab and text[cut:] in vocab:
                merges.append(
                    (-score, vocab[text[:cut]], vocab[text[cut:]], text[:cut], text[cut:])
                )
    merges.sort()
    unknown = vocabulary.special_tokens.get("unk_token", "<unk>")
    tokenizer = Tokenizer(
        models.BPE(
            vocab=vocab,
            merges=[(left, right) for *_, left, right in merges],
            unk_token=unknown,
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(content=" ", left=1),
        ]
    )
    return tokenizer
