"""Run the Dockerfile, for want of a Docker engine: its steps, its command and its health check.

Where Linux lets us (namespaces; root rights aren't needed), each stage is a root file system of its own, with this
machine's programs, a copy of this Python where the base image has its own, and nothing else; what the last stage
starts has that root read-only, and with root rights its user. Elsewhere the paths are moved below a folder instead.
"""

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).parents[1]
PATH = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
OWN = ("venv", "app", "tmp", "config", "usr/local")
"""What a stage has for itself."""
PASSED_ON = re.compile(r"PIP_\w+|https?_proxy|no_proxy|HTTPS?_PROXY|NO_PROXY|SSL_CERT_FILE|REQUESTS_CA_BUNDLE")
ENTER = Path(__file__).with_name("enter-root")


class Wrong(Exception):  # noqa: N818
    """The image would not work; the text says why."""


def say(text: str) -> None:
    """Tell what is done."""
    print(f"image-check: {text}", flush=True)


def namespaces() -> list[str] | None:
    """Return the command that gives a process mounts of its own; None where there is none."""
    options: list[list[str]] = [[]] if os.geteuid() == 0 else []
    for extra in [*options, ["--user", "--map-root-user"]]:
        command = ["unshare", *extra, "--mount", "--propagation", "private"]
        probe = [*command, "sh", "-c", "mount -t tmpfs tmpfs /mnt"]
        try:
            if subprocess.run(probe, capture_output=True, timeout=10, check=False).returncode == 0:
                return command
        except OSError:
            break
    return None


@dataclass
class Stage:
    """One `FROM`: its root, and what the instructions since have set."""

    root: Path
    unshare: list[str] | None
    env: dict[str, str] = field(default_factory=lambda: {"PATH": PATH})
    workdir: str = "/"
    user: str = ""
    words: dict[str, list[str]] = field(default_factory=dict)
    """`ENTRYPOINT`, `CMD` and `HEALTHCHECK`, in their exec form."""

    def inside(self, path: str) -> Path:
        """Return where a path of the image is on this machine."""
        return self.root / path.lstrip("/") if path.startswith("/") else self.inside(f"{self.workdir}/{path}")

    def command(self, words: Sequence[str], *, final: bool) -> list[str]:
        """Return what runs *words* in this stage."""
        if self.unshare is None:
            return [
                "sh",
                "-c",
                'cd "$1"; shift; exec "$@"',
                "-",
                str(self.inside(self.workdir)),
                *map(self.moved, words),
            ]
        user = self.user if os.geteuid() == 0 and final else ""
        inner = ["sh", "-c", 'cd "$1"; shift; exec "$@"', "-", self.workdir, *words]
        return [*self.unshare, str(ENTER), str(self.root), "yes" if final else "", user, *inner]

    def environ(self, more: Mapping[str, str]) -> dict[str, str]:
        """Return the environment of what runs here."""
        env = {"LD_LIBRARY_PATH": "/usr/local/lib", **self.env}
        if self.unshare is None:
            env = {name: self.moved(value) for name, value in env.items()}
            env["PATH"] += f":{PATH}"
        return {**env, **more, "CONFIG": str(HERE / "config")}

    def run(
        self, words: Sequence[str], env: Mapping[str, str] = {}, *, final: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """Run to the end; never raise for an exit code."""
        return subprocess.run(
            self.command(words, final=final),
            env=self.environ(env),
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def foreign(self, text: str) -> list[str]:
        """Return the paths in a command that are not the stage's own: without a root, they would be this machine's."""
        paths: list[str] = re.findall(r"(?<![\w./-])/\w\S*", self.moved(text))
        return [each for each in paths if not each.startswith(f"{self.root}/")]

    def moved(self, text: str) -> str:
        """Return a command with the stage's own paths below its folder."""
        return re.sub(rf"(?<![\w./-])/({'|'.join(OWN)})\b", rf"{self.root}/\1", text)


def base(stage: Stage) -> Stage:
    """Lay out what the base image has: a Python with pip under /usr/local, and empty folders. Raises `Wrong`."""
    for folder in OWN:
        (stage.root / folder).mkdir(parents=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    standard = Path(sysconfig.get_path("stdlib"))
    local = stage.root / "usr" / "local"
    (local / "bin").mkdir()
    shutil.copytree(
        standard,
        local / "lib" / version,
        symlinks=True,
        ignore=shutil.ignore_patterns("site-packages", "dist-packages", "test", "idlelib", "config-3*"),
    )
    shutil.copy(os.path.realpath(sys.executable), local / "bin" / version)
    for name in ("python", "python3"):
        (local / "bin" / name).symlink_to(version)
    for library in Path(sys.base_prefix, "lib").glob("libpython*"):
        shutil.copy(library, local / "lib", follow_symlinks=False)
    (local / "lib" / version / "site-packages").mkdir()
    if (told := stage.run(["python", "-m", "ensurepip", "--default-pip"])).returncode:
        raise Wrong(f"this Python can't lay out a base image:\n{told.stdout}{told.stderr}")
    return stage


def instructions() -> list[tuple[str, str]]:
    """Return the Dockerfile's instructions, continued lines joined."""
    text = re.sub(r"^\s*#.*\n", "", (HERE / "Dockerfile").read_text(), flags=re.MULTILINE)
    lines = re.sub(r"\\\n", " ", text).splitlines()
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines if line.strip())]


def build(folder: Path, unshare: list[str] | None) -> Stage:
    """Follow the Dockerfile; return its last stage. Raises `Wrong`."""
    stages: dict[str, Stage] = {}
    stage: Stage | None = None
    pristine = base(Stage(folder / "base", unshare))
    for word, rest in instructions():
        if word == "FROM":
            stage = Stage(folder / f"stage-{len(stages)}", unshare)
            shutil.copytree(pristine.root, stage.root, symlinks=True, copy_function=os.link)
            stages[rest.rpartition(" ")[2]] = stage
        elif stage is None:
            if word != "ARG":
                raise Wrong(f"{word} before FROM")
        else:
            step(stage, stages, word, rest)
    if stage is None:
        raise Wrong("the Dockerfile has no FROM")
    return stage


def step(stage: Stage, stages: Mapping[str, Stage], word: str, rest: str) -> None:
    """Follow one instruction. Raises `Wrong`, also for one that this script doesn't know."""
    if word == "RUN":
        execute(stage, rest)
    elif word == "COPY":
        copy(stage, stages, rest.split())
    elif word == "ENV":
        for name, value in (each.split("=", 1) for each in shlex.split(rest)):
            stage.env[name] = value.replace("$PATH", stage.env["PATH"])
    elif word == "WORKDIR":
        stage.workdir = rest
        stage.inside(rest).mkdir(parents=True, exist_ok=True)
    elif word == "USER":
        stage.user = rest
    elif word in ("ENTRYPOINT", "CMD", "HEALTHCHECK"):
        stage.words[word] = json.loads(rest[rest.index("[") :])
    elif word not in ("EXPOSE", "STOPSIGNAL"):
        raise Wrong(f"this script doesn't know {word}")


def execute(stage: Stage, command: str) -> None:
    """Run a shell command as `RUN` does. Raises `Wrong`."""
    say(re.sub(r"\s+", " ", command)[:110])
    if stage.unshare is None and (others := stage.foreign(command)):
        raise Wrong(f"{', '.join(others)}: not without a root of its own")
    if (told := stage.run(["sh", "-ec", command], pip_settings())).returncode:
        raise Wrong(f"{command}\n{told.stdout}{told.stderr}")


def copy(stage: Stage, stages: Mapping[str, Stage], words: list[str]) -> None:
    """Copy from the context, or from another stage."""
    origin = HERE
    if words[0].startswith("--from="):
        other = stages[words.pop(0).removeprefix("--from=")]
        source = other.inside(words[0])
    else:
        source = origin / words[0]
    target = stage.inside(words[1])
    if source.is_dir():
        ignored = None if origin not in source.parents else shutil.ignore_patterns("__pycache__")
        shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True, ignore=ignored)
    else:
        shutil.copy(source, target)


def pip_settings() -> dict[str, str]:
    """Return how this machine's pip is set up, as variables: a stage sees no file of a user's."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    )
    from_files = re.findall(r"^(?:global|site|user|install)\.([\w-]+)='(.*)'$", listed.stdout, re.MULTILINE)
    settings = {f"PIP_{name.replace('-', '_').upper()}": value.replace("\\n", " ") for name, value in from_files}
    return {**settings, **{name: value for name, value in os.environ.items() if PASSED_ON.fullmatch(name)}}


def ports(count: int) -> list[int]:
    """Return ports that nobody has."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    free = [each.getsockname()[1] for each in held]
    for each in held:
        each.close()
    return free


def nothing_left_to_attack(stage: Stage) -> None:
    """Raise `Wrong` where what runs in the image could install something, or write outside /tmp."""
    if stage.run(["python", "-m", "pip", "--version"], final=True).returncode == 0:
        raise Wrong("pip is in the image")
    if stage.run(["/usr/local/bin/python", "-m", "pip", "--version"], final=True).returncode == 0:
        raise Wrong("the base image's pip is in the image")
    if stage.unshare is None:
        return
    for place in ("/", "/app", "/venv", "/config"):
        if stage.run(["touch", f"{place}/written"], final=True).returncode == 0:
            raise Wrong(f"{place} can be written")
    if (told := stage.run(["touch", "/tmp/written"], final=True)).returncode:  # noqa: S108  (the image's own)
        raise Wrong(f"there is no place for temporary files: {told.stderr}")


def serve(stage: Stage, log: Path) -> None:
    """Start the image's command, wait for its health check, stop it as Docker does. Raises `Wrong`."""
    public, operations, nobody = ports(3)
    env = {
        "CHATKIT_MINT_HOST": "127.0.0.1",
        "CHATKIT_MINT_OPS_HOST": "127.0.0.1",
        "CHATKIT_MINT_PORT": str(public),
        "CHATKIT_MINT_OPS_PORT": str(operations),
        "CHATKIT_MINT_VISITOR_KEYS": "x" * 32,  # the example tenants have visitors
        # Health asks nothing of Redis, so none is needed.
        "CHATKIT_MINT_REDIS_URL": f"redis://127.0.0.1:{nobody}",
    }
    if stage.unshare is None:
        env["CHATKIT_MINT_CONFIG_DIR"] = str(HERE / "config")
    command = stage.command([*stage.words["ENTRYPOINT"], *stage.words["CMD"]], final=True)
    with log.open("wb") as sink, subprocess.Popen(command, env=stage.environ(env), stdout=sink, stderr=sink) as service:
        try:
            deadline = time.monotonic() + 20
            while stage.run(stage.words["HEALTHCHECK"], env, final=True).returncode:
                if service.poll() is not None or time.monotonic() > deadline:
                    raise Wrong(f"the service did not get healthy\n{log.read_text()}")
                time.sleep(0.1)
            service.terminate()
            if (code := service.wait(timeout=30)) != 0:
                raise Wrong(f"stopped, it ended with {code}\n{log.read_text()}")
        finally:
            service.kill()


def main() -> None:
    """Check, and say how much of it was possible here."""
    unshare = namespaces()
    with tempfile.TemporaryDirectory(prefix="image-check-") as folder:
        try:
            stage = build(Path(folder), unshare)
            nothing_left_to_attack(stage)
            serve(stage, Path(folder) / "log")
        except Wrong as wrong:
            say(str(wrong))
            sys.exit(1)
    where = "without roots of their own" if unshare is None else "each stage in a root of its own, the last read-only"
    who = f", as user {stage.user}" if unshare and os.geteuid() == 0 else ", but not as its user"
    say(f"healthy; {where}{who}")


if __name__ == "__main__":
    main()
