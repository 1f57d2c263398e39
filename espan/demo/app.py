"""The web application: the page and its HTTP interface.

GET  /                    the page and its static files
GET  /settings            models and limits
POST /jobs?name=&model=&scale=&format=   an image file as the body -> {"id"};
                          width=, height=, fit= or max_side= instead of scale=
GET  /jobs?id=&id=        state of each job that still exists -> {ID: state}
GET  /jobs/ID/events      state and progress as server-sent events, until the job ends
GET  /jobs/ID/result, /jobs/ID/before
DELETE /jobs/ID
"""

import json
import time
from importlib import resources
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

import anyio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from espan.demo.guard import Guard
from espan.demo.jobs import REMEMBERED, UNFINISHED, FullError, JobRequest, WebJob, WebJobs
from espan.demo.limits import Limits
from espan.demo.work import Work
from espan.errors import InputError
from espan.images import files
from espan.sizes import check_scale, from_text, tag

PAGES = {
    "": ("demo.html", "text/html; charset=utf-8"),
    "demo.css": ("demo.css", "text/css; charset=utf-8"),
    "demo.js": ("demo.js", "text/javascript; charset=utf-8"),
    "queue.js": ("queue.js", "text/javascript; charset=utf-8"),
    "viewer.css": ("viewer.css", "text/css; charset=utf-8"),
    "viewer.js": ("viewer.js", "text/javascript; charset=utf-8"),
    "icon.svg": ("icon.svg", "image/svg+xml"),
}
MEDIA = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".webp": "image/webp",
    ".gif": "image/gif",
}
SHOWN = {**MEDIA, ".avif": "image/avif"}
# Result formats for inputs that browsers can show; results of other inputs are PNG.
SUFFIXES = {**{suffix: suffix for suffix in MEDIA}, ".jpeg": ".jpg", ".jfif": ".jpg"}
# Without it, the server would read and discard the rest of the request.
HANG_UP = {"Connection": "close"}
# Seconds between two polls of a job, and polls without a change before a keep-alive event.
POLL, KEEP_ALIVE = 0.1, 20


def make_app(jobs: WebJobs, work: Work, limits: Limits, *, names=(), local: bool = True) -> Guard:
    """The ASGI application. names: accepted host names besides localhost and IP addresses."""
    settings = {
        "models": work.models(),
        "device": work.device(),
        "upload": limits.upload,
        "pixels": limits.pixels,
        "keep_seconds": limits.keep_seconds,
        "local": local,
    }

    def find(request: Request) -> WebJob:
        job = jobs.get(request.path_params["id"])
        if job is None:
            raise HTTPException(404, "no such image, or already deleted")
        return job

    async def upload(request: Request) -> Response:
        wanted = _job_request(request.query_params, work)
        wanted.address = request.client.host if request.client else ""
        length = request.headers.get("content-length", "")
        if length.isdigit() and int(length) > limits.upload:
            raise _too_large(limits)
        try:
            job = jobs.open(wanted)
        except FullError:
            later = {"Retry-After": "10"}
            raise HTTPException(503, "busy: the queue is full; try again later", later) from None
        try:
            with anyio.fail_after(limits.upload_seconds):
                await _receive(request, job, limits)
        except TimeoutError:  # over the time limit, or below the minimum rate
            jobs.drop(job)
            raise HTTPException(408, "the image took too long to arrive", HANG_UP) from None
        except BaseException:
            jobs.drop(job)
            raise
        jobs.submit(job)
        return JSONResponse({"id": job.id}, 201)

    async def states_of_jobs(request: Request) -> Response:
        ids = request.query_params.getlist("id")[:REMEMBERED]
        found = {id: job for id in ids if (job := jobs.get(id))}
        for job in found.values():
            job.last_seen = time.monotonic()
        return JSONResponse({id: _state(job, jobs) for id, job in found.items()})

    async def events(request: Request) -> Response:
        job = find(request)

        async def states():
            last, polls = None, 0
            while not await request.is_disconnected():
                job.last_seen = time.monotonic()
                polls += 1
                if (now := _state(job, jobs)) != last or polls % KEEP_ALIVE == 0:
                    yield f"data: {json.dumps(now)}\n\n"
                    last = now
                if jobs.closing or job.dropped or now["state"] not in UNFINISHED:
                    return
                await anyio.sleep(POLL)

        return StreamingResponse(states(), media_type="text/event-stream")

    async def result(request: Request) -> Response:
        if request.path_params["what"] not in ("result", "before"):
            raise HTTPException(404, "Not Found")
        job = find(request)
        if job.state != "done":
            raise HTTPException(404, "not done")
        path, name = job.result, _download_name(job)
        if request.path_params["what"] == "before":
            path, name = job.preview, f"before{job.preview.suffix}"
        disposition = {"Content-Disposition": f"attachment; filename*=UTF-8''{quote(name, '')}"}
        return FileResponse(path, media_type=SHOWN[path.suffix], headers=disposition)

    async def delete(request: Request) -> Response:
        jobs.drop(find(request))
        return Response(status_code=204)

    async def refused(_request: Request, error: Exception) -> Response:
        return JSONResponse({"error": str(error)}, 400)

    async def gone(_request: Request, _error: Exception) -> Response:
        return Response(status_code=400)  # the client has disconnected

    async def unexpected(_request: Request, _error: Exception) -> Response:
        return JSONResponse({"error": "internal error"}, 500)  # the traceback is in the log

    async def http_error(_request: Request, error: HTTPException) -> Response:
        return JSONResponse({"error": error.detail}, error.status_code, error.headers)

    async def page(request: Request) -> Response:
        content, media = contents[request.url.path.lstrip("/")]
        return Response(content, media_type=media)

    async def about(_request: Request) -> Response:
        return JSONResponse(settings)

    # Read once, by fixed names: paths from clients never reach the file system.
    folder = resources.files("espan") / "pages"
    contents = {key: ((folder / name).read_bytes(), kind) for key, (name, kind) in PAGES.items()}
    routes = [Route(f"/{key}", page) for key in PAGES]
    routes += [
        Route("/settings", about),
        Route("/jobs", upload, methods=["POST"]),
        Route("/jobs", states_of_jobs),
        Route("/jobs/{id}", delete, methods=["DELETE"]),
        Route("/jobs/{id}/events", events),
        Route("/jobs/{id}/{what:str}", result),
    ]
    handlers: dict[Any, Any] = {
        InputError: refused,
        HTTPException: http_error,
        ClientDisconnect: gone,
        Exception: unexpected,
    }
    return Guard(Starlette(routes=routes, exception_handlers=handlers), names)


async def _receive(request: Request, job: WebJob, limits: Limits) -> None:
    """Writes the body to the job's file; enforces the size limit whatever the headers say."""
    received, due = 0, anyio.current_time() + limits.slow_seconds
    with job.source.open("xb") as file, anyio.fail_after(limits.slow_seconds) as slow:
        async for chunk in request.stream():
            received += len(chunk)
            if received > limits.upload:
                raise _too_large(limits)
            file.write(chunk)
            slow.deadline = due + received / limits.rate


def _too_large(limits: Limits) -> HTTPException:
    return HTTPException(413, f"the file is over the limit of {limits.upload:,} bytes", HANG_UP)


def _job_request(query, work: Work) -> JobRequest:
    """Parses the query of an upload; raises InputError for invalid values."""
    name = _plain_name(query.get("name", ""))
    suffix = PurePosixPath(name).suffix.lower()
    if query.get("format"):
        suffix = f".{query['format']}"
        if suffix not in MEDIA:
            known = ", ".join(each[1:] for each in MEDIA)
            raise InputError(f"format: expected one of {known}")
    try:
        factor = float(query["scale"]) if "scale" in query else None
    except ValueError:
        raise InputError("scale: expected a number") from None
    model = query.get("model", "")
    scale = check_scale(from_text(query, factor), work.scale(model))
    animation_suffix = SUFFIXES.get(suffix, ".png")
    # Still images are never written as GIF: PNG instead, or an error if the client selected GIF.
    still = ".png" if animation_suffix == ".gif" and not query.get("format") else animation_suffix
    return JobRequest(name, model, scale, still, animation_suffix)


def _plain_name(name: str) -> str:
    """A short name to show and to save under, without folders and unprintable characters."""
    name = name.replace("\\", "/").rpartition("/")[2]
    name = "".join(c for c in name if c.isprintable()).strip(" .")
    return name[-100:] or "image"


def _download_name(job: WebJob) -> str:
    name = PurePosixPath(job.request.name)
    stem = name.stem if name.suffix.lower() in files.READ_SUFFIXES else name.name
    return f"{stem}_{tag(job.request.scale)}{job.request.suffix}"


def _state(job: WebJob, jobs: WebJobs) -> dict:
    state = job.state
    if state == "waiting":
        return {"state": state, "ahead": jobs.ahead(job)}
    if state == "working":
        return {"state": state, "done": job.done} | ({"pace": job.pace} if job.pace else {})
    if state == "failed":
        return {"state": state, "error": job.error}
    width, height = job.size
    about = {"name": _download_name(job), "width": width, "height": height}
    return {"state": state, "seconds": round(job.seconds, 3), **about}
