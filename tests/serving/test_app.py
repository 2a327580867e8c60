"""Answers over HTTP are those of Python; whatever else comes is refused in one line, and nothing ends the server."""

import asyncio
import base64
import io
import json
import sys
import zlib

import numpy as np
import pytest

fastapi = pytest.importorskip("fastapi", reason="the extra `serve` is not installed")
from fastapi.testclient import TestClient  # noqa: E402
from PIL import Image  # noqa: E402

from tests.serving.conftest import png, row, sound  # noqa: E402
from umemma_jax.data_prep.raw.media import content_of  # noqa: E402
from umemma_jax.serving.app import make_app  # noqa: E402
from umemma_jax.serving.limits import Batching, Limits  # noqa: E402

pytestmark = pytest.mark.usefixtures("one_device")
LIMITS = Limits(megabytes=0.5, megapixels=0.1, sound_seconds=2.0, rows=3, characters=1000)


@pytest.fixture(scope="module")
def client(model):
    app = make_app(model, LIMITS, Batching(rows=4, milliseconds=1.0))
    with TestClient(app, base_url="http://localhost") as client:
        yield client


def wav(seed=0, seconds=0.5):
    return content_of(sound(seed, seconds))


def as_json(given):
    """A row with files in base64."""
    files = {"photo": given["photo"], "clip": content_of(given["clip"])}
    return {name: given[name] for name in ("title", "price", "colour")} | {
        name: base64.b64encode(data).decode() for name, data in files.items()
    }


def refused(response, status):
    assert response.status_code == status, response.text
    (reason,) = response.json().values()
    assert "\n" not in reason and len(reason) <= 500
    return reason


def test_an_answer_is_that_of_python(client, model):
    given = row(3)
    answer, expected = client.post("/predict", json=as_json(given)).json(), model.predict(given)
    assert answer["prediction"] == expected.prediction
    assert answer["probability"] == pytest.approx(expected.probability, abs=1e-5)
    assert tuple(answer["used"]) == expected.used == model.modalities
    assert list(answer["probabilities"].values()) == pytest.approx(model.predict_proba(given).tolist(), abs=1e-5)


def test_a_form_with_files_is_as_json_with_base64(client):
    given = row(4)
    files = {"photo": ("x.png", given["photo"]), "clip": ("x.wav", content_of(given["clip"]))}
    form = client.post("/predict", data={"title": given["title"], "price": "6", "colour": "green"}, files=files).json()
    assert form["used"] == ["photo", "clip", "title", "tabular"] or len(form["used"]) == 4
    json_given = as_json(given) | {"price": 6, "colour": "green"}
    assert form["probability"] == pytest.approx(
        client.post("/predict", json=json_given).json()["probability"], abs=1e-5
    )


@pytest.mark.parametrize("missing", ["photo", "clip", "title"])
def test_anything_may_be_missing(client, model, missing):
    given = row(1)
    answer = client.post("/predict", json=as_json(given) | {missing: None}).json()
    expected = model.predict({name: value for name, value in given.items() if name != missing})
    assert answer["probability"] == pytest.approx(expected.probability, abs=1e-5)
    assert len(answer["used"]) == 3
    assert client.post("/predict", json={}).json()["prediction"] is None


def test_several_rows_and_a_floor(client):
    rows = [{"title": "red thing"}, {"price": 3.5}]
    answers = client.post("/predict", json={"rows": rows, "floor": 1.1}).json()["answers"]
    assert [answer["used"] for answer in answers] == [["title"], ["tabular"]]
    assert all(answer["abstain"] for answer in answers)


def test_an_input_counts_as_missing_where_that_is_asked(client, model):
    given = {"title": "red thing", "price": 3.5}
    expected = model.predict({"price": 3.5})
    for asked in (
        {"json": given | {"without": ["title"]}},
        {"files": {"title": (None, "red thing"), "price": (None, "3.5"), "without": (None, "title")}},
    ):
        answer = client.post("/predict", **asked).json()
        assert (tuple(answer["used"]), answer["quality"]) == (expected.used, expected.quality)
        assert answer["probability"] == pytest.approx(expected.probability, abs=1e-5)
    reason = refused(client.post("/predict", json=given | {"without": ["titel"]}), 422)
    assert "without='titel': no input that may be missing" in reason
    assert "no list of inputs" in refused(client.post("/predict", json=given | {"without": "title"}), 400)


def test_metrics_count_every_request_by_its_answer(model):
    app = make_app(model, LIMITS)
    with TestClient(app, base_url="http://localhost") as client:
        client.post("/predict", json={})
        client.post(
            "/predict", content=(b"x" * 100_000 for _ in range(10)), headers={"content-type": "application/json"}
        )
        client.post("/predict", json={}, headers={"origin": "http://elsewhere.example"})
        text = client.get("/metrics").text
    for status in (200, 413, 403):
        assert f'umemma_requests_total{{status="{status}"}} 1.0' in text
    assert 'status="500"' not in text


def test_a_client_that_leaves_is_no_error(model):
    """What uvicorn gives an app whose client goes before its body is whole."""
    app, sent = make_app(model, LIMITS), []

    async def receive():
        return {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    headers = [(b"content-type", b"application/json"), (b"host", b"localhost")]
    scope = {"type": "http", "method": "POST", "path": "/predict", "headers": headers, "query_string": b""}
    asyncio.run(app(scope, receive, send))
    assert not sent
    assert 'umemma_requests_total{status="499"} 1.0' in app.state.server.metrics.text().decode()
    app.state.server.batcher.close()


def test_health_says_whether_the_model_answers(model):
    app = make_app(model, LIMITS)
    with TestClient(app, base_url="http://localhost") as client:
        assert client.get("/health").status_code == 200
        app.state.server.batcher.close()
        assert client.get("/health").status_code == 503
        app.state.server.batcher.close = lambda: None


def test_the_model_says_what_it_takes(client, model):
    said = client.get("/model").json()
    fields = {field["name"]: field["levels"] for of_input in said["inputs"] for field in of_input["fields"]}
    assert set(fields) == {"photo", "clip", "title", "price", "colour"}
    assert set(fields["colour"]) == {"red", "green", "blue"}
    assert said["quality"] == model.quality
    assert client.get("/health").json() == {"status": "ok"}
    metrics = client.get("/metrics").text
    assert 'umemma_requests_total{status="200"}' in metrics and 'umemma_rows_total{pattern="title"}' in metrics


def bomb(side=400):
    """A picture whose header says more pixels than a server takes, in a few bytes."""
    buffer = io.BytesIO()
    Image.new("L", (side, side)).save(buffer, "PNG")
    return buffer.getvalue()


PATHS = [
    "/etc/passwd",
    "../../etc/passwd",
    "file:///etc/passwd",
    "http://localhost/x.png",
    "page.html",
    "~/.ssh/id_rsa",
]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("field", ["photo", "clip"])
def test_no_path_is_ever_read(client, field, path):
    """Not as it is, nor in base64, nor as the content of a file, nor in a form that Python takes."""
    assert "is no base64" in refused(client.post("/predict", json={field: path}), 422)
    encoded = base64.b64encode(path.encode()).decode()
    values = (encoded, f"data:image/png;base64,{encoded}", {"bytes": None, "path": path}, [path])
    answers = [client.post("/predict", json={field: value}) for value in values]
    answers += [client.post("/predict", files={field: (name, path.encode())}) for name in ("x", None)]
    for answer in answers:
        assert "exist" not in refused(answer, 422)


@pytest.mark.parametrize("playlist", ["#EXTM3U\n#EXTINF:1,\n{0}\n#EXT-X-ENDLIST\n", "ffconcat version 1.0\nfile {0}\n"])
def test_a_playlist_leads_nowhere(client, tmp_path, playlist):
    (tmp_path / "secret.wav").write_bytes(wav())
    for address in (tmp_path / "secret.wav", f"file://{tmp_path}/secret.wav"):
        refused(client.post("/predict", files={"clip": playlist.format(address).encode()}), 422)


@pytest.mark.parametrize(
    ("content", "status", "reason"),
    [
        (b"", 400, "no JSON"),
        (b"{", 400, "no JSON"),
        (b"[1]", 400, "give an object"),
        (b"\xff\xfe", 400, "no JSON"),
        (b'{"price": NaN}', 400, "NaN is no number in JSON"),
        (b"[" * 100_000, 400, "no JSON"),
        (b'{"rows": []}', 400, "'rows' is no list of objects"),
        (b'{"rows": [1]}', 400, "'rows' is no list of objects"),
        (b'{"rows": [{}], "title": "x"}', 400, "fields beside 'rows'"),
        (json.dumps({"rows": [{}] * 4}).encode(), 413, "4 rows, more than 3"),
        (b'{"titel": "x"}', 422, "no field 'titel' (is 'title' meant?)"),
        (b'{"title": {"a": 1}}', 422, "'title': is dict"),
        (b'{"price": "tall"}', 422, "'tall' in column 'price' is no finite number"),
        (b'{"price": 1e999}', 422, "is no finite number"),
        (b'{"price": 1' + b"0" * 400 + b"}", 422, "is too large a number"),
        (b'{"price": [1, 2]}', 422, "price"),
        (b'{"title": "' + b"x" * 1001 + b'"}', 422, "1001 characters, more than 1000"),
        (b'{"photo": 5}', 422, "'photo': is int: give a file in base64"),
        (b'{"photo": "QUJD"}', 422, "UnidentifiedImageError"),
        (b'{"floor": "high", "title": "x"}', 422, "floor='high': is no number"),
    ],
)
def test_what_is_no_row_is_refused_in_one_line(client, content, status, reason):
    response = client.post("/predict", content=content, headers={"content-type": "application/json"})
    assert reason in refused(response, status)


def test_what_is_too_large_is_refused_before_it_is_decoded(client):
    assert "400x400 pixels, more than 0.1 million" in refused(client.post("/predict", files={"photo": bomb()}), 422)
    assert "3 s of sound or video, more than 2" in refused(client.post("/predict", files={"clip": wav(0, 3.0)}), 422)
    large = b'{"title": "' + b"x" * 600_000 + b'"}'
    headers = {"content-type": "application/json"}
    assert "larger than 0.5 MB" in refused(client.post("/predict", content=large, headers=headers), 413)
    parts = (large[start : start + 1000] for start in range(0, len(large), 1000))  # without a content-length
    assert "larger than 0.5 MB" in refused(client.post("/predict", content=parts, headers=headers), 413)
    headers |= {"content-encoding": "gzip"}
    assert "compressed" in refused(client.post("/predict", content=zlib.compress(b"x" * 10**6), headers=headers), 415)


@pytest.mark.parametrize("data", [b"", b"\0" * 50, png()[:60], wav()[:30], np.random.default_rng(0).bytes(500)])
@pytest.mark.parametrize("field", ["photo", "clip"])
def test_a_damaged_file_is_refused_or_missing(client, field, data):
    response = client.post("/predict", files={field: ("x", data)})
    assert response.status_code == (200 if data == b"" else 422), response.text


def test_without_pyav_sound_names_the_extra_and_all_else_is_answered(client, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    reason = refused(client.post("/predict", files={"clip": ("x.wav", wav())}), 422)
    assert reason.endswith("needs av, which is not installed: pip install 'umemma_jax[clips]'")
    answer = client.post("/predict", files={"photo": ("x.png", png())}, data={"title": "red"}).json()
    assert answer["used"] == ["photo", "title"]


@pytest.mark.parametrize(
    ("headers", "content", "status"),
    [
        ({"content-type": "text/plain"}, b"title=x", 415),
        ({}, b"title=x", 415),
        ({"content-type": "multipart/form-data"}, b"no boundary", 400),
        ({"content-type": "multipart/form-data; boundary=x"}, b"--x\r\nnonsense", 400),
        ({"content-type": "application/json", "origin": "http://elsewhere.example"}, b"{}", 403),
        ({"content-type": "application/json", "origin": "null"}, b"{}", 403),
        ({"content-type": "application/json", "origin": "http://["}, b"{}", 403),
        ({"content-type": "application/json", "content-length": "9" * 5000}, b"{}", 400),
        ({"content-type": "application/json", "content-length": "-1"}, b"{}", 400),
    ],
)
def test_what_is_no_request_is_refused(client, headers, content, status):
    refused(client.post("/predict", content=content, headers=headers), status)


def test_many_parts_of_a_form_are_refused(client):
    parts = "".join(f'--x\r\nContent-Disposition: form-data; name="title"\r\n\r\n{n}\r\n' for n in range(1100))
    headers = {"content-type": "multipart/form-data; boundary=x"}
    assert "Too many fields" in refused(client.post("/predict", content=parts + "--x--\r\n", headers=headers), 400)


def test_other_names_of_the_server_are_refused_where_it_is_local(model):
    with TestClient(make_app(model, LIMITS, hosts=("localhost", "127.0.0.1", "::1")), base_url="http://x.example") as c:
        assert "not called 'x.example'" in refused(c.get("/model"), 421)
        for host in ("localhost:8000", "127.0.0.1", "[::1]:8000"):
            assert c.get("/health", headers={"host": host}).status_code == 200


def test_a_full_queue_answers_503(model):
    app = make_app(model, Limits(queue=1), Batching(rows=1))
    with TestClient(app, base_url="http://localhost") as client:
        app.state.server._at_work = 1
        response = client.post("/predict", json={"title": "x"})
        assert "too many requests wait" in refused(response, 503)
        assert response.headers["retry-after"] == "1"
        app.state.server._at_work = 0
        assert client.post("/predict", json={"title": "x"}).status_code == 200


def test_what_takes_too_long_is_ended(model, monkeypatch):
    app = make_app(model, Limits(seconds=0.2))
    with TestClient(app, base_url="http://localhost") as client:
        batcher = app.state.server.batcher
        monkeypatch.setattr(batcher, "_run", lambda examples: __import__("time").sleep(1))
        assert "took longer than 0.2 s" in refused(client.post("/predict", json={"title": "x"}), 408)


def test_the_page_fetches_nothing_from_elsewhere(client):
    for path in ("/", "/page.css", "/page.js"):
        response = client.get(path)
        assert response.status_code == 200
        assert "default-src 'self'" in response.headers["content-security-policy"]
        assert "http://" not in response.text and "https://" not in response.text
