"""Tests run side by side: one thread each, or they wait for each other."""

import hypothesis
import torch

torch.set_num_threads(1)
# How long an example takes says more about the machine than about the code.
hypothesis.settings.register_profile("tests", deadline=None)
hypothesis.settings.load_profile("tests")


def pytest_collection_modifyitems(items):
    """The groups that share a whole study come first: begun last, one worker would wait for it."""
    items.sort(key=lambda item: item.get_closest_marker("xdist_group") is None)
