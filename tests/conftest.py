"""What every run of the tests begins with."""

import gc


def pytest_collection_finish(session):
    """Keep the garbage collector from the thousands of tests, which it would look through again and again."""
    gc.collect()
    gc.freeze()
