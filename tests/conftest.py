"""Tests run side by side: one thread each, or they wait for each other."""

import torch

torch.set_num_threads(1)


def pytest_collection_modifyitems(items):
    """The groups that share a whole study come first: begun last, one worker would wait for it."""
    items.sort(key=lambda item: item.get_closest_marker("xdist_group") is None)
