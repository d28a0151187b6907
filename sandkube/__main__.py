"""The entry of `./do`, and of `python -m sandkube` where the package is installed, without its engine."""

import sys
from importlib.util import find_spec

if __name__ == "__main__":
    from sandkube.app.entry import main as installed
    from sandkube.app.entry import open_streams

    if find_spec("sandkube.cli") is None:
        sys.exit(installed())
    open_streams()
    from sandkube.app.guard import guarded

    def main() -> int:
        """Import and run: what goes wrong in either is told the same way."""
        from sandkube.cli.main import Main

        return Main(config_filenames=("pyproject.toml",)).run(sys.argv[1:])

    sys.exit(guarded(main))
