#!/usr/bin/env bash
# What benchmarks/gpu.sh needs on a machine with a GPU and nothing else: Python packages as wheels (.whl), rasterio as an
# unpacked archive, which is smaller (.rio), and the training data, cropped and packed (.gpu). All are ignored by git; take
# them along with the repository. Not all at once fit into 64 MiB: the script says what goes together.
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
rm -rf .rio && mkdir -p .rio
pinned=()
for package in rasterio affine cligj; do
  pinned+=("$(grep -i "^$package==" constraints.txt)")
done
"$python" -m pip install -q --no-deps --only-binary=:all: --python-version "${GPU_PYTHON:-3.12}" --implementation cp \
  --platform manylinux_2_28_x86_64 --platform manylinux_2_17_x86_64 --platform manylinux2014_x86_64 \
  --target .rio/site "${pinned[@]}"
tar -C .rio/site -cJf .rio/site.tar.xz . && rm -rf .rio/site
"$python" -m benchmarks.gpu.pack
# carried MIB: PATH...: says what the repository and these take, and fails where it is more than travels
carried() {
  local mib=$(( ($(git ls-files -z | xargs -0 cat | wc -c) + $(find "${@:2}" -type f -print0 | xargs -0 cat | wc -c)) / 1048576 + 1 ))
  echo "$1: carry ${*:2}: $mib MiB, the repository included"
  [[ "$mib" -le 64 ]] || { echo "that is more than the 64 MiB that travel" >&2; exit 1; }
}
carried train .whl .gpu
carried "check, bench" .whl .rio .gpu/manifest.json .gpu/sentinel2_10m_b02b03b04b08.xz .gpu/t1_colin27_1mm.xz
