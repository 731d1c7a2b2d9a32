"""Builds the kernel that converts pictures; all else about the package is in pyproject.toml.

It is optional: where there is no C compiler the installation goes on, and NumPy computes the same bytes.
Not in pyproject.toml, where setuptools calls extension modules experimental.
"""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "flowrun.runtime.pictures.convert._kernel",
            ["runtime/pictures/convert/kernel.c"],
            extra_compile_args=["-O3"],
            optional=True,
        )
    ]
)
