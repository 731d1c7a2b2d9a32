"""The page's modules, and what they are made of, as their tools see them."""

import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "page"
MODULES = PAGE / "node_modules"
sys.path.insert(0, str(PAGE))
import vendor  # noqa: E402  # the script that copies them

pytestmark = [pytest.mark.slow, pytest.mark.real]


@pytest.fixture(scope="module", autouse=True)
def _installed():
    if not MODULES.is_dir():
        pytest.fail("these tests need npm's packages: make tests/page/node_modules", pytrace=False)


def test_the_types_of_the_page_are_right():
    tsc = next(MODULES.glob("@typescript/typescript-*/lib/tsc"))
    found = subprocess.run([tsc, "--project", PAGE], capture_output=True, text=True, check=False)
    assert (found.stdout, found.returncode) == ("", 0)


@pytest.mark.parametrize("name", vendor.COPIES)
def test_a_library_of_the_page_is_that_of_npm(name):
    copy = (vendor.VENDOR / name).read_text(encoding="utf-8")
    assert copy == vendor.copied(vendor.COPIES[name])
