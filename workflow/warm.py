"""Snakemake whose jobs begin with the libraries imported: `python workflow/warm.py <arguments>`.

Importing torch and transformers takes longer than half of the default study's jobs take by
themselves. Here one process imports them, and every script runs in a fork of it: with its own
environment, folder, streams and exit status, and with nothing of this project imported, so that its
check of what it imports stays sharp. What Snakemake does is the same but for `sys.executable`, by
which it calls scripts. It is a shortcut for one machine, and nothing depends on it: clusters start
jobs by themselves, and tests of faults go without.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import socket
import sys
import tempfile
import traceback
from importlib import import_module
from pathlib import Path

IMPORTED = (
    "pandas",
    "pyarrow.parquet",
    "pydantic",
    "safetensors.torch",
    "scipy.stats",
    "seaborn",
    "torch",
    "transformers.models.gpt_neox.modeling_gpt_neox",
    "transformers.models.llama.modeling_llama",
    "transformers.models.auto.modeling_auto",
    "transformers.models.auto.tokenization_auto",
)

CLIENT = """#!{python} -SE
import json, os, socket, sys
server = socket.socket(socket.AF_UNIX)
server.connect({address!r})
asked = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
socket.send_fds(server, [len(asked).to_bytes(8, "big")], [0, 1, 2])
server.sendall(asked)
sys.exit(int(server.recv(16) or 1))
"""
"""What Snakemake calls in the place of Python."""


def serve(listening: socket.socket, parent: int) -> None:
    """Run every script that is asked for in a process of its own, as long as the parent lives."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    listening.settimeout(1)
    while os.getppid() == parent:
        try:
            client, _ = listening.accept()
        except TimeoutError:
            continue
        if os.fork() == 0:
            listening.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            client.settimeout(None)
            status = run(client)
            sys.stdout.flush()
            sys.stderr.flush()
            client.sendall(str(status).encode())
            os._exit(0)
        client.close()


def run(client: socket.socket) -> int:
    """Be the script that a client asks for; its exit status."""
    size, streams, _, _ = socket.recv_fds(client, 8, 3)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    left = int.from_bytes(size, "big")
    asked = bytearray()
    while len(asked) < left:
        asked += client.recv(left - len(asked))
    sys.argv, folder, environment = json.loads(asked)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    try:
        runpy.run_path(sys.argv[0], run_name="__main__")
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def main() -> None:
    for name in IMPORTED:
        import_module(name)
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listening:
        address = str(Path(folder) / "socket")
        listening.bind(address)
        listening.listen()
        parent = os.getpid()
        if os.fork() == 0:
            os.setpgid(0, 0)
            serve(listening, parent)
            os._exit(0)
        client = Path(folder) / "python"
        client.write_text(CLIENT.format(python=sys.executable, address=address))
        client.chmod(0o755)
        sys.executable = str(client)
        from snakemake.cli import main as snakemake

        snakemake(sys.argv[1:])


if __name__ == "__main__":
    main()
