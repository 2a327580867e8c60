"""What Prometheus is told of a server."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Counts of one server."""

    def __init__(self, waiting: Callable[[], int]) -> None:
        """Takes what says how many requests wait."""
        self._registry = CollectorRegistry()
        given = {"registry": self._registry, "namespace": "umemma"}
        self.requests = Counter("requests", "Predictions asked for, by status of the answer", ["status"], **given)
        self.seconds = Histogram("request_seconds", "From request to answer", buckets=SECONDS, **given)
        self.rows = Counter("rows", "Rows answered, by what they had", ["pattern"], **given)
        self.batch_rows = Histogram("batch_rows", "Rows computed together", buckets=ROWS, **given)
        self.batch_seconds = Histogram("batch_seconds", "Computation of a batch", buckets=SECONDS, **given)
        Gauge("waiting_requests", "Requests in the queue", **given).set_function(waiting)

    def batch(self, rows: int, seconds: float) -> None:
        """A batch was computed."""
        self.batch_rows.observe(rows)
        self.batch_seconds.observe(seconds)

    def text(self) -> bytes:
        """All of it as Prometheus reads it."""
        return generate_latest(self._registry)
