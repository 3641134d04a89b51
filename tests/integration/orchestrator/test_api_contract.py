"""The API against its own description: Schemathesis makes up requests and judges every answer.

`make contract` makes many more, at least 5,000, and looks at every corner as well.
"""

import asyncio
import os
import re
import sys
from pathlib import Path

import pytest

CONFIG = Path(__file__).with_name("schemathesis.toml")
EXAMPLES = int(os.environ.get("CONTRACT_EXAMPLES", "0"))
PHASES = "examples,coverage,fuzzing" if EXAMPLES else "fuzzing"
EXAMPLES_IN_CI = 20
CALLS = 5_000 if EXAMPLES >= 250 else 300
TOKEN = "the-admins-token"

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(1_800 if EXAMPLES else 120)]


async def test_every_answer_is_as_described_and_none_is_a_failure(engine_url, worker, env, tmp_path):
    env(admin_token=TOKEN, serverless_private=False)
    code, out = await _schemathesis(tmp_path, f"{engine_url}/openapi.json", *_options())
    [generated] = re.findall(r"(\d+) generated", out) or ["0"]
    assert code == 0, out
    assert int(generated) >= CALLS, out
    print(out.partition("= SUMMARY =")[2])


def _options() -> list[str]:
    options = [f"--max-examples={EXAMPLES or EXAMPLES_IN_CI}", f"--phases={PHASES}", "--seed=1", "--no-color"]
    return [*options, "--continue-on-failure", "--no-shrink", "--request-timeout=20"]


async def _schemathesis(directory: Path, *arguments: str) -> tuple[int | None, str]:
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(CONFIG), "run", *arguments]
    process = await asyncio.create_subprocess_exec(
        *command, cwd=directory, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        out, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return process.returncode, out.decode()
