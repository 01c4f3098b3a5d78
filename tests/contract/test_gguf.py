"""GGUF files against transformers' own reader, and block formats against their definitions."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType as Quantization
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from services.core.errors import FailedPrecondition
from services.gpu_worker.model.gguf import SUPPORTED, read_gguf
from services.gpu_worker.model.loading import load_model
from tests.engines import TestBench, greedy
from tests.references import logits_of, smollm_folder
from tests.tiny_models import VOCABULARY, make_reference

SMOLLM = "SmolLM2-135M-Instruct.Q4_1.gguf"
NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def write_gguf(path: Path, model: Any, kind: Quantization, architecture: str = "llama") -> Path:
    """As llama.cpp's converter writes a Llama: rotary pairs side by side, matrices quantised."""
    config = model.config
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name("tiny")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list([f"w{index}" for index in range(VOCABULARY)])
    writer.add_token_types([3, 3] + [1] * (VOCABULARY - 2))
    writer.add_token_merges([])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    for name, tensor in model.state_dict().items():
        _add(writer, _renamed(name), tensor, kind, config)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add(writer: Any, name: str, tensor: torch.Tensor, kind: Quantization, config: Any) -> None:
    values = tensor.numpy()
    heads = {"attn_q": config.num_attention_heads, "attn_k": config.num_key_value_heads}
    if count := heads.get(name.split(".")[-2]):
        halves = values.reshape(count, 2, -1, values.shape[-1])
        values = np.ascontiguousarray(halves.swapaxes(1, 2)).reshape(values.shape)
    if values.ndim == 1 or kind is Quantization.F32:
        writer.add_tensor(name, values)
    else:
        writer.add_tensor(name, gguf.quantize(values, kind), raw_dtype=kind)


def _renamed(name: str) -> str:
    whole = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
    }
    if name in whole:
        return whole[name]
    _, _, layer, rest = name.split(".", 3)
    module, _, kind = rest.rpartition(".")
    return f"blk.{layer}.{NAMES[module]}.{kind}"


@pytest.mark.parametrize("kind", ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1"])
def test_every_quantisation_reads_as_transformers_reads_it(kind: str, tmp_path: Path) -> None:
    # Widths of 64 and 96: blocks are 32 long.
    reference = make_reference("llama-blocks")
    path = write_gguf(tmp_path / "tiny.gguf", reference, Quantization[kind])
    theirs = AutoModelForCausalLM.from_pretrained(
        str(tmp_path), gguf_file=path.name, dtype=torch.float32
    ).eval()
    bench = TestBench(load_model(path), pages=50)
    request = greedy("one", range(2, 30), None, 12)
    answer = bench.generate([request])[request.id]
    expected = logits_of(theirs, [*range(2, 30), *answer[:-1]])[27:]
    torch.testing.assert_close(bench.logits(request.id), expected, atol=1e-4, rtol=0)
    if kind in ("F32", "F16", "BF16", "Q8_0"):  # and near the weights that were quantised
        near = logits_of(reference, [*range(2, 30), *answer[:-1]])[27:]
        assert (near - expected).abs().max() < 0.5


def half(data: bytes, at: int) -> float:
    return float(struct.unpack_from("<e", data, at)[0])


def scales_of_k(data: bytes) -> list[tuple[int, int]]:
    """Eight pairs of 6-bit scale and minimum in 12 bytes (ggml-quants.c, get_scale_min_k4)."""
    pairs = []
    for j in range(8):
        if j < 4:
            pairs.append((data[j] & 63, data[j + 4] & 63))
        else:
            low, high = data[j + 4] & 15, data[j + 4] >> 4
            pairs.append((low | data[j - 4] >> 6 << 4, high | data[j] >> 6 << 4))
    return pairs


def q4_k(block: bytes) -> list[float]:
    """144 bytes: d, dmin, scales, 256 nibbles (ggml-quants.c, dequantize_row_q4_K)."""
    d, dmin, out = half(block, 0), half(block, 2), []
    scales = scales_of_k(block[4:16])
    for pair in range(4):
        quants = block[16 + 32 * pair : 48 + 32 * pair]
        for part in range(2):
            scale, least = scales[2 * pair + part]
            out += [d * scale * (q >> 4 * part & 15) - dmin * least for q in quants]
    return out


def q5_k(block: bytes) -> list[float]:
    """176 bytes: as q4_K, with the fifth bits in 32 bytes of their own."""
    d, dmin, out = half(block, 0), half(block, 2), []
    scales, high = scales_of_k(block[4:16]), block[16:48]
    for pair in range(4):
        quants = block[48 + 32 * pair : 80 + 32 * pair]
        for part in range(2):
            scale, least = scales[2 * pair + part]
            for q, fifth in zip(quants, high, strict=True):
                value = (q >> 4 * part & 15) + 16 * (fifth >> 2 * pair + part & 1)
                out.append(d * scale * value - dmin * least)
    return out


def q6_k(block: bytes) -> list[float]:
    """210 bytes: 128 of low bits, 64 of high bits, 16 signed scales, d (dequantize_row_q6_K)."""
    scales = struct.unpack_from("<16b", block, 192)
    d, out = half(block, 208), [0.0] * 256
    for side in range(2):
        low, high = block[64 * side :], block[128 + 32 * side :]
        for i in range(32):
            for quarter in range(4):
                nibble = low[i + 32 * (quarter % 2)] >> 4 * (quarter // 2) & 15
                value = (nibble | (high[i] >> 2 * quarter & 3) << 4) - 32
                scale = scales[8 * side + i // 16 + 2 * quarter]
                out[128 * side + 32 * quarter + i] = d * scale * value
    return out


@pytest.mark.parametrize(
    ("kind", "size", "heads", "definition"),
    [("Q4_K", 144, (0, 2), q4_k), ("Q5_K", 176, (0, 2), q5_k), ("Q6_K", 210, (208,), q6_k)],
)
def test_k_blocks_read_as_they_are_defined(
    kind: str, size: int, heads: tuple[int, ...], definition: Callable[[bytes], list[float]]
) -> None:
    """The Python package cannot write these, so blocks of random bits are read."""
    random = np.random.default_rng(7)
    blocks = random.integers(0, 256, (16, size), np.uint8)
    for at in heads:  # scales that are ordinary numbers
        blocks[:, at : at + 2] = random.uniform(0.01, 1, (16, 1)).astype(np.float16).view(np.uint8)
    read = gguf.dequantize(blocks.reshape(-1), Quantization[kind]).reshape(16, 256)
    assert Quantization[kind] in SUPPORTED
    expected = np.array([definition(block.tobytes()) for block in blocks], np.float32)
    np.testing.assert_allclose(read, expected, rtol=1e-6, atol=1e-6)


def test_the_embedded_tokenizer_encodes_as_transformers_does() -> None:
    ours = Tokenizer.from_str(read_gguf(smollm_folder() / SMOLLM).tokenizer_json.decode())
    theirs = AutoTokenizer.from_pretrained(str(smollm_folder()), gguf_file=SMOLLM)
    for text in (
        "Hello, world!",
        "  two  spaces, 1234567 and 3.14",
        "naïve café — 東京 🦜",
        "<|im_start|>user\nHi<|im_end|>\n",
        "def f(x):\n\treturn x**2\n\n\n",
        "don't you'll WE'VE",
        "\x00\x07 control",
    ):
        ids = ours.encode(text, add_special_tokens=False).ids
        assert ids == theirs.encode(text, add_special_tokens=False), text
        assert ours.decode(ids, skip_special_tokens=False) == text


def test_what_is_not_supported_is_refused_by_name(tmp_path: Path) -> None:
    reference = make_reference("llama-blocks")
    path = write_gguf(tmp_path / "a.gguf", reference, Quantization.TQ2_0, "llama")
    with pytest.raises(FailedPrecondition, match="TQ2_0"):
        load_model(path)
    path = write_gguf(tmp_path / "b.gguf", reference, Quantization.F16, "mamba")
    with pytest.raises(FailedPrecondition, match="mamba"):
        load_model(path)


def test_a_file_that_is_cut_short_or_is_none_is_refused(tmp_path: Path) -> None:
    path = write_gguf(tmp_path / "a.gguf", make_reference("llama-blocks"), Quantization.F16)
    whole = path.read_bytes()
    for data in (whole[:100], whole[: len(whole) // 2], b"", b"GGUF", b"\x00" * 4096):
        path.write_bytes(data)
        with pytest.raises(FailedPrecondition, match=r"a\.gguf"):
            load_model(path)
