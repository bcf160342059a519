"""Freed memory stays with the process, so the kernel need not clear it again."""

import subprocess
import sys

import pytest

SCRIPT = """
import resource, torch
from vidlat.encode.memory import keep_freed_memory
if {keep}:
    keep_freed_memory()
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(64 * 2**20, dtype=torch.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a promise about the GNU C library")
def test_a_block_that_was_freed_costs_no_page_faults_again():
    def faults(keep):
        code = SCRIPT.format(keep=keep)
        answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        return int(answer.stdout)

    assert faults(keep=True) < 100
    assert faults(keep=False) > 10_000
