"""Shared fixtures: the data folder beside the repository, a small network, the host build."""

import os
import signal
from pathlib import Path

import pytest
from filelock import FileLock

if "PYTEST_XDIST_WORKER" in os.environ:
    # One worker runs per core, so more threads would only wait for each other. torch reads this
    # once, at import; child processes inherit it.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    # Tests of several threads share the cores with other workers: a thread that spins at a barrier
    # takes the time of the thread it waits for.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from tests.support.gpu import GPU

if not GPU:
    # Before anything imports triton, which reads it once.
    os.environ["TRITON_INTERPRET"] = "1"

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # A background job of a shell ignores SIGINT, and so would the processes that tests start.
    signal.signal(signal.SIGINT, signal.default_int_handler)

from espan_kernels import native
from tests.support import shim as host
from tests.support.guards import guard_bands, kernel_device
from tests.support.makers import random_net

__all__ = ["guard_bands", "kernel_device"]


def pytest_collection_modifyitems(items):
    if not GPU:
        skip = pytest.mark.skip(reason="no CUDA device")
        for item in items:
            if "gpu" in item.keywords:
                item.add_marker(skip)


@pytest.fixture(autouse=hasattr(os, "sched_getscheduler"))
def scheduling_unchanged():
    """Fails a test that leaves this process at real-time priority, which starves later tests."""
    before = os.sched_getscheduler(0)
    yield
    assert os.sched_getscheduler(0) == before


@pytest.fixture(scope="session")
def run_folder(request, tmp_path_factory) -> Path:
    """A temporary folder that all workers of this run share."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if hasattr(request.config, "workerinput") else own


@pytest.fixture(autouse=GPU)
def gpu_lock(request, run_folder):
    """Runs tests marked gpu one at a time across all workers, which may share one GPU."""
    if "gpu" in request.keywords:
        with FileLock(run_folder / "gpu.lock"):
            yield
    else:
        yield


@pytest.fixture(scope="session")
def shim_objects(run_folder):
    """csrc compiled for the CPU, by the first worker that needs it."""
    if reason := host.missing():
        pytest.skip(reason)
    with FileLock(run_folder / "shim.lock"):
        return host.objects(run_folder / "shim")


@pytest.fixture(scope="session")
def shim_module(shim_objects, tmp_path_factory):
    return host.load(shim_objects, tmp_path_factory.mktemp("shim"))


@pytest.fixture
def use_module(monkeypatch):
    """use_module(module): kernels run in this module of the host build, on CPU tensors."""

    def use_module(module):
        monkeypatch.setattr(native, "MODULE", module)
        monkeypatch.setattr(native, "REASON", None)
        monkeypatch.setattr(native, "DEVICE", module.DEVICE)

    return use_module


@pytest.fixture
def host_build(shim_module, use_module):
    """impl="cuda" runs in the host build, on CPU tensors."""
    shim_module.seed(0)
    use_module(shim_module)


@pytest.fixture
def shim(request):
    """impl="cuda" runs on tensors of `tests.support.gpu.DEVICE`."""
    if not GPU:
        request.getfixturevalue("host_build")


@pytest.fixture
def shared() -> Path:
    folder = Path(os.environ.get("ESPAN_SHARED", Path(__file__).parents[2] / "shared"))
    if not (folder / "data/benchmark").is_dir():
        pytest.skip(f"no benchmark data in {folder}; set ESPAN_SHARED")
    return folder


@pytest.fixture
def net():
    """A small x4 network with a radius of 9 pixels and large biases."""
    return random_net()


@pytest.fixture
def weights(tmp_path, net) -> str:
    """The path of a file with the weights of `net`, alone in its folder."""
    from espan import save

    folder = tmp_path / "weights"
    folder.mkdir()
    save(net, folder / "tiny.safetensors")
    return str(folder / "tiny.safetensors")
