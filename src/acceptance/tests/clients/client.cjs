// Asks a server everything that Prometheus's own client can ask, and holds each answer to the form that the client declares.
// Arguments: the server's URL, and the time of its newest data in seconds.
'use strict';
const assert = require('node:assert/strict');
const path = require('node:path');
const folder = path.join(process.cwd(), 'node_modules', '@prometheus-io', 'codemirror-promql', 'dist', 'cjs');
const { HTTPPrometheusClient, CachedPrometheusClient } = require(path.join(folder, 'client', 'prometheus.js'));
const [url, now] = [process.argv[2], Number(process.argv[3])];

const text = (value) => assert.equal(typeof value, 'string');
const texts = (list) => {
  assert.ok(Array.isArray(list) && list.length > 0, JSON.stringify(list));
  list.forEach(text);
  assert.deepEqual(list, [...list].sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b))));
};

async function everything(httpMethod) {
  const faults = [];
  const httpErrorHandler = (error) => faults.push(error);
  const client = new HTTPPrometheusClient({ url, httpMethod, httpErrorHandler, lookbackInterval: 3 * 3600 * 1000 });
  const names = await client.metricNames();
  texts(names);
  const metric = names[0];
  const labels = await client.labelNames();
  texts(labels);
  assert.ok(labels.includes('__name__'));
  const own = await client.labelNames(metric);
  texts(own);
  const label = own.find((name) => name !== '__name__');
  const values = await client.labelValues(label, metric);
  texts(values);
  const series = await client.series(metric);
  assert.ok(series.length > 0);
  for (const set of series) {
    assert.equal(set.__name__, metric);
    Object.values(set).forEach(text);
  }
  const { Matcher } = require(path.join(folder, 'types', 'matcher.js'));
  const { EqlSingle } = require('@prometheus-io/lezer-promql');
  const one = await client.series(metric, [new Matcher(EqlSingle, label, values[0])], '');
  assert.ok(one.length > 0 && one.every((set) => set[label] === values[0]), JSON.stringify(one));
  assert.deepEqual(await client.labelValues('no_such_label'), []);
  const metadata = await client.metricMetadata();
  for (const [name, all] of Object.entries(metadata)) {
    text(name);
    for (const { type, help } of all) [type, help].forEach(text);
  }
  const flags = await client.flags();
  assert.ok(Object.keys(flags).length > 0);
  Object.values(flags).forEach(text);
  assert.deepEqual(faults, []);

  // What is wrong reaches the client's handler with the server's words.
  const lost = await client.fetchAPI('/api/v1/query?query=up%7B').catch((error) => error);
  assert.match(lost.message, /parse error/);
  client.destroy();

  const cached = new CachedPrometheusClient(new HTTPPrometheusClient({ url, httpMethod, httpErrorHandler }), { maxAge: 1000 });
  assert.deepEqual(await cached.metricNames(), names);
  assert.deepEqual(await cached.flags(), flags);
  await cached.series(metric);
  assert.ok((await cached.labelValues(label, metric)).length > 0);
  cached.destroy();
  assert.deepEqual(faults, []);

  return { client: new HTTPPrometheusClient({ url, httpMethod, httpErrorHandler }), metric };
}

// The calls of Prometheus's pages, by the same client's way of reading answers.
async function pages({ client, metric }) {
  const ask = (name, params) => client.fetchAPI(`/api/v1/${name}?${new URLSearchParams(params)}`);
  const number = (value) => assert.ok(typeof value === 'string' && value !== '', JSON.stringify(value));
  const instant = await ask('query', { query: metric, time: now, stats: 'true' });
  assert.equal(instant.resultType, 'vector');
  assert.ok(instant.result.length > 0);
  for (const { metric: labels, value } of instant.result) {
    assert.equal(labels.__name__, metric);
    assert.equal(value[0], now);
    number(value[1]);
  }
  assert.equal(typeof instant.stats.timings.evalTotalTime, 'number');
  const range = await ask('query_range', { query: metric, start: now - 3000, end: now, step: 60 });
  assert.equal(range.resultType, 'matrix');
  assert.ok(range.result.length > 0);
  range.result.forEach(({ values }) => values.forEach(([time, value]) => (assert.equal(typeof time, 'number'), number(value))));
  assert.equal((await ask('query', { query: '1' })).resultType, 'scalar');
  assert.equal((await ask('query', { query: '"a"' })).resultType, 'string');
  text(await ask('format_query', { query: 'sum by(job)(up)' }));
  assert.equal((await ask('parse_query', { query: 'sum by(job)(up)' })).type, 'aggregation');
  assert.ok(Array.isArray((await ask('rules', {})).groups));
  assert.ok(Array.isArray((await ask('alerts', {})).alerts));
  assert.ok(Array.isArray((await ask('targets', { state: 'active' })).activeTargets));
  assert.ok(Array.isArray((await ask('scrape_pools', {})).scrapePools));
  assert.ok(Array.isArray((await ask('alertmanagers', {})).activeAlertmanagers));
  assert.ok(Array.isArray(await ask('query_exemplars', { query: metric, start: now - 3000, end: now })));
  assert.ok(Array.isArray(await ask('notifications', {})));
  const build = await ask('status/buildinfo', {});
  assert.match(build.version, /^\d+\.\d+\.\d+/);
  assert.ok(!Number.isNaN(Date.parse((await ask('status/runtimeinfo', {})).startTime)));
  text((await ask('status/config', {})).yaml);
  assert.equal(typeof (await ask('status/walreplay', {})).current, 'number');
  const head = await ask('status/tsdb', {});
  assert.ok(head.headStats.numSeries > 0);
  head.seriesCountByMetricName.forEach(({ name, value }) => (text(name), assert.equal(typeof value, 'number')));
}

(async () => {
  for (const method of ['GET', 'POST']) await pages(await everything(method));
  console.log('all decoded');
  // The cache's timers would hold the process for minutes.
  process.exit(0);
})().catch((error) => {
  console.error(error);
  process.exit(1);
});
