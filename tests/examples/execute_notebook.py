"""Executes a notebook, in a process of its own: ``execute_notebook.py NOTEBOOK FOLDER OUTPUT``.

The kernel is this interpreter's, described in FOLDER, and not one of the user's: what Jupyter knows by the
name may belong to another environment.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

TIMEOUT_S = 240


def main(notebook: Path, folder: Path, output: Path) -> None:
    """Run all cells in ``folder`` and write the notebook with their outputs."""
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
        (folder / ".jupyter" / name).mkdir(parents=True)
        os.environ[name] = str(folder / ".jupyter" / name)
    kernels = folder / ".jupyter" / "kernels"
    (kernels / "python3").mkdir(parents=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    kernel = {"argv": command, "display_name": "Python 3", "language": "python"}
    (kernels / "python3" / "kernel.json").write_text(json.dumps(kernel))

    import nbformat
    from jupyter_client import AsyncKernelManager
    from jupyter_client.kernelspec import KernelSpecManager
    from nbclient import NotebookClient

    known = KernelSpecManager(kernel_dirs=[str(kernels)], ensure_native_kernel=False)
    client = NotebookClient(
        nbformat.read(notebook, as_version=4),
        km=AsyncKernelManager(kernel_name="python3", kernel_spec_manager=known),
        timeout=TIMEOUT_S,
        resources={"metadata": {"path": str(folder)}},
    )
    nbformat.write(client.execute(), output)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
