"""Stamps of jobs: they prove that timing jobs ran alone, so they must not be a second off."""

import json
import subprocess
import sys
from datetime import UTC, datetime

CHILD = """
import json
from datetime import UTC, datetime
born = datetime.now(UTC)
from kvpareto.jobs import process_start
print(json.dumps([process_start().isoformat(), born.isoformat()]))
"""


def test_a_process_starts_when_it_is_started():
    before = datetime.now(UTC)
    done = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=True)
    start, born = (datetime.fromisoformat(text) for text in json.loads(done.stdout))
    # The kernel counts in ticks of 10 ms.
    assert (before - start).total_seconds() < 0.02
    assert start <= born
