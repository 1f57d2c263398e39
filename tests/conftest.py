"""What tests share: the data folder beside the repository, a small network, the host build."""

import os
import signal
from pathlib import Path

import pytest
from filelock import FileLock

if "PYTEST_XDIST_WORKER" in os.environ:
    # As many workers run as there are cores: more threads would only wait for each other. Set
    # before torch is imported, which reads it once; what tests start inherits it.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

from tests.support.gpu import GPU

if not GPU:
    # Before anything imports triton, which reads it once.
    os.environ["TRITON_INTERPRET"] = "1"

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    # So it is in the background of a shell, and what tests start would never be interrupted.
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
    """A process at real time's priority starves what it waits for: the tests after this one."""
    before = os.sched_getscheduler(0)
    yield
    assert os.sched_getscheduler(0) == before


@pytest.fixture(scope="session")
def run_folder(request, tmp_path_factory) -> Path:
    """A temporary folder that all workers of this run have in common."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if hasattr(request.config, "workerinput") else own


@pytest.fixture(autouse=GPU)
def gpu_lock(request, run_folder):
    """Tests marked gpu take turns, whichever worker has them: there may be one GPU for all."""
    if "gpu" in request.keywords:
        with FileLock(run_folder / "gpu.lock"):
            yield
    else:
        yield


@pytest.fixture(scope="session")
def shim_objects(run_folder):
    """csrc compiled for the CPU, by the worker that is the first to need it."""
    if reason := host.missing():
        pytest.skip(reason)
    with FileLock(run_folder / "shim.lock"):
        return host.objects(run_folder / "shim")


@pytest.fixture(scope="session")
def shim_module(shim_objects, tmp_path_factory):
    return host.load(shim_objects, tmp_path_factory.mktemp("shim"))


@pytest.fixture
def use(monkeypatch):
    """Makes a module of the host build the one that kernels run in, on tensors of the CPU."""

    def use(module):
        monkeypatch.setattr(native, "MODULE", module)
        monkeypatch.setattr(native, "REASON", None)
        monkeypatch.setattr(native, "DEVICE", module.DEVICE)

    return use


@pytest.fixture
def host_build(shim_module, use):
    """impl="cuda" runs in the host build, on tensors of the CPU."""
    shim_module.seed(0)
    use(shim_module)


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
    """x4, radius 9, large biases."""
    return random_net()


@pytest.fixture
def weights(tmp_path, net) -> str:
    """The file of `net`, in a folder of its own."""
    from espan import save

    folder = tmp_path / "weights"
    folder.mkdir()
    save(net, folder / "tiny.safetensors")
    return str(folder / "tiny.safetensors")
