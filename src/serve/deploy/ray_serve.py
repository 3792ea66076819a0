"""Serves a model on several replicas of `wgpt serve`, behind Ray Serve.

    pip install "ray[serve]==2.60.0"
    serve run ray_serve:app
    serve run ray_serve:app model=owner/name:Q4_K_M replicas=2 gpus=1 args="--ctx 8192 --parallel 8"
    curl localhost:8000/v1/completions -H 'content-type: application/json' -d '{"prompt": "Once"}'

Each replica starts a server and passes requests and answers through as they are, streams piece by piece.
Requests with the same `x-session-id` header reach the same replica, which has their prefix in its cache; so
does a request for the /metrics of that replica. An answer's `x-replica` header says who gave it. A server
that dies takes its replica with it: the others serve its sessions, and Ray starts another.

The settings are given as above, or in the environment: WGPT_MODEL, WGPT_REPLICAS, WGPT_GPUS, WGPT_ARGS,
WGPT_BINARY.
"""

import asyncio
import contextlib
import os
import shlex
import shutil

import aiohttp
import ray
from pydantic import BaseModel
from ray import serve
from ray.serve.config import RequestRouterConfig
from ray.serve.experimental.consistent_hash_router import ConsistentHashRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from yarl import URL

# Headers that concern one connection alone, and those of answers that Ray sets itself.
HOPS = {"connection", "expect", "host", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade"}
RAYS = {"date", "x-request-id"}
GONE = {"code": 503, "message": "a replica is gone", "type": "unavailable_error", "param": None}


class Settings(BaseModel):
    model: str = os.environ.get("WGPT_MODEL", "")  # a file, a folder, a name on the Hub; none: the built-in
    replicas: int = int(os.environ.get("WGPT_REPLICAS", "2"))
    gpus: int = int(os.environ.get("WGPT_GPUS", "0"))  # 1: Ray gives each replica a GPU, by its number
    args: str = os.environ.get("WGPT_ARGS", "")  # more arguments of `wgpt serve`
    binary: str = os.environ.get("WGPT_BINARY", "wgpt")


# A server has room for 68 requests (4 run, 64 wait). From the 65th on they go to the next replica.
@serve.deployment(
    max_ongoing_requests=64,
    health_check_period_s=2,
    graceful_shutdown_timeout_s=60,
    request_router_config=RequestRouterConfig(request_router_class=ConsistentHashRouter),
)
class Wgpt:
    async def __init__(self, settings: Settings):
        command = [settings.binary, "serve", "--port", "0", *shlex.split(settings.args)]
        command += ["--model", settings.model] if settings.model else []
        command += ["--device", str(ray.get_gpu_ids()[0])] if settings.gpus else []
        if not shutil.which(settings.binary):
            raise FileNotFoundError(f"there is no program {settings.binary}")
        self.server = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
        async for line in self.server.stderr:
            print(line.decode(), end="")
            if line.startswith(b"listening on "):
                self.url = line.decode().split()[-1]
                break
        else:
            raise RuntimeError(f"{shlex.join(command)} ended before it listened")
        self.client = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
            timeout=aiohttp.ClientTimeout(total=None),
            auto_decompress=False,
            skip_auto_headers=["accept", "accept-encoding", "content-type", "user-agent"],
        )
        self.name = serve.get_replica_context().replica_id.unique_id
        self.stopping = False
        self.following = asyncio.create_task(self.follow())
        while not await self.healthy():
            await asyncio.sleep(0.2)

    async def follow(self):
        """Passes the server's messages on to Ray's log. Where the server ends, so does the replica."""
        async for line in self.server.stderr:
            print(line.decode(), end="")
        await asyncio.sleep(0.2)  # requests under way are told
        if not self.stopping:
            os._exit(1)

    async def healthy(self):
        async with self.client.get(self.url + "/health") as answer:
            return answer.status == 200

    async def check_health(self):
        if not await self.healthy():
            raise RuntimeError("the server is not healthy")

    async def __call__(self, request: Request):
        path = request.scope["raw_path"].decode()[len(request.scope.get("root_path", "")) :]
        try:
            # A client that goes away cancels this, or the stream below, and so closes the connection.
            answer = await self.client.request(
                request.method,
                URL(f"{self.url}{path}?{request.url.query}", encoded=True),
                headers=[(k, v) for k, v in request.headers.items() if k not in HOPS],
                data=await self.body(request),
                allow_redirects=False,
            )
        except (aiohttp.ClientConnectionError, TimeoutError):
            return JSONResponse({"error": GONE}, 503, {"retry-after": "1", "x-replica": self.name})
        stream = StreamingResponse(self.pieces(answer), answer.status)
        stream.raw_headers = [h for h in answer.raw_headers if h[0].decode().lower() not in HOPS | RAYS]
        stream.headers["x-replica"] = self.name
        return stream

    async def body(self, request):
        """A request's body. Where a replica dies having read it, Ray may send the request on without."""
        if not {"content-length", "transfer-encoding"} & set(request.headers):
            return None
        body, now = bytearray(), asyncio.get_running_loop().time
        async with asyncio.timeout(5) as limit:
            async for piece in request.stream():
                body += piece
                limit.reschedule(now() + 5)
        if len(body) != int(request.headers.get("content-length", len(body))):
            raise TimeoutError
        return bytes(body)

    async def pieces(self, answer):
        async with answer:
            async for piece in answer.content.iter_any():
                yield piece

    async def __del__(self):
        # Once no request is under way; or after a start that failed, perhaps without a server.
        self.stopping = True
        with contextlib.suppress(AttributeError, ProcessLookupError):
            self.server.terminate()
            await self.server.wait()


def app(settings: Settings):
    """What `serve run ray_serve:app` runs."""
    return Wgpt.options(
        num_replicas=settings.replicas, ray_actor_options={"num_cpus": 1, "num_gpus": settings.gpus}
    ).bind(settings)
