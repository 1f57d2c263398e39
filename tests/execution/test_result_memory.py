"""Memory of results on the host: pinned within a budget, whatever callers do with it."""

import gc

import numpy as np
import pytest
import torch

from espan import Upscaler
from espan.system import pinned
from tests.execution.test_host_path import EAGER, KINDS, NET, alone, same
from tests.support.makers import noise
from tests.support.threads import same_bits_in_threads
from tests.support.transfers import Pages, on_device


@pytest.fixture(autouse=True)
def said_anew():
    pinned._warn.cache_clear()


def test_memory_kept_by_callers_is_bounded_and_reused():
    images = [noise(6, 6, 3, seed=n % 7) for n in range(90)]
    want = [alone(image) for image in images[:7]]
    budget = 20 * 2048  # of 24 x 24 x 3 bytes each, rounded up like in the cache
    with on_device(NET, budget, **EAGER) as (up, _, pages):
        kept = []
        for image in images:
            kept.append(up(image))
            assert pages.locked <= budget
        assert pages.locked == budget
        assert all(same(each, want[n % 7]) for n, each in enumerate(kept))
        del kept[:10]
        again = [up(image) for image in images[:15]]
        assert pages.locked == budget and sum(pages.has(torch.from_numpy(a)) for a in again) == 10
        # Blocks of another size replace unused blocks.
        del kept, again
        gc.collect()
        large = up(noise(20, 20, 3))
        assert pages.has(torch.from_numpy(large)) and pages.locked == 32768


@pytest.mark.parametrize("kind", ["RGB", "CHW", "PIL"])
def test_views_of_a_result_keep_its_memory(kind):
    with on_device(NET, **EAGER) as (up, _, _):
        held = up._runner.empty._held
        result = up(KINDS[kind])
        part = np.asarray(result)[1:] if kind == "PIL" else result[1:][0]
        if kind == "PIL":
            part = result  # asarray has copied the pixels
        del result
        before = np.asarray(part).copy()
        up(KINDS[kind])
        assert sum(held.values()) == 1 and np.array_equal(np.asarray(part), before)
        del part
        gc.collect()
        assert not sum(held.values())


def test_a_result_is_the_callers_to_change():
    image = KINDS["RGB"]
    want = alone(image)
    with on_device(NET, **EAGER) as (up, _, _):
        first = up(image)
        first[:] = 0
        second = up(image)
        result = up(KINDS["PIL"])
        result.putpixel((0, 0), (1, 2, 3))
        assert same(second, want) and not first.any()
        assert same(up(KINDS["PIL"]), alone(KINDS["PIL"]))


def test_a_result_may_go_while_the_next_is_computed():
    image = KINDS["RGB"]
    want = alone(image)
    with on_device(NET, 1 << 20, tile=26, **EAGER) as (up, _, pages):
        kept = []
        for _ in range(5):
            kept.append(up(image, progress=lambda done, total: kept.clear()))
            assert same(kept[0], want)
        assert pages.locked <= 2 * 32768


def test_threads_share_the_budget():
    # The make-believe device supports one thread only; memory for results supports many.
    pages = Pages()
    results = pinned.Results(3 * 8192, pages.lock, pages.unlock_unused)
    up = Upscaler(NET, device="cpu", tile=20, **EAGER)
    up._runner.empty = results
    same_bits_in_threads(up, [noise(20, 10 + n, 3, seed=n) for n in range(8)], 5)
    gc.collect()
    assert pages.locked <= 3 * 8192 and not sum(results._held.values())


@pytest.mark.parametrize("kind", ["RGB", "PIL", "CHW"])
def test_no_locked_pages_are_said_once_and_harm_nothing(kind, caplog):
    image = KINDS[kind]
    want = alone(image)
    with on_device(NET, pages=Pages(0), **EAGER) as (up, _, _):
        for _ in range(3):
            assert same(up(image), want)
    said = [record.getMessage() for record in caplog.records]
    why = "CUDA error: out of memory while locking pages"
    assert said == [f"no pinned host memory, copies to and from the GPU are slower: {why}"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="has locked pages")
def test_a_machine_without_a_gpu_has_none(caplog):
    results = pinned.Results(1 << 20)
    for _ in range(2):
        assert results((3, 4), torch.uint16).shape == (3, 4)
    assert pinned.staging(torch.empty(2, 3)).shape == (2, 3)
    assert len(caplog.records) == 1 and results.budget == 0


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("shape", [(), (1,), (3, 5), (0, 4)], ids=str)
def test_memory_for_results(shape, dtype):
    pages = Pages()
    for empty in (pinned.pageable, pinned.Results(1 << 20, pages.lock, pages.unlock_unused)):
        made = empty(shape, dtype)
        assert made.shape == shape and made.dtype == dtype and made.is_contiguous()
        made.fill_(1)


def test_thousands_of_results_stay_within_the_budget():
    pages = Pages()
    results = pinned.Results(100 * 2048, pages.lock, pages.unlock_unused)
    kept = [results((24, 24, 3), torch.uint8).fill_(n % 251) for n in range(5000)]
    assert pages.locked == 100 * 2048 and sum(map(pages.has, kept[:200])) == 100
    assert all(bool((each == n % 251).all()) for n, each in enumerate(kept))


def test_locking_that_failed_is_not_tried_again():
    tried = []

    def lock(size: int):
        tried.append(size)
        raise RuntimeError("CUDA error: out of memory")

    results = pinned.Results(1 << 20, lock, lambda: None)
    for _ in range(4):
        results((1024,), torch.uint8)
        results((3000,), torch.uint8)
    assert len(tried) == 1 and not +results._held and not +results._locked
