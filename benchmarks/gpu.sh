#!/bin/sh
# Measures training on one GPU in at most 8 minutes, with no network: `sh benchmarks/gpu.sh`, from the clone's root.
# Wheels lie beside it, fetched where there is a network and the same Python, torch and CUDA:
#   pip download --only-binary :all: -c constraints.txt -d benchmarks/wheels '.[train]' liger-kernel flash-attn
# Without flash-attn or liger-kernel those ways are named as not measured. `--toy` tries all of it on a CPU.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
wheels=benchmarks/wheels
if ls "$wheels"/*.whl >/dev/null 2>&1; then
    "$python" -m venv --system-site-packages .gpu-venv
    python=$PWD/.gpu-venv/bin/python
    "$python" -m pip install --quiet --no-index --find-links "$wheels" --no-deps "$wheels"/*.whl
fi
export HF_HUB_OFFLINE=1 TOKENIZERS_PARALLELISM=false
if [ "${1:-}" = --toy ]; then
    export OMP_WAIT_POLICY=PASSIVE OMP_NUM_THREADS=1
    exec "$python" -m benchmarks.gpu --toy --rows 8 --minutes 60
fi
exec timeout 480 "$python" -m benchmarks.gpu --minutes 7 "$@"
