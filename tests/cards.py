"""A base model as the store knows it, without weights that anybody could run."""

from services.core.base_model import BaseModel
from services.core.types import Fingerprint

CARD = BaseModel(
    name="tiny",
    also_known_as=(),
    fingerprint=Fingerprint("f" * 64),
    architecture="LlamaForCausalLM",
    context_tokens=256,
    vocabulary_tokens=120,
    end_tokens=(1,),
    chat_template="",
    special_tokens={},
    modules=(),
    tokenizer_json=b"{}",
)
