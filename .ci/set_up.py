"""What `make demo` and `make test` stand on: an environment, the tested packages, the extension. Standard library only.

A stage says one line, and where it fails one sentence on what is wrong and what to do; build/set_up.log has the rest.
"""

import argparse
import errno
import importlib.util
import os
import platform
import re
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOG = ROOT / "build" / "set_up.log"
NAMED = {"torch": "TORCH", "triton": "TRITON"}  # package -> the variable of the Makefile that chooses it
CPP = "g++ 10 or later (Debian, Ubuntu: the package g++), or name another by CXX=..."

FULL = (errno.ENOSPC, errno.EDQUOT)
NO_SPACE = r"No space left on device|Disk quota exceeded|No usable temporary directory|signal 7 \[Bus error\]"
NO_MEMORY = r"Killed signal terminated program|virtual memory exhausted|Cannot allocate memory|std::bad_alloc"
NO_VERSION = r"Could not find a version that satisfies the requirement ([^\s;]+).*\(from versions: (.*?)\)"
NO_REGISTRY = (
    r"connection broken by|Connection refused|Network is unreachable|name resolution|Name or service not known"
    r"|ConnectionError|[Tt]imed out|CERTIFICATE_VERIFY_FAILED|There was a problem confirming the ssl certificate"
)
NO_ANSWER = r"Could not fetch URL \S+: (.*) - skipping|(The repository located at \S+ is not .*? host)"
HOST = r"host='([^']+)'|Connection to (\S+) timed out|resolve '([^']+)'"
WHY = r"\[Errno -?\d+\] ([\w ]+)|(CERTIFICATE_VERIFY_FAILED)|([Tt]imed out)"


class Failed(Exception):
    """One sentence: what is wrong and what to do."""


def say(text: str) -> None:
    print(f"set-up: {text}", flush=True)


def here(path: Path) -> str:
    """A path as the user would write it."""
    return os.path.relpath(path) if Path.cwd() in path.parents else str(path)


# What can be asked before anything is installed


def check_python() -> None:
    for module in ("venv", "ensurepip"):
        try:
            whole = importlib.util.find_spec(f"{module}.__main__")
        except ImportError:
            whole = None
        if whole is None:
            package = f"python{sys.version_info[0]}.{sys.version_info[1]}-venv"
            raise Failed(
                f"{sys.executable} lacks its module {module}: install it (Debian, Ubuntu: the package {package}), "
                "or name another Python by PYTHON=..."
            )


def check_compiler() -> None:
    """A library of one line that asks for C++20, its standard library and Python's headers."""
    include = sysconfig.get_path("include")
    if not Path(include, "Python.h").exists():
        package = f"python{sys.version_info[0]}.{sys.version_info[1]}-dev"
        raise Failed(
            f"the C headers of {sys.executable} are missing (no Python.h in {include}): install them "
            f"(Debian, Ubuntu: the package {package}), or name another Python by PYTHON=..."
        )
    compiler = shlex.split(os.environ.get("CXX") or "c++")
    try:
        with tempfile.TemporaryDirectory() as room:
            source, library = Path(room, "try.cpp"), Path(room, "try.so")
            source.write_text("#include <Python.h>\n#include <concepts>\nstatic_assert(std::integral<int>);\n")
            options = ["-std=c++20", "-shared", "-fPIC", f"-I{include}", str(source), "-o", str(library)]
            tried = called([*compiler, *options])
    except OSError as error:
        if error.filename != compiler[0]:
            raise
        if error.errno == errno.ENOENT:
            raise Failed(f"there is no C++ compiler ({compiler[0]} is not found): install {CPP}") from None
        raise Failed(f"the C++ compiler {compiler[0]} does not start ({error.strerror}): use {CPP}") from None
    if tried.returncode and re.search(NO_SPACE, tried.stdout):
        raise Failed(no_space("trying the compiler", ROOT))
    if tried.returncode:
        raise Failed(f"{shlex.join(compiler)} does not compile C++20 ({last_error(tried.stdout)}): use {CPP}")


def check_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        if error.errno in FULL:
            raise
        raise Failed(f"{here(folder)} cannot be written ({error.strerror}): copy the tree to where you may") from None


# What a command said, in a sentence


def called(command: list[str], limit: float | None = None, **told: str) -> subprocess.CompletedProcess:
    """The command with its output as one text, in English; stopped by Ctrl-C it may tidy up before we go.

    What takes more than `limit` seconds is killed, with all that it has started.
    """
    settings = {"LC_ALL": "C", "PIP_NO_INPUT": "1", "PIP_USER": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    # pip would try for minutes; who has set these themselves knows why
    settings |= {"PIP_RETRIES": os.environ.get("PIP_RETRIES", "2")}
    settings |= {"PIP_DEFAULT_TIMEOUT": os.environ.get("PIP_DEFAULT_TIMEOUT", os.environ.get("PIP_TIMEOUT", "15"))}
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    alone = limit is not None  # a session of its own, which can be killed as a whole
    settings = os.environ | settings | told
    process = subprocess.Popen(command, **pipes, text=True, errors="replace", env=settings, start_new_session=alone)
    try:
        said, _ = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    except KeyboardInterrupt:
        try:
            if alone:
                os.killpg(process.pid, signal.SIGINT)
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
        raise
    return subprocess.CompletedProcess(command, process.returncode, said)


def run(doing: str, place: Path, *command: str, **how) -> None:
    try:
        done = called(list(command), **how)
    except subprocess.TimeoutExpired as late:
        raise Failed(f"{doing} took more than {late.timeout:.0f} s and was stopped: allow more by --limit") from None
    try:
        LOG.parent.mkdir(exist_ok=True)
        LOG.write_text(f"{shlex.join(command)}\n{done.stdout}")
        log = f"; all of it is in {here(LOG)}"
    except OSError:
        log = ""
    if done.returncode:
        raise Failed(sentence(done.stdout, done.returncode, doing, place, log))


def sentence(said: str, code: int, doing: str, place: Path, log: str) -> str:
    building = place == LOG.parent
    if re.search(NO_SPACE, said):
        return no_space(doing, place)
    if re.search(NO_MEMORY, said) or code == -9:
        less = "MAX_JOBS=1 in front of make compiles one file at a time" if building else "free some and try again"
        return f"memory ran out while {doing}: {less}"
    refused = re.search(NO_VERSION, said)
    if not building and re.search(NO_REGISTRY, said) and (refused is None or re.search(r"Retry\(total=0", said)):
        host, why = (re.search(pattern, said) for pattern in (HOST, WHY))
        host, why = (next(filter(None, found.groups())) if found else None for found in (host, why))
        return (
            f"the package registry {f'at {host} ' if host else ''}cannot be reached{f' ({why})' if why else ''}: "
            f"look after the network or proxy, or name another registry by PIP_INDEX_URL=...{log}"
        )
    if refused:
        return not_offered(refused[1], refused[2], said) + log
    if conflict := re.search(r"The conflict is caused by:\n((?: +.+\n?)+)", said):
        needs = ", ".join(" ".join(line.split()) for line in conflict[1].splitlines())
        yours = ", or change the constraint in pip's settings" if "(constraint)" in needs else ""
        return f"these do not go together ({needs}): choose by make TORCH=torch==... TRITON=triton==...{yours}{log}"
    return f"{doing} failed: {last_error(said)}{log}"


def not_offered(need: str, versions: str, said: str) -> str:
    name, held = re.split(r"[=<>!~\[]", need)[0], versions.split(", ")
    system = f"Python {platform.python_version()} on {sysconfig.get_platform()}"
    if versions == "none":
        # pip is silent on what the registry answered, unless it is asked for more
        said += called([sys.executable, "-m", "pip", "index", "versions", name, "-vv"]).stdout
        why = re.search(NO_ANSWER, said)
        return (
            f"the package registry has no {name} for {system}{f' ({why[1] or why[2]})' if why else ''}: "
            "look after the network and pip's settings (python3 -m pip config list), or name another registry by "
            "PIP_INDEX_URL=... or another Python by PYTHON=..."
        )
    least = re.search(rf"\b{name}>=(\d+)\.(\d+)", " ".join(required("triton")))
    newest = re.match(r"(\d+)\.(\d+)", held[-1])
    if name in NAMED and least and newest and [*map(int, newest.groups())] >= [*map(int, least.groups())]:
        choose = f"one of them by make {NAMED[name]}={name}=={held[-1]}"
        choose += " TRITON=" if name == "torch" else ""  # then torch says which triton
    else:
        choose = "another Python by PYTHON=..."
    return f"the package registry has no {need} for {system}, but {', '.join(held[-3:])}: choose {choose}"


def no_space(doing: str, place: Path) -> str:
    wanted = place.absolute(), Path(os.environ.get("TMPDIR") or "/tmp").absolute()
    places = [next(path for path in (folder, *folder.parents) if path.exists()) for folder in wanted]
    free = ", ".join(f"{shutil.disk_usage(path).free / 1e9:.1f} GB in {here(path)}" for path in places)
    much, where = (", about 9 GB the first time", "make VENV=... and ") if place != LOG.parent else ("", "")
    return (
        f"no space left on the disk while {doing} (free: {free}): make room{much}, "
        f"or name a roomier place by {where}TMPDIR=..."
    )


def last_error(said: str) -> str:
    """The line that tells most: the first of the compiler, the last of setup.py or pip, an exception, or the last."""
    lines = [line.strip(" \t│╰─>") for line in said.splitlines() if line.strip()] or ["it said nothing"]
    for which, pattern in (
        (0, r"\S+:\d+: (fatal )?error: |\S+: (fatal )?error: (?!command )|.*undefined reference|.*: cannot find "),
        (-1, r"setup\.py: "),
        (0, r"error: (?!subprocess|command )"),
        (-1, r"ERROR: (?!Failed |Could not build )"),
        (-1, r"(\w+\.)*\w*(Error|Exception)\b"),
        (-1, ""),
    ):
        if found := [line for line in lines if re.match(pattern, line)]:
            return found[which][:300]


# The stages


def environment(venv: Path) -> None:
    """An environment whose Python starts and has pip: half of one is completed, one of a lost Python made again."""
    check_python()
    check_compiler()
    venv = venv.absolute()
    config, python, ours = venv / "pyvenv.cfg", venv / "bin" / "python", "{}.{}".format(*sys.version_info)
    held = {path.name for path in venv.iterdir()} if venv.is_dir() else {"file"} if venv.exists() else set()
    if not config.exists() and held - {"bin", "include", "lib", "lib64"}:
        raise Failed(f"{here(venv)} is no environment of Python: remove it, or name another by make VENV=...")
    check_writable(venv)
    made = re.search(r"^version\w* *= *(\d+\.\d+)", config.read_text(), re.M) if config.exists() else None
    made = made[1] if made else None
    finished = (venv / ".tools").exists()  # then it keeps its Python, whatever PYTHON is today
    runs = answer(python, "import sys; print('{}.{}'.format(*sys.version_info))")
    if not made or runs != made or (made != ours and not finished):
        if made:
            say(f"{here(venv)} is of {'another Python, ' + made if runs else 'a Python that is gone'}: made again")
        say(f"making {here(venv)} with Python {platform.python_version()}")
        run("making the environment", venv, sys.executable, "-m", "venv", "--clear", "--without-pip", str(venv))
    # what pip was stopped in the midst of, it would take for installed
    for half in venv.glob("lib/python*/site-packages/*.dist-info"):
        if not (half / "INSTALLER").exists():
            shutil.rmtree(half)
    if not answer(python, "import importlib.metadata as m, pip; print(m.version('pip'))"):
        run("making the environment", venv, str(python), "-m", "ensurepip", "--upgrade", "--default-pip")


def answer(python: Path, code: str) -> str:
    """What the code prints; nothing where that Python does not run it."""
    try:
        return subprocess.run([str(python), "-c", code], capture_output=True, text=True).stdout.strip()
    except OSError:
        return ""


def install(needs: list[str], extra: str) -> None:
    """Into the Python that runs this: what is named, and what fastrw and its extra need, but not fastrw."""
    needs = [need for need in needs if need]
    place = Path(sys.prefix)
    tools = "the tools" if extra == "dev" else f"what fastrw[{extra}] needs"
    say(f"installing {', '.join([*needs, tools])} into {here(place)}: some minutes the first time")
    pip = (sys.executable, "-m", "pip", "install")
    run("installing", place, *pip, "setuptools>=77", "wheel", *needs, *required(extra))


def required(*extras: str) -> list[str]:
    """What pyproject.toml asks for, with extras that name extras of fastrw itself."""
    try:
        import tomllib
    except ImportError:  # Python 3.10
        from pip._vendor import tomli as tomllib
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    found, asked = list(project["dependencies"]), list(extras)
    for extra in asked:  # grows as it goes
        for need in project["optional-dependencies"][extra]:
            own = re.fullmatch(rf"{project['name']}\[(.*)\]", need)
            asked += [name for name in own[1].split(",") if name not in asked] if own else []
            found += [] if own else [need]
    return list(dict.fromkeys(found))


def build() -> None:
    """The extension, into the source tree, for the Python that runs this and its torch."""
    for place in (LOG.parent, ROOT / "fastrw"):
        check_writable(place)
    check_compiler()
    say("building the extension")
    pip = (sys.executable, "-m", "pip", "install")
    run("building the extension", LOG.parent, *pip, "--no-build-isolation", "--no-deps", "-e", str(ROOT))


def main() -> None:
    parser = argparse.ArgumentParser(prog=here(Path(__file__).resolve()), description=__doc__)
    stages = parser.add_subparsers(dest="stage", required=True)
    stage = stages.add_parser("environment", help="make or mend an environment, with the Python that runs this")
    stage.add_argument("venv", type=Path)
    stage = stages.add_parser("install", help="install packages, and what an extra of fastrw needs, into this Python")
    stage.add_argument("needs", nargs="*", metavar="torch==2.11.0")
    stage.add_argument("--extra", default="dev", help="default: dev")
    stages.add_parser("build", help="build the extension and install fastrw in place, for this Python")
    started({"environment": environment, "install": install, "build": build}, vars(parser.parse_args()))


def started(stages: dict, given: dict) -> None:
    """One stage with what was given for it; the end is one sentence, whatever goes wrong."""
    try:
        stages[given.pop("stage")](**given)
    except Failed as failed:
        sys.exit(f"set-up: {failed}")
    except KeyboardInterrupt:
        sys.exit("set-up: stopped; the same command goes on from here")
    except OSError as error:
        full = error.errno in FULL or re.search(NO_SPACE, str(error))
        sys.exit(f"set-up: {no_space('setting up', given.get('venv', ROOT)) if full else error}")


if __name__ == "__main__":
    main()
