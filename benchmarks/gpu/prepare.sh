#!/usr/bin/env bash
# What benchmarks/gpu.sh needs on a machine with a GPU and nothing else: Python packages as wheels (.whl) and the training
# data, cropped and packed (.gpu). Both folders are ignored by git; take them along with the repository.
set -euo pipefail
cd "$(dirname "$0")/../.."
python="${PYTHON:-.venv/bin/python}"
rm -rf .whl && mkdir -p .whl
packages=(monai nibabel dask pydantic pydantic_core isal lightning-fabric toolz partd locket importlib_metadata
  annotated-types typing-inspection)
pinned=()
for package in "${packages[@]}"; do
  pinned+=("$(grep -i "^$package==" constraints.txt)")
done
"$python" -m pip download -q --no-deps --only-binary=:all: --python-version "${GPU_PYTHON:-3.12}" --implementation cp \
  --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
  -d .whl "${pinned[@]}"
"$python" -m benchmarks.gpu.pack
du -sh .whl .gpu
mib=$(( ($(git ls-files -z | xargs -0 cat | wc -c) + $(cat .whl/* .gpu/* | wc -c)) / 1048576 + 1 ))
echo "$mib MiB to take along, the repository included"
[[ "$mib" -le 64 ]] || { echo "that is more than the 64 MiB that travel" >&2; exit 1; }
