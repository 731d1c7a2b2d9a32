"""The page's modules, and what they are made of, as their tools see them."""

import subprocess

import pytest

from support.page_libraries import CHECKS, COPIES, MODULES, VENDOR, copied

pytestmark = [pytest.mark.slow, pytest.mark.real]


@pytest.fixture(scope="module", autouse=True)
def _installed():
    if not MODULES.is_dir():
        pytest.fail("these tests need npm's packages: make tests/page/node_modules", pytrace=False)


def test_the_types_of_the_page_are_right():
    tsc = next(MODULES.glob("@typescript/typescript-*/lib/tsc"))
    found = subprocess.run([tsc, "--project", CHECKS], capture_output=True, text=True, check=False)
    assert (found.stdout, found.returncode) == ("", 0)


@pytest.mark.parametrize("name", COPIES)
def test_a_library_of_the_page_is_that_of_npm(name):
    copy = (VENDOR / name).read_text(encoding="utf-8")
    assert copy == copied(COPIES[name])
