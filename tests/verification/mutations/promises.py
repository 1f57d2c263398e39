"""Promises of docs/reliability.md, broken: weights, numbers, memory, threads."""

from tests.verification.mutations import Mutation

HOSTILE = "tests/checkpoints/test_hostile_weights.py::"
CHECKPOINTS = "tests/training/test_checkpoints.py::"
TILING = "tests/execution/test_tiling.py::"
EXECUTORS = "tests/execution/test_executors.py::"

PROMISES = [
    Mutation(promise, file, old, new, test)
    for promise, file, old, new, test in [
        (
            "a header's length is checked before parsing",
            "espan/checkpoints/untrusted.py",
            "        _check_header(path)\n",
            "",
            HOSTILE + "test_a_header_too_long_is_not_even_read",
        ),
        (
            "a file has few tensors",
            "espan/checkpoints/untrusted.py",
            "MAX_TENSORS = 4096",
            "MAX_TENSORS = 8192",
            HOSTILE + "test_too_many_tensors",
        ),
        (
            "archives are not decompressed",
            "espan/checkpoints/untrusted.py",
            "if one.compress_type != zipfile.ZIP_STORED",
            "if not one.filename",
            HOSTILE + "test_zip_bomb",
        ),
        (
            "the CRC-32 of an archive is checked",
            "espan/checkpoints/untrusted.py",
            "            _check_sums(archive)\n",
            "",
            CHECKPOINTS + "test_64_flipped_bytes_are_found_and_the_one_before_it_is_taken",
        ),
        (
            "a checkpoint without weights falls back to the previous one",
            "espan/training/checkpoints.py",
            "if not isinstance(parts.get(name), PARTS[name])",
            "if parts is None",
            CHECKPOINTS + "test_one_without_its_parts_is_one_line_and_the_one_before_it_is_taken",
        ),
        (
            "no code of a pickle runs",
            "espan/checkpoints/untrusted.py",
            "weights_only=True, mmap=True",
            "weights_only=False, mmap=True",
            "tests/checkpoints/test_bad_weights.py::test_code_in_a_pickle_is_not_run",
        ),
        (
            "nothing in the tree unpickles",
            "espan/system/devices.py",
            "from espan.errors import DeviceError\n",
            "from pickle import load\nfrom espan.errors import DeviceError\nread = load(None)\n",
            "tests/checkpoints/test_unpickling.py::test_nothing_in_the_tree_unpickles",
        ),
        (
            "weights are numbers",
            "espan/checkpoints/untrusted.py",
            "if not tensor.float().isfinite().all()",
            "if not key",
            HOSTILE + "test_tensors_of_other_kinds",
        ),
        (
            "built-in weights are ours",
            "espan/checkpoints/weights.py",
            "if digest and hashlib",
            "if not digest and hashlib",
            HOSTILE + "test_built_in_files_are_those_of_this_version",
        ),
        (
            "metadata cannot request an enormous network",
            "espan/checkpoints/weights.py",
            '"blocks": 64',
            '"blocks": 640',
            HOSTILE + "test_hostile_metadata",
        ),
        (
            "metadata that contradicts the network is refused",
            "espan/checkpoints/weights.py",
            "        _check_metadata(metadata, bare)\n",
            "",
            "tests/checkpoints/test_contradictions.py::test_metadata_that_contradicts_the_network",
        ),
        (
            "an image has numbers only",
            "espan/images/adapt.py",
            "if not (np.isfinite(low) and np.isfinite(high)):",
            "if low > high:",
            "tests/backends/test_adversarial.py::test_input_that_is_no_number_is_refused_or_replaced",
        ),
        (
            "NaN becomes no pixel",
            "espan/images/pixels.py",
            "if not math.isfinite(strip.sum()) and not strip.isfinite().all():",
            "if math.isinf(strip.sum()):",
            "tests/backends/test_adversarial.py::test_nothing_but_numbers_becomes_a_pixel",
        ),
        (
            "8 bits of a GPU are trusted by what the tail read",
            "espan/backends/kernels.py",
            "return y, torch.stack(ends).abs().amax() <= self.limit",
            "return y, torch.stack(ends).isfinite().any() | True",
            EXECUTORS + "test_nothing_that_is_not_a_number_becomes_a_pixel",
        ),
        (
            "overflows are recomputed in float32",
            "espan/execution/runner.py",
            "if started.dtype != torch.float32:",
            "if started.dtype == torch.float32:",
            TILING + "test_overflowed_tiles_are_computed_again_in_float32",
        ),
        (
            "the result does not depend on tiles",
            "espan/execution/runner.py",
            "return TileSchedule(n, size, tile, self.radius,",
            "return TileSchedule(n, size, tile, self.radius - 1,",
            TILING + "test_tiled_equals_untiled[7]",
        ),
        (
            "out of memory falls back to smaller tiles",
            "espan/execution/runner.py",
            "self._halve(begun.schedule, tiles, error)\n            return",
            "raise",
            TILING + "test_out_of_memory_goes_on_with_smaller_tiles",
        ),
        (
            "a lost device is reported as lost",
            "espan/system/memory.py",
            "    if lost(error):",
            "    if ran_out(error) and lost(error):",
            TILING + "test_a_lost_device_stops_at_once_and_says_so",
        ),
        (
            "a lost device ends a folder",
            "espan/batch/work.py",
            "if lost or (not",
            "if (not",
            "tests/batch/test_folder_errors.py::test_a_lost_device_ends_a_folder",
        ),
        (
            "memory is checked before any work",
            "espan/execution/host_memory.py",
            "if free is not None:",
            "if need < 0:",
            TILING + "test_memory_is_checked_before_any_work",
        ),
        (
            "training that does not fit in memory is refused",
            "espan/training/budget.py",
            "if free is not None and need > free:",
            "if free is not None and need < 0:",
            "tests/training/test_budget.py::test_what_will_not_fit_is_refused_before_anything_is_read",
        ),
        (
            "a second signal ends training immediately",
            "espan/training/stopping.py",
            "            signal.signal(number, signal.SIG_DFL)\n",
            "            pass\n",
            "tests/training/test_train_ends.py::"
            "test_a_second_signal_during_a_step_ends_the_process_at_once",
        ),
        (
            "the estimate counts every feature map",
            "espan/backends/cpu.py",
            "            most |= live\n",
            "",
            "tests/execution/test_memory.py::test_the_estimate_is_near_the_measured_peak",
        ),
        (
            "threads share no stream slot",
            "espan/execution/executors.py",
            "self._free.get(block=wait)",
            "self._free.queue[-1]",
            "tests/verification/test_rounds.py::test_250_rounds_of_eight_threads",
        ),
    ]
]
