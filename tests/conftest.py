"""Fixtures that tests of several rooms share."""

import pytest
from painted import make_trace

from scribblediffusion.attention.trace import AttentionTrace


@pytest.fixture(scope="session")
def trace() -> AttentionTrace:
    """Twenty steps with pictures."""
    return make_trace()


@pytest.fixture(scope="session")
def bare_trace() -> AttentionTrace:
    """Two steps, no pictures of any kind."""
    return make_trace(steps=2, with_pictures=False)
