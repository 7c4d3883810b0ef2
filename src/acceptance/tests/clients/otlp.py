# Sends one of each kind of OpenTelemetry metric to the URL given, twice, as an instrumented program does, and then a
# summary, for which the SDK has no instrument. The values are those that the test reads back.
import sys
import time
import urllib.request

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.sdk.metrics import AlwaysOnExemplarFilter, MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import (
    ExplicitBucketHistogramAggregation,
    ExponentialBucketHistogramAggregation,
    View,
)
from opentelemetry.sdk.resources import Resource

url = sys.argv[1]
resource = Resource(
    {
        "service.namespace": "shop",
        "service.name": "api",
        "service.instance.id": "i-1",
        "service.version": "1.2.3",
        "host.name": "h1",
    }
)
exporter = OTLPMetricExporter(endpoint=url, compression=Compression.Gzip)
# Exports when it is told to.
reader = PeriodicExportingMetricReader(exporter, export_interval_millis=3_600_000)
provider = MeterProvider(
    # What is sent at the end would be a third time.
    shutdown_on_exit=False,
    resource=resource,
    metric_readers=[reader],
    exemplar_filter=AlwaysOnExemplarFilter(),
    views=[
        View(instrument_name="http.server.duration", aggregation=ExplicitBucketHistogramAggregation([0.1, 1, 10])),
        View(instrument_name="payload.size", aggregation=ExponentialBucketHistogramAggregation(max_size=160, max_scale=3)),
    ],
)
meter = provider.get_meter("test", "1.0")
requests = meter.create_counter("http.server.requests", "{request}", "Requests.")
depth = meter.create_up_down_counter("queue.depth", "", "Waiting.")
temperature = meter.create_gauge("room.temperature", "Cel", "Inside.")
duration = meter.create_histogram("http.server.duration", "s", "Durations.")
size = meter.create_histogram("payload.size", "By", "Sizes.")

span = trace.SpanContext(0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331, False)
with trace.use_span(trace.NonRecordingSpan(span)):
    requests.add(3, {"http.route": "/a"})
    duration.record(0.5, {"http.route": "/a"})
requests.add(4, {"http.route": "/b"})
depth.add(5)
depth.add(-2)
temperature.set(21.5)
duration.record(20, {"http.route": "/a"})
for value in (1, 2, 4, 4, 0):
    size.record(value)
# So that counting began before it is told, in milliseconds.
time.sleep(0.05)
assert provider.force_flush()
time.sleep(0.05)
requests.add(10, {"http.route": "/a"})
temperature.set(-3.5)
duration.record(0.05, {"http.route": "/a"})
size.record(1024)
assert provider.force_flush()

request = ExportMetricsServiceRequest()
metrics = request.resource_metrics.add()
for key, value in (("service.namespace", "shop"), ("service.name", "api"), ("service.instance.id", "i-1")):
    metrics.resource.attributes.add(key=key).value.string_value = value
metric = metrics.scope_metrics.add().metrics.add(name="rpc.latency", unit="s", description="Latencies.")
point = metric.summary.data_points.add(time_unix_nano=time.time_ns(), count=7, sum=3.5)
for quantile, value in ((0.5, 0.25), (0.99, 1.75)):
    point.quantile_values.add(quantile=quantile, value=value)
sent = urllib.request.Request(
    url, request.SerializeToString(), {"Content-Type": "application/x-protobuf"}, method="POST"
)
with urllib.request.urlopen(sent) as answer:
    assert answer.status == 200, answer.status
print("all sent")
