"""Of base weights of eight bits."""

from tests.mutations.mutation import Mutation

_KERNELS = "tests/unit/gpu_worker/test_quantised.py::"
_MODELS = "tests/unit/gpu_worker/test_quantised_models.py::"
_BOUNDS = "tests/property/test_quantisation.py::"
_CUDA = "tests/gpu/test_quantised.py::"
_SETTINGS = "tests/unit/runtime/test_settings.py::"

QUANTISED: dict[str, Mutation] = {
    "the largest weight does not fit into eight bits": Mutation(
        "gpu_worker/kernels/rounding.py",
        "scales = weight.abs().amax(1) / MOST",
        "scales = weight.abs().amax(1) / (MOST + 1)",
        _BOUNDS + "test_a_weight_is_at_most_half_a_scale_away",
    ),
    "a row is rounded by the scale of another": Mutation(
        "gpu_worker/kernels/cpu/quantised.h",
        "most = largest(from, k);",
        "most = largest(x, k);",
        _KERNELS + "test_a_row_is_the_same_in_every_batch[3-33-int8-dynamic]",
    ),
    "more is added up than sixteen bits hold": Mutation(
        "gpu_worker/kernels/cpu/quantised.h",
        "signs = _mm256_sign_epi8(*(const __m256i_u *)b, a);\n"
        "    const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(a), signs);",
        "more = _mm256_xor_si256(a, _mm256_set1_epi8(-128)), w = *(const __m256i_u *)b;\n"
        "    const __m256i pairs = _mm256_sub_epi16(_mm256_maddubs_epi16(more, w),"
        " _mm256_maddubs_epi16(_mm256_set1_epi8(-128), w));",
        _KERNELS + "test_every_processor_adds_up_the_same[AVX2]",
    ),
    "rounded weights have another site to adapters": Mutation(
        "gpu_worker/kernels/cpu/quantised.py",
        "        self.site = site\n",
        "        self.site = 0\n",
        _KERNELS + "test_adapters_add_what_they_add_to_inputs_as_they_are",
    ),
    "inputs are rounded where only weights should be": Mutation(
        "gpu_worker/kernels/cpu/device.py",
        'dynamic = self.weights == "int8-dynamic"',
        "dynamic = True",
        _MODELS + "test_a_model_of_eight_bits_is_one_of_the_rounded_weights",
    ),
    "keys and values go to weights of another kind": Mutation(
        "gpu_worker/kernels/cpu/device.py",
        'return str(self.dtype) if self.weights == "float32" else f"{self.dtype}, {self.weights}"',
        "return str(self.dtype)",
        _MODELS + "test_keys_and_values_go_only_to_weights_of_the_same_kind",
    ),
    "adapters are merged into rounded weights": Mutation(
        "gpu_worker/kernels/cpu/quantised.py",
        "raise FailedPrecondition(NOT_MERGED)",
        "return super().twin()",
        _MODELS + "test_merging_into_rounded_weights_is_refused",
    ),
    "settings allow to merge into rounded weights": Mutation(
        "gpu_worker/settings.py",
        'if self.merging != "off" and self.weights != "float32":',
        "if False:",
        _SETTINGS + "test_adapters_are_merged_into_floats_alone",
    ),
    "inputs are not rounded on CUDA, whatever was asked for": Mutation(
        "gpu_worker/kernels/choice.py",
        'if weights == "int8-dynamic":',
        "if False:",
        _CUDA + "test_what_cannot_be_is_refused",
    ),
    "CUDA leaves weights as they are, whatever was asked for": Mutation(
        "gpu_worker/kernels/cuda/device.py",
        '        if self.weights == "float32":\n            return Linear',
        "        if True:\n            return Linear",
        _CUDA + "test_what_cannot_be_is_refused",
    ),
    "rounded weights do without kernels": Mutation(
        "gpu_worker/kernels/cpu/quantised.py",
        "if self._library is None:",
        "if False:",
        _MODELS + "test_without_kernels_in_c_they_are_refused",
    ),
    "a block of outputs has the scales of the first": Mutation(
        "gpu_worker/kernels/cuda/quantised.py",
        "scale = tl.load(scales + output, mask=is_output, other=0.0)",
        "scale = tl.load(scales + tl.arange(0, WIDTH), mask=is_output, other=0.0)",
        _CUDA + "test_a_product_is_that_of_the_rounded_weights[bfloat16-3-48-140]",
    ),
    "a part of a sum is left out": Mutation(
        "gpu_worker/kernels/cuda/quantised.py",
        "for part in range(parts):",
        "for part in range(1, parts):",
        _CUDA + "test_a_product_is_that_of_the_rounded_weights[bfloat16-3-513-33]",
    ),
    "weights are rounded for a prompt that are not for a token": Mutation(
        "gpu_worker/kernels/cuda/quantised.py",
        "torch.mul(self._weight, self._scales.unsqueeze(1), out=whole)",
        "torch.mul(self._weight, self._scales.mean(), out=whole)",
        _CUDA + "test_a_product_is_that_of_the_rounded_weights[bfloat16-150-48-140]",
    ),
}
