//! Writes that come from peers: stored here where they say which copy they are, else placed like any other.

use std::sync::Arc;

use bytes::Bytes;
use futures::future::join_all;
use identity::Identities;
use model::{Kind, MetricMetadata, TenantId, Timestamp};
use rpc::{KnownTaken, KnownWrite, PlainWrite, TenantGroup, WriteBackend, WriteRequest};
use runtime::World;
use storage::{Error, Known, Verdict};

use wire::pb::tributary::v1::PairSighting;

use crate::admit::Admission;
use crate::decode::{self, Carry, Decoded, Reading, Recognise};
use crate::epochs::gate::{Closed, Pass};
use crate::ha::Ha;
use crate::http::{count_ways, learn};
use crate::local::Local;
use crate::metadata::MetadataDoor;
use crate::resolve::LabelsOf;
use crate::status::Denial;
use crate::write::Writer;

/// The gRPC door for writes.
pub struct PeerDoor {
    pub writer: Arc<Writer>,
    pub admission: Admission,
    pub world: World,
    pub metadata: Arc<MetadataDoor>,
    /// Series of those who send no frames.
    pub identities: Arc<Identities>,
    pub ha: Arc<Ha>,
}

#[tonic::async_trait]
impl WriteBackend for PeerDoor {
    async fn write(&self, request: WriteRequest) -> Result<Vec<Vec<Verdict>>, Error> {
        let here = self.writer.stores_here(request.replica);
        if here && self.writer.local().engine().is_none() {
            return Err(Error::new(
                Kind::Unavailable,
                "this receiver is starting: its log is being replayed",
            ));
        }
        // The door that took the request has judged its time; only Thanos's writes are judged here.
        let judged_at = request.judged_at.unwrap_or_else(|| self.world.clock.now_ms());
        // One pass for all of them: they are of one epoch.
        let pass = if here { Some(self.pass(request.ring_epoch)?) } else { None };
        let groups = request.groups.into_iter().map(|group| self.group(group, pass.clone(), judged_at));
        join_all(groups).await.into_iter().collect()
    }

    async fn write_plain(&self, write: &PlainWrite) -> Option<Result<Vec<Verdict>, Error>> {
        // What is placed anew goes the way of batches with labels, and so does what is told to come again.
        if !self.writer.stores_here(write.replica) || self.writer.local().engine().is_none() {
            return None;
        }
        let pass = match self.pass(0) {
            Ok(pass) => pass,
            Err(error) => return Some(Err(error)),
        };
        let judged_at = self.world.clock.now_ms();
        let groups = write.groups.iter().map(|(tenant, range)| {
            self.stretch(tenant.clone(), write.body.slice(range.clone()), judged_at, Arc::clone(&pass))
        });
        let answers: Result<Vec<_>, Error> = join_all(groups).await.into_iter().collect();
        Some(answers.map(|verdicts| verdicts.concat()))
    }

    async fn write_known(&self, write: KnownWrite) -> Result<KnownTaken, Error> {
        if !self.writer.stores_here(write.replica) {
            // Placed anew, for which every row needs its labels.
            return rpc::store_by_labels(self, write).await;
        }
        let pass = self.pass(write.ring_epoch)?;
        let bytes: usize = write.batch.series().iter().map(|series| write.batch.bytes_of(series)).sum();
        let _permit = self.admission.hold(bytes as u64).await.map_err(refuse)?;
        let written = self.writer.local().write_known(write, self.writer.timeout(), pass).await;
        written.map_err(|why| Error::new(Kind::Unavailable, why))
    }

    fn exchange_pairs(&self, told: Vec<PairSighting>) -> Vec<PairSighting> {
        self.ha.take_sightings(told);
        self.ha.sightings()
    }

    async fn write_metadata(&self, tenant: TenantId, said: Vec<MetricMetadata>) -> Result<(), Error> {
        // Who calls has placed it; a ring that has moved since is put right when it is said again.
        self.metadata.keep(&tenant, Arc::new(said)).await
    }
}

impl PeerDoor {
    /// Stores one tenant's series here, each recognised by its raw label bytes if it was met before. A verdict for each
    /// float and histogram.
    async fn stretch(
        &self,
        tenant: TenantId,
        plain: Bytes,
        judged_at: Timestamp,
        pass: Pass,
    ) -> Result<Vec<Verdict>, Error> {
        // Once as it is, once as a batch.
        let _permit = self.admission.hold(2 * plain.len() as u64).await.map_err(refuse)?;
        let (identities, limits) = (Arc::clone(&self.identities), *self.admission.limits());
        let whose = tenant.clone();
        let work = move |local: &Local| {
            let reading = Reading { limits: &limits, strip: None, rules: &relabel::NONE };
            let recognise = Recognise {
                identities: &identities,
                space: whose.as_str(),
                now: judged_at,
                labels: Carry::Unnamed,
            };
            let done = decode::plain_v1(&whose, &plain, reading, recognise, |decoded| {
                let Decoded { batch, aside, met, regions, ways, .. } = decoded;
                count_ways(*ways);
                let labels_of = LabelsOf::new(&plain, regions, false, reading);
                let labels = |row: u32, out: &mut Vec<u8>| labels_of.write(row, out);
                let mut learned = Vec::new();
                let known = Some(Known { labels: &labels, learned: &mut learned });
                // An exemplar that is refused is no reason to send samples again.
                let floats_and_histograms = batch.first_exemplar();
                let keep = |verdicts: &[Verdict]| verdicts[..floats_and_histograms].to_vec();
                let (position, mut verdicts) = local.append(&whose, batch, judged_at, known, keep)?;
                learn(&identities, whose.as_str(), met, &learned, false, judged_at);
                verdicts.extend(aside.verdicts());
                Ok((position, verdicts))
            });
            drop(pass);
            // What cannot be read is wrong as a whole, whatever the log says.
            match done {
                Ok(appended) => appended.map(|(position, verdicts)| (position, Ok(verdicts))),
                Err(denial) => Ok((0, Err(denial))),
            }
        };
        let written = self.writer.local().run(&tenant, self.writer.timeout(), work).await;
        written.map_err(|why| Error::new(Kind::Unavailable, why))?.map_err(refuse)
    }

    /// Lets a write of an epoch in, or says why not.
    fn pass(&self, ring_epoch: u64) -> Result<Pass, Error> {
        self.writer.local().gate().pass(ring_epoch).map_err(|closed| {
            if closed != Closed::Unplaced {
                metrics::counter!("tributary_receive_stale_writes_total").increment(1);
            }
            match closed {
                Closed::Stale(stale) => stale.into_error(),
                closed => Error::new(Kind::Unavailable, closed.why()),
            }
        })
    }

    async fn group(
        &self,
        group: TenantGroup,
        here: Option<Pass>,
        judged_at: Timestamp,
    ) -> Result<Vec<Verdict>, Error> {
        let TenantGroup { tenant, batch } = group;
        if batch.is_empty() {
            return Ok(Vec::new());
        }
        let bytes: usize = batch.series().iter().map(|series| batch.bytes_of(series)).sum();
        let _permit = self.admission.hold(bytes as u64).await.map_err(refuse)?;
        if let Some(pass) = here {
            let (local, limit) = (self.writer.local(), self.writer.timeout());
            let written = local.write_all(tenant, batch, judged_at, limit, pass).await;
            return written.map_err(|why| Error::new(Kind::Unavailable, why));
        }
        let plan = self.writer.plan(&tenant, &batch).map_err(refuse)?;
        let collected = self.writer.send_apart(plan, &tenant, Arc::new(batch), judged_at).await;
        Ok(collected.outcomes.into_iter().map(|outcome| outcome.verdict()).collect())
    }
}

fn refuse(denial: Denial) -> Error {
    match denial {
        Denial::Busy(text) => Error::new(Kind::Unavailable, text),
        Denial::RateLimited(text, _) => Error::new(Kind::Exhausted, text),
        Denial::Invalid(text)
        | Denial::Unauthorized(text)
        | Denial::Forbidden(text)
        | Denial::TooLarge(text)
        | Denial::Unsupported(text) => Error::new(Kind::Invalid, text),
    }
}
