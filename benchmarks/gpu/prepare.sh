#!/usr/bin/env bash
# What benchmarks/gpu.sh needs on a machine with a GPU and nothing else: Python packages as wheels (.whl) and the training
# data, cropped and packed (.gpu). Both folders are ignored by git; take them along with the repository.
set -euo pipefail
cd "$(dirname "$0")/../.."
python="${PYTHON:-.venv/bin/python}"
rm -rf .whl && mkdir -p .whl
"$python" -m pip download -q --no-deps --only-binary=:all: --python-version "${GPU_PYTHON:-3.12}" --implementation cp \
  --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
  -d .whl monai==1.6.1 nibabel==5.4.2 dask==2026.8.0 pydantic==2.14.3 pydantic_core==2.50.4 isal==1.9.1 \
  lightning-fabric==2.6.6 toolz==1.2.0 partd==1.4.2 locket==1.0.0 importlib_metadata==10.2.0 \
  annotated-types==0.8.0 typing-inspection==0.4.5
"$python" -m benchmarks.gpu.pack
du -sh .whl .gpu
