"""A tool of the CUDA toolkit in a rehearsal: it runs the command after its own options, and says that all is well."""

import subprocess
import sys

KERNEL = '"ID","Kernel Name","Section Name","Metric Name","Metric Unit","Metric Value"\n' + "\n".join(
    f'"0","stand_in_kernel","{section}","{name}","{unit}","{value}"'
    for section, name, unit, value in (
        ("GPU Speed Of Light Throughput", "Duration", "ns", "1,000"),
        ("GPU Speed Of Light Throughput", "Compute (SM) Throughput", "%", "50"),
        ("Launch Statistics", "Registers Per Thread", "register/thread", "32"),
    )
)


def main() -> int:
    name, *words = sys.argv[1:]
    status = subprocess.run(words[words.index(sys.executable) :]).returncode
    print(KERNEL if name == "ncu" else f"========= {name}: ERROR SUMMARY: 0 errors", flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main())
