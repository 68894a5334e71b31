"""python -m bench.gpu: first the extension is put in place, for without it nothing of fastrw may be there to import."""

import subprocess
import sys
import time
from pathlib import Path

CARRY = Path(__file__).resolve().parents[2] / ".ci" / "carry.py"
LIMIT = 150  # seconds for a build, where none was taken along


def put_in_place() -> dict | None:
    """What was done and how long it took; None where there is no GPU to do it for. Without the extension the run goes
    on: the reference and Triton's kernels serve."""
    import torch

    if not torch.cuda.is_available():
        return None
    start = time.time()
    words = [sys.executable, str(CARRY), "use", "--limit", str(LIMIT)]
    done = subprocess.run(words, capture_output=True, text=True, errors="replace")
    said = (done.stdout + done.stderr).strip()
    print(said, file=sys.stderr, flush=True)
    return {"said": said[-4000:], "status": done.returncode, "seconds": round(time.time() - start, 1)}


if __name__ == "__main__":
    began = time.time()
    rehearsal = {"cpu", "--device=cpu", "-h", "--help"} & {*sys.argv}
    placed = None if rehearsal else put_in_place()
    from bench.gpu.command import main

    sys.exit(main(sys.argv[1:], began, placed))
