"""Asks two replicas of the server behind Ray Serve, as src/serve/deploy/ray_serve.py starts them.

python replicas.py BINARY: with the built-in model, on Linux. Ten clients ask at once while one server is
killed. Exits 1 with a line for each check that fails, and ends all that it started.

    pip install "ray[serve]==2.60.0"
"""

import asyncio
import collections
import contextlib
import ctypes
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time

import aiohttp

BINARY = os.path.abspath(sys.argv[1])
DEPLOY = pathlib.Path(__file__).resolve().parents[2] / "src/serve/deploy"
TALE = {"prompt": "Once upon a time", "temperature": 0, "max_tokens": 300}
LONG = {**TALE, "max_tokens": 500, "n": 8, "ignore_eos": True}
failed = []


def check(name, holds, seen=""):
    if not holds:
        failed.append(name)
        print(f"failed: {name} {seen}".rstrip())


def family():
    """All living processes that come from this one: their ids and commands."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid=,stat=,args="], capture_output=True, text=True).stdout
    rows = [line.split(None, 3) for line in listed.splitlines()]
    mine = {str(os.getpid())}
    while more := {row[0] for row in rows if row[1] in mine} - mine:
        mine |= more
    living = [row for row in rows if row[0] in mine and row[2][0] != "Z" and not row[3].startswith("ps -eo")]
    return {int(row[0]): row[3] for row in living if int(row[0]) != os.getpid()}


def send(number, pids):
    for pid in pids:
        os.kill(pid, number)


def servers():
    return [pid for pid, command in family().items() if command.startswith(BINARY + " serve ")]


@contextlib.contextmanager
def running():
    """Two replicas of `serve run`, and their address."""
    ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER: what loses its parent stays in the family
    signal.signal(signal.SIGINT, signal.default_int_handler)  # not ignored, in the children too
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(dir="/tmp", ignore_cleanup_errors=True) as folder:
        config, log = pathlib.Path(folder, "config.yaml"), pathlib.Path(folder, "log")
        application = {"name": "wgpt", "import_path": "ray_serve:app", "args": {"replicas": 2}}
        config.write_text(
            json.dumps({"http_options": {"host": "127.0.0.1", "port": port}, "applications": [application]})
        )
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "WGPT_"))},
            **{"WGPT_BINARY": BINARY, "WGPT_ARGS": "--device cpu --threads 1", "PYTHONPATH": str(DEPLOY)},
            **{"RAY_TMPDIR": folder, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"},
        }
        command = [sys.executable, "-m", "ray.serve.scripts", "run", str(config)]
        with log.open("w") as output:
            ray = subprocess.Popen(command, cwd=folder, env=environment, stdout=output, stderr=output)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            ray.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                ray.wait(60)
            for _ in range(50):
                if family():
                    time.sleep(0.2)
            with contextlib.suppress(ChildProcessError):
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            check("no process stays", not family(), family())
            send(signal.SIGKILL, family())
            if failed:
                print(log.read_text()[-6000:], file=sys.stderr)


def session_header(session):
    return {"x-session-id": session} if session else {}


async def ask(client, session=None, stream=False, request=TALE, started=None):
    """The text and the replica, or an exception. The first piece sets `started`."""
    body = b""
    async with client.post(
        "/v1/completions", json={**request, "stream": stream}, headers=session_header(session)
    ) as answer:
        async for piece in answer.content.iter_any():
            body += piece
            if started:
                started.set()
        assert answer.status == 200, f"{answer.status} {body[:200]}"
        replica = answer.headers["x-replica"]
    body = body.decode()
    if not stream:
        return json.loads(body)["choices"][0]["text"], replica
    events = [event.removeprefix("data: ") for event in body.strip().split("\n\n")]
    # A stream that is cut must not look whole: the client has to see a broken connection.
    check("a stream ends with [DONE] or breaks", events[-1] == "[DONE]", events[-1])
    return "".join(json.loads(event)["choices"][0]["text"] for event in events[:-1]), replica


async def ready(client):
    """Waits until both replicas answer."""
    replicas = set()
    for _ in range(600):
        with contextlib.suppress(aiohttp.ClientError):
            async with client.get("/health") as answer:
                replicas |= {answer.headers["x-replica"]} if answer.status == 200 else set()
        if len(replicas) == 2:
            return
        await asyncio.sleep(0.2)
    raise RuntimeError("no two replicas came up")


async def passes_through(client):
    async with client.get("/v1/models/owner%2Fother", headers={"x-request-id": "mine"}) as answer:
        error = (await answer.json())["error"]
        check("a status is kept", answer.status == 404 and "owner/other" in error["message"], error)
        check("a request's id is kept", answer.headers.getall("x-request-id") == ["mine"])
    async with client.request("OPTIONS", "/v1/models") as answer:
        check("a method and a header are kept", answer.headers.get("allow") == "GET,HEAD", answer.headers)
    plain, streamed = await ask(client), await ask(client, stream=True)
    check("a stream has the plain answer's text", plain[0] == streamed[0] and len(plain[0]) > 100)


async def piece_by_piece(client):
    """Stops the servers for a second once a stream's first piece is there."""
    async with client.post("/v1/completions", json={**LONG, "stream": True}) as answer:
        check("a stream's type is kept", answer.content_type == "text/event-stream", answer.content_type)
        start, pieces = time.monotonic(), 0
        async for _ in answer.content.iter_any():
            pieces += 1
            if pieces == 1:
                stopped = servers()
                send(signal.SIGSTOP, stopped)
                asyncio.get_running_loop().call_later(1, send, signal.SIGCONT, stopped)
        gap = time.monotonic() - start
    print(f"a stream: {pieces} pieces, the last {gap:.2f} s after the first, of which 1 s was a pause")
    check("a stream comes piece by piece", pieces > 20 and gap > 1, f"{pieces} pieces, {gap:.2f} s")


async def generated(client):
    async with client.get("/metrics", headers=session_header("leaver")) as answer:
        lines = (await answer.text()).splitlines()
    return sum(int(line.split()[-1]) for line in lines if line.startswith("vllm:generation_tokens_total"))


async def goes_away(client):
    """A client that leaves ends its request: few of its 4000 tokens are computed."""
    for stream in True, False:
        before = await generated(client)
        with contextlib.suppress(asyncio.TimeoutError):
            async with asyncio.timeout(0.15):
                options = {"json": {**LONG, "stream": stream}, "headers": session_header("leaver")}
                async with client.post("/v1/completions", **options) as answer:
                    await answer.content.readany()
                    await asyncio.sleep(1)
        await asyncio.sleep(2)
        computed = await generated(client) - before
        print(f"a client that leaves, {stream=}: {computed} of 4000 tokens computed")
        check("a client that leaves ends its request", computed < 4000, f"{stream=}")


async def affinity(client):
    """Four sessions of each replica."""
    found = collections.defaultdict(list)
    for number in range(100):
        found[(await ask(client, f"session-{number}"))[1]].append(f"session-{number}")
        if len(found) == 2 and min(len(sessions) for sessions in found.values()) >= 4:
            break
    homes = {session: home for home, sessions in found.items() for session in sessions[:4]}
    again = {session: {(await ask(client, session))[1] for _ in range(3)} for session in homes}
    check("a session stays on its replica", all(again[one] == {homes[one]} for one in homes), again)
    check("sessions use both replicas", len(homes) == 8, homes)
    spread = collections.Counter([(await ask(client))[1] for _ in range(40)])
    print(f"40 requests without a session: {sorted(spread.values())}")
    spreads = len(spread) == 2 and min(spread.values()) > 1
    check("requests without a session use both replicas", spreads, spread)
    return homes


async def load(client, session, text, outcomes, over):
    """Asks until `over`; outcomes: (session, start, end, replica, error)."""
    stream = False
    while not over.is_set():
        start, replica, error, stream = time.monotonic(), None, None, not stream
        try:
            answer, replica = await ask(client, session, stream)
            error = None if answer == text else f"another text: {answer!r}"
        except (aiohttp.ClientError, TimeoutError, AssertionError) as raised:
            error = repr(raised)
            await asyncio.sleep(0.1)
        outcomes.append((session, start, time.monotonic(), replica, error))


async def killed(client, homes):
    """Ten clients ask for four seconds; then, amid a long stream on each replica, one server is killed."""
    text, _ = await ask(client)
    outcomes, over = [], asyncio.Event()
    clients = [load(client, session, text, outcomes, over) for session in [*homes, None, None]]
    tasks = [asyncio.create_task(task) for task in clients]
    await asyncio.sleep(4)
    started = [asyncio.Event(), asyncio.Event()]
    streams = [
        asyncio.create_task(ask(client, session, True, LONG, event))
        for session, event in zip((list(homes)[0], list(homes)[-1]), started, strict=True)
    ]
    await asyncio.wait([asyncio.create_task(event.wait()) for event in started], timeout=20)
    old, kill = servers(), time.monotonic()
    check("two servers run", len(old) == 2, old)
    send(signal.SIGKILL, old[:1])
    ends = await asyncio.gather(*streams, return_exceptions=True)
    broken = [end for end in ends if isinstance(end, aiohttp.ClientPayloadError)]
    whole = [end for end in ends if isinstance(end, tuple)]
    check("of two streams one breaks and one ends", len(broken) == len(whole) == 1, ends)

    known, new = set(homes.values()), []
    while not new and time.monotonic() < kill + 30:
        await asyncio.sleep(0.2)
        new = [one for one in outcomes if one[3] and one[3] not in known]
    back = new[0][2] - kill if new else 30
    await asyncio.sleep(5)
    over.set()
    await asyncio.gather(*tasks)

    before = [one for one in outcomes if one[2] < kill]
    harmed = [one for one in outcomes if one[4]]
    seen = {session: {one[3] for one in before if one[0] == session} for session in homes}
    late = {one[3] for one in outcomes if one[1] > kill + back and not one[4]}
    dead = known - late
    outage = max((one[2] - kill for one in harmed), default=0)
    print(
        f"10 clients: {len(before)} requests before the kill, {len(outcomes) - len(before)} after it;"
        f" {len(harmed)} failed, the last {outage:.2f} s after it; a new replica answered after {back:.1f} s"
    )
    check("a killed server is replaced", len(servers()) == 2 and old[0] not in servers(), servers())
    check("nothing fails before the kill", not [one for one in before if one[4]], harmed[:1])
    check("under load too a session stays", all(seen[one] == {homes[one]} for one in homes), seen)
    check("one replica dies, another comes", len(dead) == 1 and len(late) == 2, f"{dead} {late}")
    others = [one for one in harmed if one[0] and homes[one[0]] not in dead]
    check("sessions on the other replica are unharmed", not others, others[:1])
    check("the service answers again", outage < 30, f"{outage:.1f} s")
    # What was under way there, and a few that came before its end was known.
    check("few requests fail", len(harmed) <= 30, len(harmed))


async def main(url):
    timeout = aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(url, timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as client:
        await ready(client)
        for test in passes_through, piece_by_piece, goes_away:
            await test(client)
        await killed(client, await affinity(client))


with running() as address:
    asyncio.run(main(address))
sys.exit(1 if failed else 0)
