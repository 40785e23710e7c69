"""Measured rates and autotuning results of a test run go to a folder of their own."""

import os
import tempfile


def pytest_configure():
    """Choose the cache folder once; worker processes inherit it."""
    if "TWOPHASE_TEST_CACHE" not in os.environ:
        os.environ["TWOPHASE_TEST_CACHE"] = tempfile.mkdtemp(prefix="twophase-cache-")
    os.environ["TWOPHASE_CACHE_DIR"] = os.environ["TWOPHASE_TEST_CACHE"]
