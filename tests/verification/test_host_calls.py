"""The overhead of a call is measured for every kind of image."""

import torch

from tests.verification import host_calls


def test_every_kind_of_image_has_a_cost():
    threads = torch.get_num_threads()
    try:
        found = host_calls.measured(rounds=1, calls=1)
    finally:
        torch.set_num_threads(threads)
    assert len(found) == 6 and min(found.values()) > 0
