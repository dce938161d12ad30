"""What the Dockerfile says, read as far as this project's needs: stages of instructions."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass
class Stage:
    base: str
    name: str
    steps: list[tuple[str, str]] = field(default_factory=list)
    """Instruction, in capitals, and what follows it."""

    def last(self, instruction: str) -> str:
        return next(rest for name, rest in reversed(self.steps) if name == instruction)

    def arguments(self, instruction: str) -> list[str]:
        """Of one in its exec form: a shell between would swallow signals."""
        return json.loads(self.last(instruction))

    def health_check(self) -> list[str]:
        """The command that an engine runs now and then."""
        return json.loads(self.last("HEALTHCHECK").partition(" CMD ")[2])

    def copies(self) -> list[tuple[str, list[str], str]]:
        """The stage it comes from, empty for the build context; what; where to."""
        found = []
        for words in (shlex.split(rest) for name, rest in self.steps if name == "COPY"):
            origin = words.pop(0).removeprefix("--from=") if words[0].startswith("--") else ""
            found.append((origin, words[:-1], words[-1]))
        return found


def stages(path: Path = ROOT / "Dockerfile") -> list[Stage]:
    """In order; the last one is the image."""
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    found: list[Stage] = []
    for text in "\n".join(lines).replace("\\\n", "").splitlines():
        instruction, _, rest = text.partition(" ")
        if instruction == "FROM":
            base, _, name = rest.partition(" AS ")
            found.append(Stage(base, name))
        else:
            found[-1].steps.append((instruction, rest.strip()))
    return found
