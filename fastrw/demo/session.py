"""All the runs of a demo in their order, and the file from which an interrupted demo resumes exactly."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from fastrw.demo.data import Images, load
from fastrw.demo.noise import make_task
from fastrw.demo.resume import UNREADABLE, replacing
from fastrw.demo.settings import DemoError, Settings
from fastrw.demo.train import FSRRun, Run

VERSION = 2  # of the saved file


class Session:
    def __init__(self, settings: Settings, images: Images | None = None):
        self.settings = settings
        self.images = load(settings.data) if images is None else images
        self.results: list[dict[str, Any]] = []
        self.run: Run | None = None
        self.make_run = FSRRun if settings.fsr else Run
        self.methods = tuple(self.make_run.methods)

    def advance(self) -> Iterator[Run]:
        """Takes every step that is left and yields the run after each; between two steps the session can be saved."""
        for seed in self.settings.all_seeds:
            task = None
            for name in self.methods:
                if any((result["method"], result["seed"]) == (name, seed) for result in self.results):
                    continue
                if self.run is None:
                    task = task or make_task(self.images, self.settings, seed)
                    self.run = self.make_run(name, task, self.settings, seed)
                while not self.run.done:
                    self.run.step()
                    yield self.run
                self.results.append(self.run.result())
                self.run = None

    def save(self, file: Path) -> None:
        """Writes the session to `file`, whole or not at all."""
        state = {
            "fastrw_demo": VERSION,
            "settings": asdict(self.settings),
            "images": self.images.fingerprint,
            "results": self.results,
            "run": self.run and self.run.state_dict(),
        }
        with replacing(file) as temporary:
            torch.save(state, temporary)

    @classmethod
    def resume(cls, file: Path) -> "Session":
        """The session that `save` wrote."""
        if not file.exists():
            raise DemoError(f"fastrw.demo: --resume must name a file that exists, got {file}")
        try:
            state = torch.load(file, weights_only=True)
            if state["fastrw_demo"] != VERSION:
                raise ValueError("of another version")
        except UNREADABLE as error:
            raise DemoError(f"fastrw.demo: --resume must name a file that --save wrote, got {file}") from error
        session = cls(Settings(**state["settings"]))
        if session.images.fingerprint != state["images"]:
            raise DemoError(
                f"fastrw.demo: --resume needs the images of the saved run, got others in {session.images.name}"
            )
        session.results = state["results"]
        if (run := state["run"]) is not None:
            task = make_task(session.images, session.settings, run["seed"])
            session.run = session.make_run(run["name"], task, session.settings, run["seed"])
            session.run.load_state_dict(run)
        return session
