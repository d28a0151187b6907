"""A worker for BuildGrid, which brings none: leases actions (Remote Workers API) and has buildbox-run run them.

    python -I bot.py HOST:PORT BUILDBOX-RUN SCRATCH

It is run by BuildGrid's Python, whose stubs it uses. One action at a time; a lease that the server drops is killed.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import grpc
from buildgrid._protos.build.bazel.remote.execution.v2 import remote_execution_pb2 as api
from buildgrid._protos.google.devtools.remoteworkers.v1test2 import bots_pb2, bots_pb2_grpc, worker_pb2

_POLL = 8  # seconds that the server may keep a question while there is no work: it answers after 80 % of them


def session(name: str) -> bots_pb2.BotSession:
    """What this worker is: free, and of the platform that actions ask for."""
    device = worker_pb2.Device(handle="worker")
    for key, value in (("OSFamily", "linux"), ("ISA", "x86-64")):
        device.properties.add(key=key, value=value)
    worker = worker_pb2.Worker(devices=[device])
    return bots_pb2.BotSession(bot_id=name, status=bots_pb2.OK, worker=worker)


class Bot:
    """One session with the server at `target`."""

    def __init__(self, target: str, runner: str, scratch: Path) -> None:
        self.target, self.runner, self.scratch = target, runner, scratch
        self.bots = bots_pb2_grpc.BotsStub(grpc.insecure_channel(target))
        self.session = self.bots.CreateBotSession(
            bots_pb2.CreateBotSessionRequest(parent="", bot_session=session(f"bot-{scratch.name}")), timeout=_POLL
        )
        self.process: subprocess.Popen[bytes] | None = None

    def update(self, seconds: float) -> None:
        """Say how it stands, hear what is to be done."""
        request = bots_pb2.UpdateBotSessionRequest(name=self.session.name, bot_session=self.session)
        self.session = self.bots.UpdateBotSession(request, timeout=seconds)

    def start(self, lease: bots_pb2.Lease, folder: Path) -> None:
        """Start the action of a lease."""
        action = api.Action()
        if not lease.payload.Unpack(action):
            raise ValueError("a lease without its action")
        (folder / "action").write_bytes(action.SerializeToString())
        words = [self.runner, f"--remote=http://{self.target}", "--disable-localcas", "--log-level=error"]
        words += [f"--workspace-path={folder}", f"--action={folder}/action", f"--action-result={folder}/result"]
        self.process = subprocess.Popen(words)

    def work(self) -> None:
        """Wait for a lease, see it through to its end."""
        while not self.session.leases:
            self.update(_POLL)
        lease_id = self.session.leases[0].id
        with tempfile.TemporaryDirectory(dir=self.scratch) as name:
            folder = Path(name)
            self.start(self.session.leases[0], folder)
            assert self.process
            while True:
                try:
                    status = self.process.wait(0.5)
                    break
                except subprocess.TimeoutExpired:
                    self.update(_POLL)
                if lease_id not in [each.id for each in self.session.leases]:  # cancelled
                    self.process.terminate()
                    self.process.wait()
                    return
            self.end(folder / "result", status)

    def end(self, result: Path, status: int) -> None:
        """Give the server what the runner made."""
        lease = self.session.leases[0]
        lease.state = bots_pb2.COMPLETED
        if status == 0 and result.is_file():
            lease.result.Pack(api.ActionResult.FromString(result.read_bytes()))
        else:
            lease.status.code = grpc.StatusCode.INTERNAL.value[0]
            lease.status.message = f"buildbox-run ended with status {status}"
        self.update(_POLL)


if __name__ == "__main__":
    bot = Bot(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
    while True:
        bot.work()
