//! Hints to those who are back: one task per replica, a few at a time, at a bounded rate, beside what is new.
//!
//! A peer that left the ring gets nothing more; what it missed is placed anew by the ring of now, so that it has as many
//! copies as before. Whatever is sent twice is stored once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use model::{Kind, Timestamp};
use rpc::{ANY_EPOCH, WriteCall};
use runtime::{Shutdown, World};
use storage::{Verdict, WriteBatch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::shelf::{Next, Shelf};
use super::{Hints, count, frame};
use crate::Error;
use crate::quorum::Outcome;
use crate::ring::Target;
use crate::write::Writer;

/// Hints under way to one replica at once: one at a time, each would wait for a sync of its own.
const AT_ONCE: usize = 8;
/// How often it is looked whether something waits, when nobody says so.
const LOOK: Duration = Duration::from_millis(500);
/// How often it is looked whether a peer that is left alone may be asked.
const AWAY: Duration = Duration::from_millis(100);
/// How long a peer is left alone that did not take a hint.
const PAUSE: Duration = Duration::from_millis(500);
/// ... and one that took a part of it.
const LONG_PAUSE: Duration = Duration::from_secs(5);
/// After so many refusals of the whole call a hint is given up: nothing passing refuses so often.
const ATTEMPTS: u32 = 20;

/// Delivers until the shutdown.
pub async fn run(hints: Arc<Hints>, writer: Arc<Writer>, world: World, until: Shutdown) -> Result<(), Error> {
    let mut tasks: BTreeMap<String, JoinHandle<()>> = BTreeMap::new();
    let mut found = false;
    loop {
        let looking = Arc::clone(&hints);
        let begin = !std::mem::replace(&mut found, true);
        let looked = world.threads.blocking(move || {
            if begin {
                looking.find()?;
            }
            looking.find_again();
            for (peer, _, samples, bytes) in looking.figures() {
                metrics::gauge!("tributary_hints_waiting_bytes", "peer" => peer.clone()).set(bytes as f64);
                metrics::gauge!("tributary_hints_waiting_samples", "peer" => peer).set(samples as f64);
            }
            Ok(looking.waiting())
        });
        let waiting = looked.await.map_err(|error| {
            Error::with_source(Kind::Internal, format!("looking at hints: {error}"), error)
        })?;
        let waiting = waiting.unwrap_or_else(|error: Error| {
            tracing::error!(%error, "what an earlier life has kept for others is not delivered; restart once it can be read");
            Vec::new()
        });
        tasks.retain(|_, task| !task.is_finished());
        for peer in waiting {
            tasks.entry(peer.clone()).or_insert_with(|| {
                let delivery = Delivery {
                    hints: Arc::clone(&hints),
                    writer: Arc::clone(&writer),
                    world: world.clone(),
                    peer,
                };
                let until = until.clone();
                tokio::spawn(async move {
                    tokio::select! {
                        biased;
                        () = until.wait() => {}
                        () = delivery.run() => {}
                    }
                })
            });
        }
        tokio::select! {
            biased;
            () = until.wait() => break,
            () = hints.news.notified() => {
                // Not for every hint that is kept.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            () = tokio::time::sleep(LOOK) => {}
        }
    }
    futures::future::join_all(tasks.into_values()).await;
    Ok(())
}

/// The way of one peer's hints.
struct Delivery {
    hints: Arc<Hints>,
    writer: Arc<Writer>,
    world: World,
    peer: String,
}

/// A hint's parts, each with the time as of which it is judged.
type Parts = Vec<(Timestamp, Arc<WriteBatch>)>;

/// What became of an attempt.
enum Attempt {
    /// So many of its samples were refused for good.
    Done(u64),
    Later(Duration),
    /// The whole call is refused, in words.
    Bad(String),
}

impl Delivery {
    async fn run(self) {
        let (mut pace, mut bad, mut noted) = (Instant::now(), 0, Instant::now());
        let (mut told, mut delivered) = (false, 0u64);
        loop {
            let to = self.writer.ring().current().target(&self.peer).cloned();
            let most = match &to {
                Some(Target::Peer(peer)) if peer.is_away() => {
                    // Nothing is read and unpacked for nobody.
                    tokio::time::sleep(AWAY).await;
                    continue;
                }
                // Whether it is back is asked with one.
                Some(Target::Peer(peer)) if peer.breaker_level() > 0 => 1,
                _ => AT_ONCE,
            };
            let next = self.next(most).await;
            if next.is_empty() {
                break;
            }
            let attempts = next.iter().map(|(next, parts)| self.attempt(to.as_ref(), next, parts));
            let attempts = futures::future::join_all(attempts).await;
            // What was taken behind one that was not comes again, which changes nothing.
            for ((next, _), attempt) in next.iter().zip(attempts) {
                let samples = u64::from(next.frame.samples);
                match attempt {
                    Attempt::Done(refused) => {
                        bad = 0;
                        delivered += samples;
                        if !std::mem::replace(&mut told, true) {
                            tracing::info!(peer = self.peer, "hints are being delivered");
                        }
                        let taken = samples - refused.min(samples);
                        count("tributary_hints_delivered_samples_total", &self.peer, taken);
                        count("tributary_hints_refused_samples_total", &self.peer, refused);
                        self.pass(next).await;
                        let rate = self.hints.settings.rate.max(1) as f64;
                        pace = pace.max(Instant::now()) + Duration::from_secs_f64(next.bytes as f64 / rate);
                    }
                    Attempt::Later(pause) => {
                        tokio::time::sleep(pause).await;
                        break;
                    }
                    Attempt::Bad(why) => {
                        bad += 1;
                        tracing::debug!(peer = self.peer, why, "hint was not taken");
                        if bad >= ATTEMPTS {
                            tracing::warn!(peer = self.peer, why, samples, "hint is given up");
                            super::dropped(&self.peer, "refused", samples);
                            bad = 0;
                            self.pass(next).await;
                        }
                        tokio::time::sleep(PAUSE).await;
                        break;
                    }
                }
            }
            if noted.elapsed() > Duration::from_secs(1) {
                noted = Instant::now();
                self.note().await;
            }
            // What was sent since the pace was met is paid for before the next.
            if pace > Instant::now() + Duration::from_millis(20) {
                tokio::time::sleep_until(pace).await;
            }
        }
        if told {
            tracing::info!(peer = self.peer, samples = delivered, "hints are delivered");
        }
        let (hints, peer) = (Arc::clone(&self.hints), self.peer.clone());
        let retired = self.world.threads.blocking(move || hints.retire(&peer)).await;
        if let Err(error) = retired {
            tracing::error!(peer = self.peer, %error, "removing delivered hints broke off");
        }
    }

    /// Works on the shelf, beside the threads that drive sockets; a failure sets it aside.
    async fn on_shelf<R: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Shelf, Timestamp) -> Result<R, Error> + Send + 'static,
    ) -> Option<R> {
        let (hints, peer, now) = (Arc::clone(&self.hints), self.peer.clone(), self.world.clock.now_ms());
        let done = self.world.threads.blocking(move || {
            let shelf = hints.shelf(&peer)?;
            let done = work(&mut shelf.lock(), now);
            done.inspect_err(|error| hints.fail(&peer, error)).ok()
        });
        done.await.unwrap_or_else(|error| {
            tracing::error!(peer = self.peer, %error, "reading hints broke off");
            None
        })
    }

    async fn next(&self, most: usize) -> Vec<(Next, Parts)> {
        let window = self.hints.settings.window;
        let next = self.on_shelf(move |shelf, now| {
            let some = shelf.next(now, most)?.into_iter().map(|mut next| {
                let parts =
                    frame::by_age(std::mem::take(&mut next.frame.batch), next.frame.judged_at, window);
                (next, parts.into_iter().map(|(at, part)| (at, Arc::new(part))).collect())
            });
            Ok(some.collect())
        });
        next.await.unwrap_or_default()
    }

    async fn pass(&self, next: &Next) {
        let place = next.mark();
        self.on_shelf(move |shelf, _| shelf.passed(&place)).await;
    }

    async fn note(&self) {
        let (hints, peer) = (Arc::clone(&self.hints), self.peer.clone());
        let noted = self.world.threads.blocking(move || {
            if let Some(shelf) = hints.shelf(&peer) {
                hints.note(&peer, &shelf);
            }
        });
        if let Err(error) = noted.await {
            tracing::error!(peer = self.peer, %error, "noting hints broke off");
        }
    }

    async fn attempt(&self, to: Option<&Target>, next: &Next, parts: &Parts) -> Attempt {
        match to {
            // Whoever is not found may be in the ring all the same.
            _ if self.writer.ring().is_unknown() => Attempt::Later(PAUSE),
            Some(to) => self.deliver(to, next, parts).await,
            None => self.place_anew(next, parts).await,
        }
    }

    async fn deliver(&self, to: &Target, next: &Next, parts: &Parts) -> Attempt {
        let mut refused = 0;
        for (judged_at, batch) in parts {
            let call = WriteCall {
                tenant: next.frame.tenant.clone(),
                batch: Arc::clone(batch),
                rows: (0..batch.series().len() as u32).collect(),
                replica: next.frame.replica,
                judged_at: *judged_at,
                ring_epoch: ANY_EPOCH,
            };
            let answer = match to {
                Target::Peer(peer) => peer.deliver_hint(call).await,
                Target::Local => self.writer.local().take_hint(call).await,
            };
            match answer {
                Ok(verdicts) if verdicts.contains(&Verdict::Unavailable) => {
                    // Where it takes a part, it does not lack time but an upgrade.
                    let some = verdicts.iter().any(|verdict| verdict.is_success());
                    return Attempt::Later(if some { LONG_PAUSE } else { PAUSE });
                }
                Ok(verdicts) => refused += verdicts.iter().filter(|v| !v.is_success()).count() as u64,
                Err(Untaken::Later(pause)) => return Attempt::Later(pause.max(Duration::from_millis(20))),
                Err(Untaken::Failed(error)) if error.kind == Kind::Unavailable => {
                    return Attempt::Later(PAUSE);
                }
                Err(Untaken::Failed(error)) => return Attempt::Bad(error.to_string()),
            }
        }
        Attempt::Done(refused)
    }

    async fn place_anew(&self, next: &Next, parts: &Parts) -> Attempt {
        let mut refused = 0;
        for (judged_at, batch) in parts {
            let tenant = &next.frame.tenant;
            let plan = match self.writer.plan(tenant, batch) {
                Ok(plan) => plan,
                Err(denial) => return Attempt::Bad(format!("{denial:?}")),
            };
            let sent = self.writer.send(plan, tenant, Arc::clone(batch), *judged_at).boxed();
            let collected = sent.await;
            if collected.outcomes.contains(&Outcome::Retryable) {
                return Attempt::Later(PAUSE);
            }
            refused += collected.outcomes.iter().filter(|o| **o != Outcome::Accepted).count() as u64;
        }
        Attempt::Done(refused)
    }
}

/// Why a peer did not take a hint.
#[derive(Debug)]
pub enum Untaken {
    /// It is not asked for this long.
    Later(Duration),
    Failed(storage::Error),
}
