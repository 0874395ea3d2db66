#!/bin/bash
# The first nine minutes on a GPU: is it right, what does the headline say, what does the noise take.
#
#   bash tests/on_a_gpu.sh [FOLDER]      FOLDER, default results/cost/gpu: records, tables and figures
#
# Needs: what pip install -e '.[test,gpu]' installs, and a C compiler. Ends within nine minutes; each part says how long it
# took, and a part that fails does not stop the next ones. Only files with GPU tests are imported, a warning of another
# library ends none of them, and what compiles or fills the memory is left to `pytest -m gpu`. `bench cost` goes on where it
# stopped when it is repeated.
cd "$(dirname "$0")/.." || exit
folder=${1:-results/cost/gpu}
failed=0

part() {
    local name=$1 limit=$2 started=$SECONDS
    shift 2
    echo "== $name: $*"
    timeout -s INT -k 10 "$limit" "$@" || { local code=$?; failed=1; echo "== $name FAILED with exit code $code"; }
    echo "== $name took $((SECONDS - started)) s"
}

noise() {
    python - <<'PYTHON'
import torch

from bench.device.hardware import device_name, resolve_device
from bench.device.timing import Work, instruments, seconds_of
from bench.smoothing import noise

device = resolve_device("cuda")
meters = instruments(device)
print(device_name(device), "-", noise.drawn_with(device))
images, index = torch.rand((1, 3, 224, 224), device=device), torch.zeros(1, dtype=torch.int64, device=device)
series = noise.Series(seed=0, stage="estimation", samples=10**6)
for name, batch in {
    "x + sigma z": lambda: noise.noisy_samples(images, index, series, start=0, size=128, sigma=0.5),
    "torch.randn alone": lambda: torch.randn((128, 3, 224, 224), device=device),
    "keyed noise": lambda: noise.keyed_noise(torch.arange(128, device=device), 0, (3, 224, 224), device),
}.items():
    work = Work(batch=batch, size=128)
    seconds_of(work, 20, meters)
    print(f"{name}: {1000 * min(seconds_of(work, 100, meters) for _ in range(5)) / 100:.3f} ms for 128 x 3 x 224 x 224")
PYTHON
}
export -f noise

part "noise" 60 bash -c noise
part "tests" 180 python -m pytest -v -m gpu -W default --maxfail 5 -p no:cacheprovider -k 'not compiles and not graphs and not published' $(grep -rl "mark.gpu" tests --include='test_*.py')
part "headline" 290 python -m bench.cli cost --preset paper-imagenet --methods rrcm-b,dds --max-seconds 265 --out "$folder"
[ -f "$folder/stages.md" ] && cat "$folder/stages.md" # the share of the noise
exit $failed
