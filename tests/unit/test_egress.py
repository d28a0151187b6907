"""The way out of pods, as the host has it: where they may go, names, connections."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import socket
import struct
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any

import pytest

from sandkube.cluster import egress, outside
from sandkube.cluster.destinations import HOST, HOST_NAME, Allowed, destination, is_own
from sandkube.cluster.egress import EGRESS, Egress, Log
from sandkube.cluster.outside import Learned, Resolver, addresses, question, servers_of
from sandkube.cluster.paired import Impossible
from tests.name_servers import LONG, NameServer, name_server, query, refused_port

FAR = IPv4Address("192.0.2.7")
RANGES = [IPv4Network("10.88.0.0/24"), IPv4Network("10.96.0.0/16")]


def allowed(*words: str, own: str = "198.51.100.9") -> Allowed:
    return Allowed(words, RANGES, lambda address: str(address) == own)


def refusal(words: list[str], address: str, port: int = 80, *names: str) -> str:
    return allowed(*words).refusal(IPv4Address(address), port, names)


@pytest.mark.parametrize(
    ("words", "address", "names"),
    [
        ([], "192.0.2.7", []),
        ([], "10.1.2.3", []),
        (["*"], "192.0.2.7", []),
        (["192.0.2.7"], "192.0.2.7", []),
        (["192.0.2.7:80"], "192.0.2.7", []),
        (["192.0.2.0/24:80"], "192.0.2.7", []),
        (["example.org"], "192.0.2.7", ["example.org"]),
        (["Example.org:80"], "192.0.2.7", ["other.test", "example.org"]),
        (["*.example.org"], "192.0.2.7", ["www.example.org"]),
        (["localhost"], str(HOST), []),
        (["127.0.0.1:80"], str(HOST), []),
        ([HOST_NAME], str(HOST), []),
        (["198.51.100.9"], "198.51.100.9", []),
        (["10.96.0.7"], "10.96.0.7", []),
        (["169.254.1.0/24"], "169.254.1.1", []),
    ],
)
def test_where_pods_may_go(words: list[str], address: str, names: list[str]) -> None:
    assert refusal(words, address, 80, *names) == ""


NAMED = "is reached only if it is named: run-cluster --egress-to"


@pytest.mark.parametrize(
    ("words", "address", "names", "sentence"),
    [
        (
            ["192.0.2.8"],
            "192.0.2.7",
            [],
            "this cluster may not go there; run-cluster --egress-to 192.0.2.7:80 allows it",
        ),
        (["192.0.2.7:81"], "192.0.2.7", ["a.test"], "may not go there; run-cluster --egress-to a.test:80 allows it"),
        (["*.example.org"], "192.0.2.7", ["example.org"], "--egress-to example.org:80 allows it"),
        (["*.example.org"], "192.0.2.7", ["anexample.org"], "--egress-to anexample.org:80 allows it"),
        ([], str(HOST), [], f"this machine's loopback {NAMED} localhost:80 allows it"),
        (["*"], str(HOST), [], f"this machine's loopback {NAMED} localhost:80 allows it"),
        (["0.0.0.0/0"], "127.0.0.2", [], f"this machine's loopback {NAMED} 127.0.0.2:80 allows it"),
        ([], "169.254.169.254", [], f"(clouds tell machines their secrets there) {NAMED} 169.254.169.254:80 allows it"),
        (["169.254.169.254:443"], "169.254.169.254", [], f"{NAMED} 169.254.169.254:80 allows it"),
        ([], "198.51.100.9", [], f"this machine {NAMED} 198.51.100.9:80 allows it"),
        (["198.51.100.0/24"], "198.51.100.9", [], f"this machine {NAMED} 198.51.100.9:80 allows it"),
        (["mine.test"], "198.51.100.9", ["mine.test"], f"this machine {NAMED} 198.51.100.9:80 allows it"),
        (["mine.test"], "127.0.0.1", ["mine.test"], f"this machine's loopback {NAMED} 127.0.0.1:80 allows it"),
        ([], "10.96.0.7", [], f"an address of the cluster's own {NAMED} 10.96.0.7:80 allows it"),
        (["0.0.0.0/0"], "0.0.0.0", [], "no machine has that address"),
        (["255.255.255.255"], "255.255.255.255", [], "no machine has that address"),
        (["224.0.0.1"], "224.0.0.1", [], "no machine has that address"),
    ],
)
def test_where_they_may_not(words: list[str], address: str, names: list[str], sentence: str) -> None:
    assert refusal(words, address, 80, *names).endswith(sentence)


@pytest.mark.parametrize(
    "word", ["", "a b", "*.", "a.*", "1.2.3", "1.2.3.4/33", "a:0", "a:x", "http://a", "[::1]:80", "-a"]
)
def test_what_is_no_destination(word: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        destination(word)


def test_which_names_are_looked_up() -> None:
    """Those by which something may be reached: a query, too, takes something out."""
    for words in ([], ["*"], ["192.0.2.0/24"], ["a.test"], ["*.test:80"]):
        assert allowed(*words).may_ask("a.test"), words
    for words in (["b.test"], ["localhost:80"], ["*.a.test"]):
        assert not allowed(*words).may_ask("a.test"), words


def test_an_address_of_this_machine() -> None:
    assert is_own(IPv4Address("127.0.0.1"))
    assert not is_own(FAR)


def test_what_is_no_query() -> None:
    whole = query("a.test")
    for wrong in (*(whole[:end] for end in range(len(whole))), whole[:2] + b"\x79" + whole[3:], whole[:4] + bytes(8)):
        with pytest.raises(ValueError, match=r"query"):
            question(wrong)
    looped = whole[:12] + b"\xc0\x0c" + whole[-4:]
    with pytest.raises(ValueError, match="a name leads in a circle"):
        question(looped)


def test_what_was_learned_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outside, "_MOST_ADDRESSES", 2)
    monkeypatch.setattr(outside, "_MOST_NAMES", 2)
    now = [0.0]
    learned = Learned(lambda: now[0])
    first, second, third = (FAR + number for number in range(3))
    learned.note("a.test", iter([first, second]))
    learned.note("b.test", iter([first]))
    learned.note("c.test", iter([third, first]))
    assert [[*learned.of(each)] for each in (first, second, third)] == [["b.test", "c.test"], [], ["c.test"]]
    now[0] = 3601
    assert [*learned.of(first)] == []


def test_servers_of_this_machine() -> None:
    text = "# a comment\nsearch a.test\nnameserver 192.0.2.1\nnameserver  2001:db8::1 \nnameserver\noptions ndots:1\n"
    assert servers_of(text) == [("192.0.2.1", 53), ("2001:db8::1", 53)]


@pytest.fixture
def names() -> Iterator[NameServer]:
    many = [f"192.0.2.{number}" for number in range(LONG + 1)]
    with name_server({"one.test": ["192.0.2.7"], "many.test": many}) as one:
        yield one


def resolver(one: NameServer, *words: str) -> Resolver:
    host, port = one.address.split(":")
    return Resolver(allowed(*words).may_ask, [("127.0.0.1", refused_port()), (host, int(port))])


def asked(one: Resolver, name: str, kind: int = 1, *, stream: bool = False) -> tuple[int, list[str]]:
    """The code of an answer, and its addresses."""
    said = asyncio.run(one.answer(query(name, kind), stream=stream))
    assert said[:2] == query(name)[:2]
    assert question(said)[:2] == (name.lower(), kind)
    return said[3] & 0x0F, [*map(str, addresses(said))]


def test_names(names: NameServer) -> None:
    one = resolver(names)
    assert asked(one, "One.test") == (0, ["192.0.2.7"])
    assert asked(one, "alias.one.test") == (0, ["192.0.2.7"])
    assert [*one.learned.of(FAR)] == ["one.test", "alias.one.test"]
    assert asked(one, "none.test") == (3, [])
    assert asked(one, HOST_NAME) == (0, [str(HOST)])
    assert asked(one, HOST_NAME, 28) == (0, [])


def test_a_long_answer_comes_by_tcp(names: NameServer) -> None:
    one = resolver(names)
    assert asked(one, "many.test") == (0, [])
    assert len(asked(one, "many.test", stream=True)[1]) == LONG + 1


def test_what_is_not_handed_on(names: NameServer) -> None:
    """Names that lead nowhere, and addresses that pods do not have."""
    one = resolver(names, "one.test")
    assert asked(one, "many.test") == (3, [])
    assert asked(one, "one.test", 28) == (0, [])
    assert names.asked == []


def test_no_server_answers() -> None:
    one = Resolver(lambda _name: True, [("127.0.0.1", refused_port())])
    assert asked(one, "one.test") == (2, [])
    assert asked(one, "one.test", stream=True) == (2, [])


class Node:
    """The other side: what native/egress does."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._last = 0

    def say(self, **what: Any) -> int:
        self._last += 1
        self._control.send(json.dumps({"id": self._last, **what}).encode())
        return self._last

    async def hear(self) -> tuple[dict[str, Any], socket.socket | None]:
        """A reply, and the stream that came with it."""
        loop = asyncio.get_running_loop()
        data, descriptors, *_ = await asyncio.wait_for(
            loop.run_in_executor(None, socket.recv_fds, self._control, 1 << 17, 1), 20
        )
        stream = socket.socket(fileno=descriptors[0]) if descriptors else None
        if stream:
            stream.setblocking(False)
        return json.loads(data), stream

    async def connect(self, to: str, client: str = "10.88.0.5:4000") -> tuple[dict[str, Any], socket.socket | None]:
        number = self.say(connect=to, **{"from": client})
        said, stream = await self.hear()
        assert said.pop("id") == number
        return said, stream

    async def joined(self, to: str) -> tuple[int, socket.socket]:
        said, stream = await self.connect(to)
        assert said == {"joined": True}
        assert stream is not None
        return self._last, stream


@contextlib.asynccontextmanager
async def working(one: Allowed, names: Resolver | None = None) -> AsyncIterator[Node]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    work = Egress(ours, one, names or Resolver(one.may_ask), Log())
    serving = asyncio.create_task(work.serve())
    with ours, theirs:
        yield Node(theirs)
        theirs.shutdown(socket.SHUT_RDWR)
        await asyncio.wait_for(serving, 20)


Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@contextlib.asynccontextmanager
async def server(serve: Serve) -> AsyncIterator[str]:
    """Something that listens on loopback; its address as pods have it."""
    made = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"{HOST}:{made.sockets[0].getsockname()[1]}"
    finally:
        made.close()


async def reverse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Say what came backwards, once the client has said that it is all."""
    said = await reader.read()
    writer.write(said[::-1])
    await writer.drain()
    writer.close()


async def all_of(stream: socket.socket) -> bytes:
    loop, found = asyncio.get_running_loop(), b""
    while data := await asyncio.wait_for(loop.sock_recv(stream, 1 << 16), 20):
        found += data
    return found


def test_both_ways() -> None:
    """Many bytes, and the end of one direction by itself."""

    async def run() -> None:
        sent = os.urandom(4 << 20)
        async with server(reverse) as at, working(allowed("localhost")) as node:
            _, stream = await node.joined(at)
            with stream:
                await asyncio.get_running_loop().sock_sendall(stream, sent)
                stream.shutdown(socket.SHUT_WR)
                assert await all_of(stream) == sent[::-1]

    asyncio.run(run())


def test_who_is_refused_hears_of_it_at_once(capfd: pytest.CaptureFixture[str]) -> None:
    async def run() -> None:
        async with server(reverse) as at, working(allowed("192.0.2.1")) as node:
            for _ in range(3):
                assert await node.connect(at) == ({"refused": True}, None)
        async with working(allowed("localhost")) as node:
            assert await node.connect(f"{HOST}:{refused_port()}", "169.254.88.1:5") == ({"refused": True}, None)

    asyncio.run(run())
    first, second = capfd.readouterr().err.splitlines()
    assert first.startswith(f"10.88.0.5 -> {HOST}:")
    assert f": refused: this machine's loopback {NAMED} localhost:" in first
    assert second.startswith(f"the node -> {HOST}:")
    assert second.endswith(": Connection refused")


def test_a_name_leads_where_it_led(names: NameServer) -> None:
    """And one of the list is asked for again, before an address of it is refused."""

    async def run() -> None:
        one = allowed("one.test")
        resolved = resolver(names, "one.test")
        async with working(one, resolved) as node:
            said, _ = await node.connect("192.0.2.8:80")
            assert said == {"refused": True}
            assert names.asked == [("one.test", 1)]
            assert one.refusal(FAR, 80, resolved.learned.of(FAR)) == ""
            assert (await node.connect("192.0.2.8:80"))[0] == {"refused": True}
            assert len(names.asked) == 1, "not each time"

    asyncio.run(run())


async def resets(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Reset after a byte."""
    await reader.read(1)
    end: socket.socket = writer.get_extra_info("socket")
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def test_a_reset_out_there() -> None:
    """The stream is open until the node has heard of it."""

    async def run() -> None:
        async with server(resets) as at, working(allowed("localhost")) as node:
            number, stream = await node.joined(at)
            await asyncio.get_running_loop().sock_sendall(stream, b"a")
            assert await node.hear() == ({"id": number, "reset": True}, None)
            with pytest.raises(BlockingIOError):
                stream.recv(1)
            stream.close()

    asyncio.run(run())


def test_a_reset_in_the_pod() -> None:
    async def run() -> None:
        heard: asyncio.Future[type] = asyncio.get_running_loop().create_future()

        async def listens(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await reader.read()
                heard.set_result(bytes)
            except OSError as error:
                heard.set_result(type(error))
            writer.close()

        async with server(listens) as at, working(allowed("localhost")) as node:
            number, stream = await node.joined(at)
            node._last = number - 1
            node.say(reset=True)
            assert await node.hear() == ({"id": number, "reset": True}, None)
            assert await asyncio.wait_for(heard, 20) is ConnectionResetError
            stream.close()
            node.say(reset=True)  # of one that has ended meanwhile
            assert (await node.hear())[0]["reset"]

    asyncio.run(run())


def test_nothing_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(egress, "_CONNECT", 0.1)

    async def hangs(*_words: Any) -> socket.socket:
        await asyncio.sleep(60)
        raise AssertionError

    monkeypatch.setattr(egress, "_opened", hangs)

    async def run() -> None:
        async with working(allowed()) as node:
            assert await node.connect(f"{FAR}:80") == ({}, None)

    asyncio.run(run())


def test_too_many_connections(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    """A pod has half of them at most."""
    monkeypatch.setattr(egress, "_MOST", 8)

    async def run() -> None:
        async with server(reverse) as at, working(allowed("localhost")) as node:
            streams = [(await node.joined(at))[1] for _ in range(4)]
            assert (await node.connect(at))[0] == {"refused": True}
            said, other = await node.connect(at, "10.88.0.6:1")
            assert said == {"joined": True}
            for each in (*streams, other):
                assert each is not None
                each.close()
            for _ in range(100):
                _, again = await node.connect(at)
                if again:
                    again.close()
                    break
                await asyncio.sleep(0.05)  # nothing tells of an end
            else:
                raise AssertionError("those that ended count on")

    asyncio.run(run())
    assert "refused: too many connections at once" in capfd.readouterr().err


def test_queries_of_the_node(names: NameServer) -> None:
    async def run() -> None:
        async with working(allowed(), resolver(names)) as node:
            for stream in (False, True):
                node.say(query=base64.b64encode(query("one.test")).decode(), stream=stream)
                said, _ = await node.hear()
                assert [*addresses(base64.b64decode(said["answer"]))] == [FAR]
            node.say(query="AAAA")
            assert (await node.hear())[0]["answer"] == ""

    asyncio.run(run())


def test_a_node_that_does_not_listen(monkeypatch: pytest.MonkeyPatch) -> None:
    """Is not listened to: what is to be said to it does not heap up."""
    monkeypatch.setattr(egress, "_UNSAID", 8)

    async def run() -> None:
        async with working(allowed("192.0.2.1")) as node:
            node._control.setblocking(False)
            said = 0
            with contextlib.suppress(BlockingIOError):
                while said < 100_000:
                    node.say(reset=True)
                    said += 1
                    await asyncio.sleep(0)
            assert said < 100_000
            node._control.setblocking(True)
            for _ in range(said):
                assert (await node.hear())[0]["reset"]

    asyncio.run(run())


def paired(folder: Path, *words: str) -> list[str]:
    """What is told while the process of the host works with another than the node's."""
    told: list[str] = []
    asyncio.run(
        EGRESS.run(folder, lambda _: words, lambda line: told.append(line.decode()), lambda: told.append("ready"))
    )
    return told


def test_the_two_processes(tmp_path: Path) -> None:
    """The end of one is that of the other."""
    says = "import socket; socket.socket(fileno=0).send(b'{\"ready\": true}')"
    assert paired(tmp_path, sys.executable, "-c", says) == ["ready"]


def test_a_place_without_a_way_out(tmp_path: Path) -> None:
    with pytest.raises(Impossible, match=r"^no device$"):
        paired(tmp_path, "sh", "-c", "echo no device >&2; exit 3")
    assert paired(tmp_path, "sh", "-c", "echo broken >&2; exit 1") == ["egress\tbroken\n"]
