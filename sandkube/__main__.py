"""The entry of `./do`."""

import sys

if __name__ == "__main__":
    from sandkube.app.entry import open_streams

    open_streams()
    from sandkube.app.guard import guarded

    def main() -> int:
        """Import and run: what goes wrong in either is told the same way."""
        from sandkube.cli.main import Main

        return Main(config_filenames=("pyproject.toml",)).run(sys.argv[1:])

    sys.exit(guarded(main))
