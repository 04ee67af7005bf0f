"""Makes this folder a package of its own, away from the environment that it was installed in, and serves."""

import importlib
import importlib.util
import sys
from pathlib import Path

NAME = "gfb_finn_worker"

if __name__ == "__main__":
    folder = Path(__file__).parent
    sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != folder.resolve()]
    specification = importlib.util.spec_from_file_location(
        NAME, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert specification is not None
    assert specification.loader is not None
    package = importlib.util.module_from_spec(specification)
    sys.modules[NAME] = package
    specification.loader.exec_module(package)
    importlib.import_module(f"{NAME}.serving").serve(sys.argv[1])
