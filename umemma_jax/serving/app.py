"""A trained model behind HTTP: predictions, what the model is, health, metrics, and a page to try it on."""

import contextlib
import dataclasses
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from importlib import resources
from typing import Any, NamedTuple

from anyio import CapacityLimiter, to_thread
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from starlette.datastructures import UploadFile

from umemma_jax import __version__
from umemma_jax.answers import answers
from umemma_jax.command import one_line
from umemma_jax.data_prep.build.rows import short
from umemma_jax.errors import UserError
from umemma_jax.evaluation.metrics import undefined_as_none
from umemma_jax.patterns import pattern_name
from umemma_jax.predict import Predictions
from umemma_jax.predictor import Predictor
from umemma_jax.serving.batching import Batcher, Full
from umemma_jax.serving.fields import Fields
from umemma_jax.serving.guards import Guard
from umemma_jax.serving.limits import Batching, Limits
from umemma_jax.serving.metrics import Metrics

PAGE = {
    "/": ("page.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}
PREDICT = "/predict"
ROWS, FLOOR, WITHOUT = "rows", "floor", "without"  # keys of a request that are no fields


class Server:
    """What the routes share: a model, its queue, and counts."""

    def __init__(self, model: Predictor, limits: Limits, batching: Batching, readers: int) -> None:
        """Takes also how many threads read and convert what requests hold."""
        self.model, self.limits = model, limits
        self.fields = Fields(model, limits)
        self.metrics = Metrics(lambda: self.batcher.waiting)
        self.batcher = Batcher(
            model.said, batching.rows, batching.milliseconds, limits.queue, lambda *batch: self.metrics.batch(*batch)
        )
        self._readers = CapacityLimiter(readers)
        self._at_work = 0

    def observe(self, path: str, status: int, seconds: float) -> None:
        """Counts a request for predictions."""
        if path == PREDICT:
            self.metrics.requests.labels(str(status)).inc()
            self.metrics.seconds.observe(seconds)

    async def predict(
        self, rows: Sequence[Mapping[str, Any]], floor: Any, without: Sequence[str] = ()
    ) -> list[dict[str, Any]]:
        """An answer for each row, in a form for JSON.

        Args:
          rows: by field.
          floor: as of `Predictor.predict`.
          without: modalities that count as missing, even where the rows have their fields.

        Raises:
          UserError: a row cannot be read, or lacks what is required.
          Full: too many requests wait.
        """
        self._check_may_lack(without)
        if self._at_work >= self.limits.queue:
            raise Full
        self._at_work += 1
        try:
            examples = await to_thread.run_sync(self._read, rows, without, limiter=self._readers)
            said = await self.batcher(examples)
        finally:
            self._at_work -= 1
        predictions = self.model.predictions(said)
        found = answers(predictions, self.model.quality, floor)
        for present in said.present:
            self.metrics.rows.labels(pattern_name(present, self.model.modalities) or "nothing").inc()
        return [_answer(answer, predictions, number) for number, answer in enumerate(found)]

    def _read(self, rows: Sequence[Mapping[str, Any]], without: Sequence[str]) -> list[dict[str, Any]]:
        examples = self.model.examples(self.fields.table(rows))
        return [{m: value for m, value in example.items() if m not in without} for example in examples]

    def _check_may_lack(self, without: Sequence[str]) -> None:
        optional = [m for m in self.model.modalities if m not in self.model.required]
        for m in without:
            if m not in optional:
                raise UserError(f"{WITHOUT}={short(m)}: no input that may be missing, which are {', '.join(optional)}")


def make_app(
    model: Predictor,
    limits: Limits = Limits(),  # noqa: B008
    batching: Batching = Batching(),  # noqa: B008
    hosts: Sequence[str] = (),
    readers: int = 2,
) -> FastAPI:
    """The app of one model.

    Args:
      model: to serve.
      limits: on requests.
      batching: of them.
      hosts: names that the server may be called by; none: any.
      readers: threads that read and convert what requests hold.
    """
    server = Server(model, limits, batching, readers)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        await to_thread.run_sync(server.batcher.close)

    app = FastAPI(title="umemma_jax", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.server = server
    app.add_middleware(Guard, limits=limits, hosts=hosts, observe=server.observe)
    app.add_exception_handler(HTTPException, _refused)

    @app.post(PREDICT)
    async def predict(request: Request) -> JSONResponse:
        """Answers for one row or several, in JSON or as a form with files."""
        try:
            rows, floor, without, several = await _read(request, limits)
            found = await server.predict(rows, floor, without)
        except UserError as error:
            raise HTTPException(422, one_line(str(error))[:500]) from error
        except Full as error:
            raise HTTPException(503, "too many requests wait: try again", {"Retry-After": "1"}) from error
        return JSONResponse({"answers": found} if several else found[0])

    @app.get("/model")
    async def about() -> JSONResponse:
        """What the model takes and gives, and how good it is."""
        return JSONResponse(described(server))

    @app.get("/health")
    async def health() -> JSONResponse:
        """Whether requests are answered; there is nothing to connect to before the programs are made."""
        works = server.batcher.works
        return JSONResponse({"status": "ok" if works else "the model has ended"}, 200 if works else 503)

    @app.get("/metrics")
    async def metrics() -> Response:
        """For Prometheus."""
        return Response(server.metrics.text(), media_type="text/plain; version=0.0.4")

    for path, (file, media_type) in PAGE.items():
        _add_file(app, path, file, media_type)
    return app


def described(server: Server) -> dict[str, Any]:
    """What a model takes and gives, in a form for JSON."""
    model = server.model
    return {
        "name": model.info.name,
        "description": model.info.description,
        "inputs": server.fields.inputs,
        "classes": list(model.classes),
        "multi_label": model.info.multi_label,
        "targets": [target.name for target in model.info.targets],
        "metric": model.metric,
        "quality": model.quality,
        "limits": dataclasses.asdict(server.limits),
        "umemma_jax": __version__,
    }


def _add_file(app: FastAPI, path: str, file: str, media_type: str) -> None:
    content = resources.files(__package__).joinpath(file).read_bytes()

    @app.api_route(path, methods=["GET", "HEAD"], include_in_schema=False)
    async def send() -> Response:
        return Response(content, media_type=media_type)


async def _refused(request: Request, error: HTTPException) -> JSONResponse:
    return JSONResponse({"error": str(error.detail)}, error.status_code, error.headers)


# --- requests ---------------------------------------------------------------------------------------------------------


class Asked(NamedTuple):
    """What a request asks for.

    Attributes:
      rows: by field.
      floor: on their answers.
      without: modalities that count as missing.
      several: whether the rows were given as a list.
    """

    rows: list[dict[str, Any]]
    floor: Any
    without: list[str]
    several: bool


async def _read(request: Request, limits: Limits) -> Asked:
    form = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if form == "application/json":
        return _of_json(await request.body(), limits)
    if form == "multipart/form-data":
        return await _of_form(request, limits)
    raise HTTPException(415, "send application/json or multipart/form-data")


def _of_json(body: bytes, limits: Limits) -> Asked:
    try:
        content = json.loads(body, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise HTTPException(400, f"no JSON: {one_line(str(error))[:200]}") from error
    if not isinstance(content, dict):
        raise HTTPException(400, "give an object with the fields of a row, or with a list of such as 'rows'")
    floor, without = content.pop(FLOOR, 0.0), content.pop(WITHOUT, [])
    if not isinstance(without, list) or not all(isinstance(m, str) for m in without):
        raise HTTPException(400, f"{WITHOUT!r} is no list of inputs")
    several = ROWS in content
    rows = content[ROWS] if several else [content]
    if several and len(content) > 1:
        raise HTTPException(400, "fields beside 'rows': give either")
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise HTTPException(400, "'rows' is no list of objects with the fields of a row")
    if len(rows) > limits.rows:
        raise HTTPException(413, f"{len(rows)} rows, more than {limits.rows}")
    return Asked(rows, floor, without, several)


def _no_number(name: str) -> float:
    raise ValueError(f"{name} is no number in JSON")


async def _of_form(request: Request, limits: Limits) -> Asked:
    """One row; of a field that comes several times a list."""
    row: dict[str, Any] = {}
    async with request.form(max_files=limits.fields, max_fields=limits.fields) as form:
        for name in form:
            values = [await x.read() if isinstance(x, UploadFile) else x for x in form.getlist(name)]
            row[name] = values if len(values) > 1 or name == WITHOUT else values[0]
    if not row:
        raise HTTPException(400, "no field in the form")
    floor, without = row.pop(FLOOR, 0.0), row.pop(WITHOUT, [])
    try:
        return Asked([row], float(floor), without, several=False)
    except (TypeError, ValueError) as error:
        raise HTTPException(400, f"floor={str(floor)[:100]!r}: is no number") from error


# --- answers ----------------------------------------------------------------------------------------------------------


def _answer(answer: Any, predictions: Any, number: int) -> dict[str, Any]:
    """An answer, with the probabilities of all classes."""
    found = dataclasses.asdict(answer)
    if isinstance(predictions, Predictions):
        probabilities = predictions.probabilities[number].tolist()
        found["probabilities"] = dict(zip(predictions.classes, probabilities, strict=True))
    return undefined_as_none(found)
