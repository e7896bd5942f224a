"""Which folders are packed: those of sciSR, and configs/ as sciSR/configs; the rest is said in pyproject.toml."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["sciSR", "sciSR.*"]), "sciSR.configs"],
    package_dir={"sciSR.configs": "configs"},
)
