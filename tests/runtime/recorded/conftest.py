"""A run with pictures, answers, boxes, an error and a changed prompt."""

import pytest
import structlog

from support.answer_tasks import answered


@pytest.fixture(scope="package")
def run(tmp_path_factory):
    """Its directory, which no test changes."""
    found = answered(tmp_path_factory.mktemp("recorded"))
    structlog.reset_defaults()
    return found
