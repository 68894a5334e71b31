"""What the compiler is given of each Triton kernel: one file an op, whose `builds` yields every config that may run.

Import it by tests.ahead_of_time, which switches the interpreter off first.
"""

import importlib
import pkgutil

KERNELS = {
    name: importlib.import_module(f"{__name__}.{name}").builds
    for name in sorted(module.name for module in pkgutil.iter_modules(__path__))
    if name != "build"
}
