"""A small random encoder of the architecture that the federated experiments train."""

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel

WORDS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", *(f"w{n}" for n in range(20))]
WIDTH, INNER = 16, 32


def tiny_encoder(folder: Path) -> Path:
    """Of four layers; its words are w0 to w19."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(WORDS), hidden_size=WIDTH, num_hidden_layers=4, num_attention_heads=2,
        intermediate_size=INNER, max_position_embeddings=32,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    names = {name: index for index, name in enumerate(WORDS)}
    tokenizer = Tokenizer(models.WordLevel(names, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder
