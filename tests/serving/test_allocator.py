"""What the service asks of the allocator."""

import subprocess
import sys

import pytest

from router.serving.allocator import ARENAS

PROGRAM = """
import ctypes, sys, tempfile, threading
from router.serving.allocator import give_memory_back

libc, taken = ctypes.CDLL(None), threading.Barrier(9)
libc.fdopen.restype, libc.malloc.restype = ctypes.c_void_p, ctypes.c_void_p

def take():
    libc.malloc(10_000)
    taken.wait()

give_memory_back()
threads = [threading.Thread(target=take) for _ in range(8)]
for thread in threads:
    thread.start()
taken.wait()
with tempfile.TemporaryFile() as file:
    output = ctypes.c_void_p(libc.fdopen(file.fileno(), b"w"))
    libc.malloc_info(0, output)
    libc.fflush(output)
    file.seek(0)
    print(file.read().count(b"<heap nr="))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's own function")
def test_few_heaps_are_kept_however_many_threads_there_are() -> None:
    found = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    assert 0 < int(found.stdout) <= ARENAS
