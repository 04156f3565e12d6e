"""Packages and native libraries of lowbit; everything else stands in pyproject.toml."""

from setuptools import find_packages, setup

from _native_build import NativeBuild, native_extensions

# Folders that live at the top of the tree and install below lowbit.
MAPPED = {"lowbit.triton_kernels": "triton_kernels", "lowbit.bench.peers": "bench/peers"}


def all_packages() -> list[str]:
    packages = find_packages("python")
    for name, folder in MAPPED.items():
        packages += [name, *(f"{name}.{sub}" for sub in find_packages(folder))]
    return packages


setup(
    packages=all_packages(),
    package_dir={"": "python", **MAPPED},
    package_data={"lowbit": ["py.typed"], "lowbit.bench.bars": ["*.json"]},
    ext_modules=native_extensions(),
    cmdclass={"build_ext": NativeBuild},
    zip_safe=False,
)
