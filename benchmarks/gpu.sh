#!/usr/bin/env bash
# Everything that wants a GPU, on a machine that has one and nothing else: correctness, the shipped weights, the figures.
#
#   benchmarks/gpu/prepare.sh                    here, where there is a network: fills .whl, .rio and .gpu
#   benchmarks/gpu.sh                            there: check (at most 2.5 minutes), train (18), bench (7)
#   benchmarks/gpu.sh check bench                some of it
#   MINUTES=8 benchmarks/gpu.sh train mri-x2 mri-z4    two of the networks in 8 minutes, all told
#   benchmarks/gpu.sh --cpu-dry                  the whole script in small on a CPU, to see that it works: four minutes of a core
#
# MINUTES is what the networks that are named may take together, reading and scoring included (16 where it is not set).
# Where one command may take ten minutes and 64 MiB travel, as on a lent machine, split it (prepare.sh says what to carry):
#   benchmarks/gpu.sh check bench; MINUTES=8 benchmarks/gpu.sh train mri-x2 mri-z4; MINUTES=8 … train ct-x2 s2-x2
# Results lie in $OUT (out/gpu where it is not set): weights, records, curves, REPORT.md, and all of them in results.tar.
# A lent machine sets OUT and gives eight files back: where there are more, only REPORT.md and results.tar are left.
# What takes longer than its time is ended; what follows is still done, and the script says so and fails at its end.
set -euo pipefail
cd "$(dirname "$0")/.."
export PYTHONUNBUFFERED=1
python="${PYTHON:-python3}"
out="${OUT:-out/gpu}"
minutes="${MINUTES:-16}"
device=cuda
dry=()
if [[ "${1:-}" == --cpu-dry ]]; then
  shift
  device=cpu
  dry=(--dry)
elif compgen -G ".whl/*.whl" >/dev/null; then
  "$python" -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target /tmp/site .whl/*.whl
  [[ ! -e .rio/site.tar.xz ]] || "$python" -m tarfile -e .rio/site.tar.xz /tmp/site
  export PYTHONPATH=/tmp/site
fi
[[ -e .gpu/manifest.json ]] || { echo "no .gpu here: run benchmarks/gpu/prepare.sh where there is a network" >&2; exit 2; }
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
mkdir -p "$out"
failed=()
# within SECONDS COMMAND...: on a CPU there is no limit, for a dry run is no measurement
within() {
  local seconds="$1"
  shift
  if [[ "$device" == cpu ]]; then "$@"; else timeout "$seconds" "$@"; fi || failed+=("$*")
}
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
      [[ "$device" == cpu || ${#marked[@]} -eq 0 ]] || within 75 "$python" -m pytest -q -m gpu "${marked[@]}"
      within 75 "$python" -m benchmarks.gpu.agree --device "$device"
      ;;
    train)
      within "$("$python" -c "print(int(60 * ($minutes + 2)))")" \
        "$python" -m benchmarks.gpu.train --minutes "$minutes" --device "$device" --output "$out" "${dry[@]}" "${names[@]}"
      ;;
    bench)
      if [[ "$device" == cpu ]]; then
        within 0 "$python" -m benchmarks.gpu.throughput --device cpu --scene 128 --volume 32 --runs 1 --output "$out"
        within 0 "$python" -m benchmarks.gpu.scene --device cpu --side 256 --part 128 --runs 1 --output "$out"
        within 0 "$python" -m benchmarks.training --device cpu --batch 2 --turns 1 --steps 1 --output "$out/training.md"
      else
        within 100 "$python" -m benchmarks.gpu.throughput --output "$out"
        within 160 "$python" -m benchmarks.gpu.scene --output "$out"
        within 160 "$python" -m benchmarks.training --device cuda --batch 64 --turns 3 --steps 30 --workers 8 \
          --output "$out/training.md"
      fi
      [[ ! -e "$out/training.md" ]] || cat "$out/training.md" >>"$out/REPORT.md"
      ;;
  esac
done
(cd "$out" && tar cf results.tar --exclude=results.tar --exclude='*.state.pt' .)
if [[ -n "${OUT:-}" && $(find "$out" -type f | wc -l) -gt 8 ]]; then
  find "$out" -type f ! -name results.tar ! -name REPORT.md -delete
fi
echo "== done, $(date -u +%H:%M:%S): $out"
for command in "${failed[@]}"; do echo "FAILED, or out of time: $command"; done
[[ ${#failed[@]} -eq 0 ]]
