"""Of the command line."""

from tests.mutations.mutation import Mutation

CLI = {
    "a link leads out of an imported folder": Mutation(
        "cli/sources/folders.py",
        "if not path.resolve().is_relative_to(within):",
        "if False:",
        "tests/unit/cli/test_sources.py::test_no_link_leads_outside",
    ),
    "a name leads out of an archive": Mutation(
        "cli/sources/archives.py",
        'if entry.path.is_absolute() or ".." in entry.path.parts:',
        "if False:",
        "tests/unit/cli/test_sources.py::test_nothing_leads_outside_of_an_archive",
    ),
    "a tar's link is followed": Mutation(
        "cli/sources/archives.py",
        "plain=info.isreg() and not info.issparse(),",
        "plain=True,",
        "tests/unit/cli/test_sources.py::test_a_tar_with_anything_but_files_is_refused",
    ),
    "an archive is unpacked without end": Mutation(
        "cli/sources/archives.py",
        "self._limit = limit",
        "self._limit = sys.maxsize",
        "tests/unit/cli/test_sources.py::test_a_tar_bomb_is_not_unpacked_even_to_pass_over_it",
    ),
    "an archive's checksum is not read": Mutation(
        "cli/sources/archives.py",
        "while unpack and guarded.read(CHUNK_BYTES):",
        "while False:",
        "tests/unit/cli/test_sources.py::test_a_damaged_archive_is_one_sentence",
    ),
    "ranges of two objects are mixed": Mutation(
        "cli/sources/s3.py",
        '"if_match": entry["e_tag"]',
        '"if_match": None',
        "tests/unit/cli/test_s3.py::test_an_object_that_changes_meanwhile_is_not_mixed",
    ),
    "an imported GGUF adapter keeps llama.cpp's order of rows": Mutation(
        "cli/sources/gguf.py",
        'PERMUTED = ("llama",)',
        "PERMUTED = ()",
        "tests/contract/test_gguf_adapters.py::test_every_tensor_is_back_bit_for_bit",
    ),
    "an imported GGUF adapter loses a rank": Mutation(
        "cli/sources/gguf.py",
        '"rank_pattern": pattern,',
        '"rank_pattern": {},',
        "tests/contract/test_gguf_adapters.py::test_ranks_and_layers_of_their_own_are_kept",
    ),
    "an exported B lies the wrong way": Mutation(
        "cli/export.py",
        "named if form < TRANSPOSED",
        "named if form <= TRANSPOSED",
        "tests/contract/test_export.py::test_peft_loads_what_it_had_saved",
    ),
}
