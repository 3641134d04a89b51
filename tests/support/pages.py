"""The blocks of code in a page of the documentation."""

import re
from dataclasses import dataclass
from pathlib import Path

from tests.support.child import REPOSITORY

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE_NAME = re.compile(r"# (\w+\.py)\n")
OUTPUT = re.compile(r"# -> (.*)$", re.MULTILINE)


@dataclass(frozen=True)
class Page:
    """`files` are the blocks that begin with a file's name, `scripts` the other ones in Python, in order."""

    files: dict[str, str]
    scripts: list[str]
    commands: list[str]

    def write(self, directory: Path) -> None:
        """Write the files, as a reader would."""
        for name, code in self.files.items():
            (directory / name).write_text(code)


def read_page(path: str) -> Page:
    """Return the blocks of a page; all of them, for one in another language than these is an error."""
    files, scripts, commands = {}, [], []
    for language, code in BLOCK.findall((REPOSITORY / path).read_text()):
        if language == "console":
            lines = [line.partition("#")[0].strip() for line in code.splitlines() if line.startswith("$ ")]
            commands += [line.removeprefix("$ ") for line in lines]
        elif language == "python":
            if name := FILE_NAME.match(code):
                files[name[1]] = code
            else:
                scripts.append(code)
        else:
            raise ValueError(f"{path}: nobody runs blocks in {language}")
    return Page(files, scripts, commands)


def expected_output(script: str) -> str:
    """Return what the script says of its own output, behind `# ->`."""
    return "".join(f"{line}\n" for line in OUTPUT.findall(script))
