//! The HTTP doors for writes: three paths for remote write 1.0 and 2.0, all alike, and two for OTLP.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use futures::FutureExt;
use futures::future::BoxFuture;
use http::{HeaderName, HeaderValue, StatusCode, header};
use identity::{Identities, Met};
use model::{Labels, MetricMetadata, TenantId, Timestamp};
use runtime::{Pool, Turns, World};
use secure::Credentials;
use storage::{Known, Refusal, RowSource, SeriesHandle, Verdict, WriteBatch};
use tsdb::Health;
use wire::remote_write::{Packed, Packing, Sent};

use crate::admit::{self, Admission, Version};
use crate::decode::{self, Carry, Decoded, Reading, Recognise, Ways};
use crate::divide;
use crate::ha::{self, Coming, Ha, Heard, Opened, Play, Plays};
use crate::limits::{Limits, Profile};
use crate::memory::Memory;
use crate::metadata::MetadataDoor;
use crate::origin::Origin;
use crate::otlp;
use crate::rate::{Of, Rates};
use crate::resolve::LabelsOf;
use crate::settings::{Settings, Tenancy};
use crate::status::{self, Denial, Reply, Summary};
use crate::tally::{add_verdicts, set_aside, sum_up};
use crate::write::{Plan, Writer};

/// Paths at which remote write is served.
pub const WRITE_PATHS: [&str; 3] = ["/api/v1/receive", "/api/v1/write", "/api/v1/push"];
/// Paths at which OTLP is served: Thanos's and Prometheus's.
pub const OTLP_PATHS: [&str; 2] = ["/api/v1/otlp", "/api/v1/otlp/v1/metrics"];

/// Bytes of a request, decompressed, that are decoded and appended on the thread that read them: two thousand samples, the most
/// that Prometheus puts into one unless it is told otherwise.
const AT_ONCE: u64 = 512 << 10;

/// What a door needs.
pub struct WriteDoor {
    pub writer: Arc<Writer>,
    pub admission: Admission,
    pub rates: Arc<Rates>,
    pub byte_rates: Rates,
    /// Tenants take turns on the pool.
    pub turns: Turns,
    pub limits: Arc<Limits>,
    pub memory: Arc<Memory>,
    pub identities: Arc<Identities>,
    pub metadata: Arc<MetadataDoor>,
    pub pool: Pool,
    pub world: World,
    pub tenancy: Tenancy,
    /// Who may write, where not everybody may.
    pub credentials: Option<Credentials>,
    pub replica_header: String,
    pub replication_factor: u32,
    pub otlp: Arc<wire::otlp::Settings>,
    pub rules: Arc<relabel::Rules>,
    pub ha: Arc<Ha>,
}

impl WriteDoor {
    pub fn new(
        settings: &Settings,
        world: &World,
        writer: Arc<Writer>,
        metadata: Arc<MetadataDoor>,
        admission: Admission,
        (pool, turns): (Pool, Turns),
        limits: &Arc<Limits>,
        rules: relabel::Rules,
        credentials: Option<Credentials>,
        ha: Arc<Ha>,
    ) -> WriteDoor {
        WriteDoor {
            ha,
            rules: Arc::new(rules),
            writer,
            metadata,
            admission,
            identities: Arc::new(Identities::new(identity::Settings::default(), &*world.chance)),
            rates: Arc::new(Rates::new(Of::Samples)),
            byte_rates: Rates::new(Of::Bytes),
            turns,
            limits: Arc::clone(limits),
            memory: Arc::new(Memory::new(settings.admission.memory_limit.bytes())),
            pool,
            world: world.clone(),
            tenancy: settings.tenancy.clone(),
            credentials,
            replica_header: settings.replication.replica_header.clone(),
            replication_factor: settings.replication.replication_factor,
            otlp: Arc::new(settings.otlp.translation()),
        }
    }
}

/// The routes of a door.
pub fn router(door: Arc<WriteDoor>) -> Router {
    let mut routes = Router::new();
    for path in WRITE_PATHS {
        routes = routes.route(path, post(write));
    }
    for path in OTLP_PATHS {
        routes = routes.route(path, post(otlp));
    }
    routes.with_state(door)
}

async fn write(State(door): State<Arc<WriteDoor>>, request: Request) -> Response {
    let (version, packing) = match admit::check_head(request.headers()) {
        Ok(head) => head,
        Err(denial) => return answer(status::of_denial(&denial)),
    };
    let (reply, summary) = match door.take(request, version, packing).await {
        Ok(summary) => (status::of_summary(&summary), summary),
        Err(denial) => (status::of_denial(&denial), Summary::default()),
    };
    let written = written(version, &reply, &summary);
    let mut response = answer(reply);
    for (name, count) in written.into_iter().flatten() {
        response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from(count));
    }
    response
}

/// What a sender of 2.0 is told was written, refusals included; without these it takes the receiver for one of 1.0.
/// After a 5xx it sends everything again, so that nothing counts as written yet.
fn written(version: Version, reply: &Reply, summary: &Summary) -> Option<[(&'static str, u64); 3]> {
    let told = |count: u64| if reply.status < 500 { count } else { 0 };
    (version == Version::V2).then_some([
        ("x-prometheus-remote-write-samples-written", told(summary.accepted - summary.histograms)),
        ("x-prometheus-remote-write-histograms-written", told(summary.histograms)),
        ("x-prometheus-remote-write-exemplars-written", told(summary.exemplars)),
    ])
}

async fn otlp(State(door): State<Arc<WriteDoor>>, request: Request) -> Response {
    let form = match otlp::check_head(request.headers()) {
        Ok(form) => form,
        Err(denial) => return answer(status::of_denial(&denial)),
    };
    let mut reply = match door.take(request, Version::Otlp(form), Packing::Snappy).await {
        Ok(summary) => status::of_summary(&summary),
        Err(denial) => status::of_denial(&denial),
    };
    // Exporters know no other success.
    if reply.status == 204 {
        reply.status = 200;
    }
    answer(reply)
}

fn answer(reply: Reply) -> Response {
    let status = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = match reply.body.is_empty() {
        true => status.into_response(),
        false => (status, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], reply.body).into_response(),
    };
    if reply.status == 401 {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if let Some(seconds) = reply.retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// A request on its way, after what could be done at once.
struct Stage {
    summary: Summary,
    samples: usize,
    series: usize,
    /// What is said of metrics and was not passed on yet.
    news: Vec<MetricMetadata>,
    next: Next,
}

enum Next {
    Nothing,
    /// Appended here; the answer waits for the log.
    Durable(u64),
    Replicate(Plan, Arc<WriteBatch>),
}

impl WriteDoor {
    async fn take(&self, request: Request, version: Version, packing: Packing) -> Result<Summary, Denial> {
        let judged_at = self.world.clock.now_ms();
        let started = self.world.clock.monotonic();
        let (head, body) = request.into_parts();
        let tenant = match &self.credentials {
            None => admit::tenant_of(&head, &self.tenancy)?,
            Some(credentials) => {
                let named = admit::tenant_by(credentials, &head, &self.tenancy).await;
                if matches!(named, Err(Denial::Unauthorized(_))) {
                    metrics::counter!("tributary_receive_unauthorized_requests_total").increment(1);
                }
                named?
            }
        };
        let replica = admit::replica_of(&head.headers, &self.replica_header)?;
        if replica > self.replication_factor {
            return Err(Denial::Invalid(format!(
                "header {}: copy {replica} is more than the replication factor {}",
                self.replica_header, self.replication_factor
            )));
        }
        self.memory.check()?;
        let _place = self.limits.enter(&tenant, self.writer.timeout()).await?;
        let profile = self.limits.of(&tenant);
        let pay = |bytes| self.byte_rates.take(&tenant, profile.bytes_per_second, bytes, started);
        let admitted = self.admission.read(&tenant, &head.headers, body, version, packing, pay).await?;
        self.limits.check_size(&tenant, &profile, admitted.plain.max(admitted.body.len() as u64))?;
        let (here, plain) = (self.writer.stores_here(replica), admitted.plain);
        let coming = if replica > 0 { Coming::Copied } else { Coming::Sent };
        let mut parts = match (version, self.tenancy.split_label.as_str()) {
            (Version::Otlp(_), _) | (_, "") => Vec::new(),
            _ if replica > 0 => Vec::new(),
            (_, label) => self.divide(&tenant, version, packing, &admitted.body, label).await?,
        };
        let summary = match parts.len() {
            0 => {
                let body = (admitted.body, plain);
                self.store(&tenant, profile, version, packing, body, here, judged_at, coming).await?
            }
            1 => {
                let (tenant, body) = parts.remove(0);
                let (profile, body) = (self.limits.of(&tenant), (body, plain));
                self.store(&tenant, profile, version, Packing::Snappy, body, here, judged_at, coming).await?
            }
            _ => {
                let all = parts.into_iter().map(|(tenant, body)| async move {
                    let (profile, body) = (self.limits.of(&tenant), (body, plain));
                    self.store(&tenant, profile, version, Packing::Snappy, body, here, judged_at, coming)
                        .await
                });
                divide::together(futures::future::join_all(all).await)?
            }
        };
        drop((admitted.permit, admitted.share));
        if summary.accepted > summary.deduplicated {
            // Whoever asks from here on sees the samples: they are in a head and in its log.
            let took = self.world.clock.monotonic().saturating_duration_since(started);
            metrics::histogram!("tributary_receive_write_to_visible_seconds").record(took.as_secs_f64());
        }
        Ok(summary)
    }

    /// A request as one for each tenant that its series name.
    async fn divide(
        &self,
        tenant: &TenantId,
        version: Version,
        packing: Packing,
        body: &[u8],
        label: &str,
    ) -> Result<Vec<(TenantId, Vec<u8>)>, Denial> {
        let (limits, default, label) = (*self.admission.limits(), tenant.clone(), label.to_owned());
        let body = body.to_vec();
        let _turn = self.turns.take(tenant.as_str()).await;
        let divided = self.pool.run(move || {
            let body = Packed { packing, bytes: &body };
            divide::divide(body, version, &limits, &label, &default)
        });
        divided.await.map_err(|error| Denial::Busy(error.to_string()))?
    }

    /// Stores what is one tenant's, here or where the ring says.
    async fn store(
        &self,
        tenant: &TenantId,
        profile: Profile,
        version: Version,
        packing: Packing,
        body: (Vec<u8>, u64),
        here: bool,
        judged_at: Timestamp,
        coming: Coming,
    ) -> Result<Summary, Denial> {
        let stage =
            self.stage(tenant.clone(), profile, version, packing, body, here, judged_at, coming).await?;
        let mut summary = stage.summary;
        match &stage.next {
            // What says nothing else is answered when it is kept here.
            Next::Nothing => self.metadata.pass_on(tenant, stage.news, here).await,
            Next::Durable(_) | Next::Replicate(..) => {
                self.metadata.pass_on_behind(tenant, stage.news, here);
            }
        }
        match stage.next {
            Next::Nothing => {}
            Next::Durable(position) => {
                if let Err(trouble) = self.writer.local().durable(position, self.writer.timeout()).await {
                    summary = unstored(stage.samples, trouble);
                }
            }
            Next::Replicate(plan, batch) => {
                let collected = self.writer.send_apart(plan, tenant, Arc::clone(&batch), judged_at).await;
                sum_up(&mut summary, &batch, collected, version);
            }
        }
        self.count(tenant, &summary, stage.samples, stage.series);
        Ok(summary)
    }

    /// Whether a request of so many bytes is staged on the thread that read it. What takes a fraction of a millisecond and
    /// waits for nothing costs less than handing it to another thread and being woken by that.
    fn at_once(&self, version: Version, plain: u64, here: bool) -> bool {
        let quick = matches!(version, Version::V1 | Version::V2) && self.rules.is_empty();
        quick && plain <= AT_ONCE && (!here || self.writer.local().has_room(plain))
    }

    /// What can be done without waiting: decoding, then appending here or placing. On a thread that may compute, unless
    /// it is little: `plain` is what the request, of which this may be a part, has in bytes.
    async fn stage(
        &self,
        tenant: TenantId,
        profile: Profile,
        version: Version,
        packing: Packing,
        (mut body, plain): (Vec<u8>, u64),
        here: bool,
        judged_at: Timestamp,
        coming: Coming,
    ) -> Result<Stage, Denial> {
        let (writer, limits) = (Arc::clone(&self.writer), *self.admission.limits());
        let (rates, now) = (Arc::clone(&self.rates), self.world.clock.monotonic());
        let metadata = Arc::clone(&self.metadata);
        let (identities, translation) = (Arc::clone(&self.identities), Arc::clone(&self.otlp));
        let rules = Arc::clone(&self.rules);
        let tenant_limits = Arc::clone(&self.limits);
        let ha = Arc::clone(&self.ha);
        let _turn = self.turns.take(tenant.as_str()).await;
        let at_once = self.at_once(version, plain, here);
        let mut work = move || {
            let of_pairs = if coming == Coming::Copied { None } else { ha.labels(&profile.pairs) };
            let mut space = tenant.as_str().to_owned();
            let (mut opened, mut strip, mut spliced) = (None, None, false);
            if let Some(labels) = of_pairs {
                let unpacked =
                    Opened::open(version, Packed { packing, bytes: &body }, &limits, &translation)?;
                if let Some(sent) = unpacked.look(labels) {
                    let heard = match coming {
                        Coming::Played => Heard::Listen { spliced: true },
                        _ => ha.hear(&tenant, &profile, &sent, (version, packing), &mut body, judged_at)?,
                    };
                    match heard {
                        Heard::Untracked => {}
                        Heard::Listen { spliced: overlaps } => {
                            ha::space(&tenant, &sent, &mut space);
                            (strip, spliced) = (Some(labels.replica), overlaps);
                        }
                        Heard::Held => {
                            let stage = deduplicated(&sent);
                            unpacked.close();
                            return Ok(stage);
                        }
                    }
                } else {
                    ha::count_untold(&tenant);
                }
                opened = Some(unpacked);
            }
            let space = space.as_str();
            let reading = Reading { limits: &limits, strip, rules: &rules };
            let then = |decoded: &mut Decoded, plain: &[u8]| {
                let Decoded { batch, aside, met, regions, by_symbols, ways, said, origin: keeper } = decoded;
                batch.splice(spliced);
                count_ways(*ways);
                // Exemplars come with samples, and are not counted against limits.
                let (samples, series) = (batch.first_exemplar(), batch.series().len());
                tenant_limits.check(&tenant, &profile, series as u64, samples as u64)?;
                rates.take(&tenant, profile.samples_per_second, samples as u64, now)?;
                let news = metadata.news(&tenant, said, plain, judged_at);
                let mut summary = Summary::default();
                set_aside(&mut summary, std::mem::take(aside));
                let next = if batch.is_empty() {
                    Next::Nothing
                } else if here {
                    let labels_of = LabelsOf::new(plain, regions, *by_symbols, reading);
                    let mut learned = Vec::new();
                    let labels = |row: u32, out: &mut Vec<u8>| labels_of.write(row, out);
                    // Where nobody is recognised, nobody wants to know handles.
                    let known = (!met.is_empty()).then_some(Known { labels: &labels, learned: &mut learned });
                    let judge = |verdicts: &[Verdict]| {
                        add_verdicts(&mut summary, batch, verdicts, version, |row| {
                            let mut labels = Vec::new();
                            labels_of.write(row, &mut labels);
                            Labels::from_bytes(&labels)
                        })
                    };
                    match writer.local().append(&tenant, batch, judged_at, known, judge) {
                        Ok((position, ())) => {
                            learn(&identities, space, met, &learned, false, judged_at);
                            if summary.retryable > 0 {
                                summary.trouble = log_trouble(&writer);
                            }
                            Next::Durable(position)
                        }
                        Err(trouble) => {
                            summary = unstored(samples, trouble);
                            Next::Nothing
                        }
                    }
                } else {
                    learn(&identities, space, met, &[], true, judged_at);
                    let plan = writer.plan(&tenant, batch)?;
                    if !met.is_empty() {
                        let origin = Origin::new(space, strip, limits, &rules, &identities, judged_at);
                        batch.attach(Arc::clone(&origin) as Arc<dyn RowSource>);
                        *keeper = Some(origin);
                    }
                    Next::Replicate(plan, Arc::new(std::mem::take(batch)))
                };
                Ok(Stage { summary, samples, series, news, next })
            };
            let place = writer.place(&tenant);
            let stored_here = |hash| place.stores_here(hash);
            let labels = if here { Carry::Unnamed } else { Carry::UnnamedHere(&stored_here) };
            let recognise = Some(Recognise { identities: &identities, space, now: judged_at, labels });
            if let Some(mut opened) = opened {
                let (aside, len) = (opened.aside.take(), opened.len);
                let staged = match version {
                    Version::V1 => {
                        decode::owned_v1(&tenant, &mut opened.space, len, reading, recognise, then)
                    }
                    Version::V2 | Version::Otlp(_) => {
                        let then = |decoded: &mut Decoded, plain: &[u8]| {
                            aside.into_iter().for_each(|aside| otlp::put_aside(aside, decoded));
                            then(decoded, plain)
                        };
                        decode::plain_v2(&tenant, &mut opened.space, len, reading, recognise, then)
                    }
                };
                opened.close();
                return staged?;
            }
            let packed = Packed { packing, bytes: &body };
            match version {
                Version::V1 => decode::decode_v1(&tenant, packed, reading, recognise, then),
                Version::V2 => decode::decode_v2(&tenant, packed, reading, recognise, then),
                Version::Otlp(form) => {
                    otlp::decode(&tenant, &body, form, reading, &translation, recognise, then)
                }
            }?
        };
        match at_once {
            true => work(),
            false => self.pool.run(work).await.map_err(|error| Denial::Busy(error.to_string()))?,
        }
    }

    fn count(&self, tenant: &TenantId, summary: &Summary, samples: usize, series: usize) {
        let code = status::of_summary(summary).status.to_string();
        let labels = [("code", code), ("tenant", tenant.to_string())];
        metrics::histogram!("thanos_receive_write_samples", &labels[..]).record(samples as f64);
        metrics::histogram!("thanos_receive_write_timeseries", &labels[..]).record(series as f64);
        let refused = |reason| Refusal::ALL.iter().zip(summary.refused).any(|(r, n)| *r == reason && n > 0);
        if refused(Refusal::SeriesLimit) {
            metrics::counter!("thanos_receive_head_series_limited_requests_total", "tenant" => tenant.to_string())
                .increment(1);
        }
        let count = |outcome: &'static str, samples: u64| {
            if samples > 0 {
                metrics::counter!("tributary_receive_samples_total", "outcome" => outcome).increment(samples);
            }
        };
        count("accepted", summary.accepted - summary.deduplicated);
        count("deduplicated", summary.deduplicated);
        count("retryable", summary.retryable);
        for (reason, samples) in Refusal::ALL.iter().zip(summary.refused) {
            count(reason.reason(), samples);
        }
    }
}

impl Plays for WriteDoor {
    fn store<'a>(&'a self, play: &'a Play) -> BoxFuture<'a, bool> {
        let Play { tenant, held, .. } = play;
        let (profile, here) = (self.limits.of(tenant), self.writer.stores_here(0));
        let (version, packing) = held.body.form;
        let stored = async move {
            let body = held.body.body.clone();
            let Ok(_permit) = self.admission.hold(3 * body.len() as u64).await else { return false };
            let judged_at = held.body.judged_at;
            match self
                .store(tenant, profile, version, packing, (body, u64::MAX), here, judged_at, Coming::Played)
                .await
            {
                Ok(summary) => summary.retryable == 0,
                Err(Denial::Busy(_) | Denial::RateLimited(..)) => false,
                Err(denial) => {
                    tracing::warn!(%tenant, ?denial, "what was held of an HA pair is not stored");
                    true
                }
            }
        };
        stored.boxed()
    }
}

/// The answer to a request that is held.
fn deduplicated(sent: &Sent<'_>) -> Stage {
    let samples = sent.samples + sent.histograms;
    let summary = Summary {
        accepted: samples,
        deduplicated: samples,
        histograms: sent.histograms,
        exemplars: sent.exemplars,
        ..Summary::default()
    };
    let (samples, series) = (samples as usize, sent.series as usize);
    Stage { summary, samples, series, news: Vec::new(), next: Next::Nothing }
}

/// Why the log takes no more, where a part of a batch found that out.
fn log_trouble(writer: &Writer) -> Option<String> {
    match writer.local().engine()?.health() {
        Health::Good => None,
        Health::ReadOnly(reason) | Health::Poisoned(reason) => Some(reason),
    }
}

/// Nothing of a request is known to be stored.
fn unstored(samples: usize, trouble: String) -> Summary {
    Summary { retryable: samples as u64, trouble: Some(trouble), ..Summary::default() }
}

/// Remembers series that were stored or can be.
pub fn learn(
    identities: &Identities,
    space: &str,
    met: &mut [Met],
    learned: &[(u32, SeriesHandle)],
    all: bool,
    now: Timestamp,
) {
    let turned_away = identities.learn(space, met, learned, all, now);
    if turned_away > 0 {
        metrics::counter!("tributary_identity_turned_away_total").increment(turned_away as u64);
    }
}

/// Counts series by the way in which they were recognised.
pub fn count_ways(ways: Ways) {
    for (way, series) in [("hint", ways.hint), ("probe", ways.probe), ("parse", ways.parse)] {
        if series > 0 {
            metrics::counter!("tributary_identity_recognised_total", "way" => way).increment(series);
        }
    }
}
