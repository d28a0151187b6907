"""A randomised soak of the interceptor: `python -m bench.intercepted [SECONDS] [SEED]`, half an hour if left out."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main(seconds: str = "1800", seed: str = "") -> int:
    """Run it on this machine; print the seed, the counts and how it ended."""
    seed = seed or str(time.time_ns() % 2**31)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for each in ("named", "prepared"):
            (folder / each).mkdir()
        (folder / "prepared/file").write_text("prepared\n")
        (folder / "plain").write_text("plain\n")
        (folder / "rules").write_text(f"{folder}/named/ {folder}/prepared/\n")
        program = [str(ROOT / "outputs/result/test-target/bin/target"), "soak", name, seconds, seed]
        log = folder / "log"
        interceptor = str(ROOT / "outputs/result/interceptor/bin/interceptor")
        print(f"soaking for {seconds} s, seed {seed}", flush=True)
        command = [interceptor, "--rules", str(folder / "rules"), "--log", str(log), "--", *program]
        status = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        counts = log.read_text().splitlines()[-1]
    wrong = sorted(set(status.stdout.splitlines()) - {"ok"})
    print("\n".join([f"exit status {status.returncode}; {counts}", *wrong]))
    return status.returncode


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
