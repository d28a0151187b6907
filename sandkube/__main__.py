"""`./do`: doit with this project's dodo.py."""

import os
import signal
import sys

from doit.doit_cmd import DoitMain


class Main(DoitMain):  # type: ignore[misc]
    """doit, but for its variables: there `NAME=VALUE` on the command line belongs to no option."""

    BIN_NAME = "./do"

    @staticmethod
    def process_args(cmd_args: list[str]) -> list[str]:
        """`--help` asks for help on the command it goes with; any other word stays as it is."""
        asked = [each for each in ("--help", "-h") if each in cmd_args[:2]]
        return ["help", *(each for each in cmd_args[:1] if each not in asked)] if asked else cmd_args


if __name__ == "__main__":
    try:
        sys.exit(Main().run(sys.argv[1:]))
    except BrokenPipeError:  # whoever read the output has seen enough
        os._exit(128 + signal.SIGPIPE)
