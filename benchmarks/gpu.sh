#!/usr/bin/env bash
# Everything that wants a GPU, on a machine that has one and nothing else: correctness, the shipped weights, the figures.
#
#   benchmarks/gpu/prepare.sh                    here, where there is a network: fills .whl and .gpu
#   benchmarks/gpu.sh                            there: check, train (20 minutes in all), bench
#   benchmarks/gpu.sh check bench                some of it
#   MINUTES=4 benchmarks/gpu.sh train mri-x2     one network
#   benchmarks/gpu.sh --cpu-dry                  the whole script in small on a CPU, to see that it works
#
# Results lie in $OUT (out/gpu where it is not set): weights, records, curves, REPORT.md, and all of them in results.tar.
set -euo pipefail
cd "$(dirname "$0")/.."
export PYTHONUNBUFFERED=1
python="${PYTHON:-python3}"
out="${OUT:-out/gpu}"
minutes="${MINUTES:-4.2}"
device=cuda
dry=()
if [[ "${1:-}" == --cpu-dry ]]; then
  shift
  device=cpu
  dry=(--dry)
elif compgen -G ".whl/*.whl" >/dev/null; then
  "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target /tmp/site .whl/*.whl
  export PYTHONPATH=/tmp/site
fi
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
mkdir -p "$out"
stages=()
names=()
for word in "$@"; do
  case "$word" in
    check | train | bench) stages+=("$word") ;;
    *) names+=("$word") ;;
  esac
done
[[ ${#stages[@]} -gt 0 ]] || stages=(check train bench)
"$python" -c 'import torch; print(torch.__version__, torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU")'
for stage in "${stages[@]}"; do
  echo "== $stage, $(date -u +%H:%M:%S)"
  case "$stage" in
    check)
      mapfile -t marked < <(grep -rl "mark.gpu" tests --include='test_*.py')
      [[ "$device" == cpu || ${#marked[@]} -eq 0 ]] || "$python" -m pytest -q -m gpu "${marked[@]}"
      "$python" -m benchmarks.gpu.agree --device "$device"
      ;;
    train)
      "$python" -m benchmarks.gpu.train --minutes "$minutes" --device "$device" --output "$out" "${dry[@]}" "${names[@]}"
      ;;
    bench)
      if [[ "$device" == cpu ]]; then
        "$python" -m benchmarks.gpu.throughput --device cpu --scene 128 --volume 32 --runs 1 --output "$out"
        "$python" -m benchmarks.training --device cpu --batch 2 --turns 1 --steps 1 --output "$out/training.md"
      else
        "$python" -m benchmarks.gpu.throughput --output "$out"
        "$python" -m benchmarks.training --device cuda --batch 64 --turns 5 --steps 40 --workers 8 --output "$out/training.md"
      fi
      cat "$out/training.md" >>"$out/REPORT.md"
      ;;
  esac
done
(cd "$out" && tar cf results.tar --exclude=results.tar --exclude='*.state.pt' .)
echo "== done, $(date -u +%H:%M:%S): $out"
