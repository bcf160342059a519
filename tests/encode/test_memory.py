"""Freed memory stays in the process, so the kernel need not clear it again."""

import subprocess
import sys

import pytest

SCRIPT = """
import ctypes, resource
from concurrent.futures import ThreadPoolExecutor
from vidlat.encode.memory import keep_freed_memory
if {keep}:
    keep_freed_memory()
library = ctypes.CDLL(None)
library.malloc.restype, library.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
library.free.argtypes = [ctypes.c_void_p]
def faults(size=80 * 2**20):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = library.malloc(size)
    ctypes.memset(block, 1, size)
    library.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
with ThreadPoolExecutor(1) as thread:
    thread.submit(faults).result()
    print(thread.submit(faults).result())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a promise about the GNU C library")
def test_a_freed_block_causes_no_new_page_faults_in_any_thread():
    def faults(keep):
        code = SCRIPT.format(keep=keep)
        answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        return [int(count) for count in answer.stdout.split()]

    assert max(faults(keep=True)) < 100
    assert min(faults(keep=False)) > 10_000
