//! All HA pairs of a door: whom each listens to, and what is held of the others; one lock, held for a look.
//!
//! Who takes over is decided by [`Pair`]; here it is remembered, bounded in memory, and told. With a control plane an
//! election is agreed on by all doors, and where nothing can be agreed each goes by the same rule for itself until it
//! can. Without one the doors tell each other whom they hear (`gossip`), and the higher term wins.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use agreed::Elections;
use model::{TenantId, Timestamp};
use parking_lot::Mutex;
use runtime::World;
use tokio::sync::Notify;
use wire::remote_write::{Packing, PairLabels, Sent};

use super::pair::{Change, Elected, Held, Pair, Rules, Said, Wish};
use super::rest::Resting;
use crate::admit::Version;
use crate::limits::{Pairs, Profile};
use crate::settings::HaPairs;
use crate::status::Denial;

/// A pair of which nobody was heard for this long is forgotten.
const IDLE: Duration = Duration::from_secs(30 * 60);

/// Pairs of which this door hears from others alone.
const MOST_TOLD: usize = 100_000;

/// Which message a body holds, and how it is compressed.
pub type Form = (Version, Packing);

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Kept {
    pub form: Form,
    pub body: Vec<u8>,
    pub judged_at: Timestamp,
}

impl Kept {
    /// Memory that it takes.
    fn bytes(&self) -> u64 {
        self.body.capacity() as u64 + 128
    }
}

/// A request that was held and is to be stored now.
#[derive(Clone, Debug)]
pub struct Play {
    pub tenant: TenantId,
    pub cluster: String,
    pub replica: String,
    pub held: Held<Kept>,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It is of no pair that is watched, and stored as it came.
    Untracked,
    Listen {
        spliced: bool,
    },
    /// It was taken away and is acknowledged.
    Held,
}

/// A pair by its names.
pub type Name = (TenantId, String);

/// See the module.
pub struct Ha {
    settings: HaPairs,
    world: World,
    begun: Instant,
    state: Mutex<State>,
    /// Elections are agreed on with the others.
    pub(super) control: std::sync::OnceLock<control::Handle>,
    /// Where elections are remembered that nobody agrees on.
    pub(super) file: Option<PathBuf>,
    /// Where what is held waits for the next life.
    pub(super) rest: Option<PathBuf>,
    /// Somebody is to be elected.
    pub(super) due: Notify,
    /// Something is to be played.
    pub(super) play: Notify,
    /// Somebody is to be elected for the first time, and the other doors may know more.
    pub(super) ask: Notify,
    /// Whether there are other doors.
    pub(super) has_others: AtomicBool,
}

#[derive(Default)]
struct State {
    tenants: BTreeMap<TenantId, BTreeMap<String, Pair<Kept>>>,
    /// Bytes of what is held or to be played.
    held: u64,
    play: VecDeque<Arc<Play>>,
    /// What is being played.
    playing: Vec<Arc<Play>>,
    /// Of pairs that were not heard yet, from before the start.
    remembered: BTreeMap<Name, Elected>,
    /// Pairs of which an election is being asked for.
    asking: BTreeSet<Name>,
    /// Pairs whose election the others have not agreed on yet.
    owing: BTreeSet<Name>,
    /// Elections since they were written to the file.
    changed: bool,
}

impl Ha {
    pub fn new(settings: &HaPairs, world: &World, file: Option<PathBuf>, rest: Option<PathBuf>) -> Ha {
        Ha {
            settings: settings.clone(),
            world: world.clone(),
            begun: world.clock.monotonic(),
            state: Mutex::default(),
            control: std::sync::OnceLock::new(),
            file,
            rest,
            due: Notify::new(),
            play: Notify::new(),
            ask: Notify::new(),
            has_others: AtomicBool::new(false),
        }
    }

    /// See [`crate::Receive::elect_by`]. Only the first counts.
    pub fn agree_by(&self, control: control::Handle) {
        // Whoever is first is the one that all of the node goes by.
        let _ = self.control.set(control);
    }

    /// The labels by which a tenant's pairs are told; none where they are not.
    pub fn labels<'a>(&'a self, pairs: &'a Pairs) -> Option<PairLabels<'a>> {
        pairs.accepted.unwrap_or(self.settings.enabled).then(|| PairLabels {
            cluster: pairs.cluster_label.as_deref().unwrap_or(&self.settings.cluster_label),
            replica: pairs.replica_label.as_deref().unwrap_or(&self.settings.replica_label),
        })
    }

    /// Whether pairs are watched where no tenant says otherwise.
    pub(super) fn enabled(&self) -> bool {
        self.settings.enabled
    }

    pub(super) fn rules(&self) -> Rules {
        Rules { failover: self.settings.failover.as_duration() }
    }

    /// Now. What others tell of is older than this process at times, and would be heard anew if it could not be told so.
    pub(super) fn at(&self) -> Duration {
        IDLE + self.world.clock.monotonic().saturating_duration_since(self.begun)
    }

    pub(super) fn world(&self) -> &World {
        &self.world
    }

    /// Hears of a request of a pair, and takes its body away if it is to be held.
    pub fn hear(
        &self,
        tenant: &TenantId,
        profile: &Profile,
        sent: &Sent<'_>,
        form: Form,
        body: &mut Vec<u8>,
        judged_at: Timestamp,
    ) -> Result<Heard, Denial> {
        let (rules, at) = (self.rules(), self.at());
        let mut guard = self.state.lock();
        let state = &mut *guard;
        if !self.tracks(state, tenant, profile, sent.cluster, at) {
            return Ok(Heard::Untracked);
        }
        let Some(pair) = state.pair(tenant, sent.cluster) else { return Ok(Heard::Untracked) };
        let said = pair.hear(rules, sent.replica, sent.oldest, sent.newest, at);
        if let Said::Listen { spliced } = said {
            return Ok(Heard::Listen { spliced });
        }
        if let Some(wish) = pair.due(rules, at) {
            match self.control.get() {
                Some(_) => self.due.notify_one(),
                None if self.waits(pair) => self.ask.notify_one(),
                None => {
                    let name = (tenant.clone(), sent.cluster.to_owned());
                    let elected = self.elected(&wish, wish.expect + 1);
                    self.elect(state, &name, elected);
                }
            }
        }
        let Some(pair) = state.pair(tenant, sent.cluster) else { return Ok(Heard::Untracked) };
        match pair.elected() {
            // Whoever is first waits for the others, rather than be acknowledged for what nobody keeps.
            None => {
                return Err(Denial::Busy(format!(
                    "the receivers are agreeing on which replica of cluster {} is listened to; send it again",
                    sent.cluster
                )));
            }
            Some(elected) if elected.replica == sent.replica => {
                return Ok(Heard::Listen { spliced: elected.splice_from != Timestamp::MIN });
            }
            Some(_) => {}
        }
        let kept = Kept { form, body: std::mem::take(body), judged_at };
        let bytes = kept.bytes();
        let held = Held { at, newest: sent.newest, bytes, body: kept };
        let gone = pair.hold(rules, sent.replica, held);
        state.held = state.held.saturating_add(bytes).saturating_sub(gone);
        self.make_room(state);
        drop(guard);
        let labels = [("tenant", tenant.to_string()), ("cluster", sent.cluster.to_owned())];
        metrics::counter!("tributary_ha_tracker_deduped_samples_total", &labels[..])
            .increment(sent.samples + sent.histograms);
        Ok(Heard::Held)
    }

    /// Whether nobody is elected before the other doors were asked: they may listen to somebody, or hear of another at this
    /// moment.
    fn waits(&self, pair: &Pair<Kept>) -> bool {
        pair.elected().is_none() && !pair.is_told() && self.has_others.load(Relaxed)
    }

    /// The other doors were asked; what those know that answered is known here, of pairs that are known since before `at`.
    pub(super) fn told(&self, at: Duration) {
        let mut state = self.state.lock();
        let mut waited = false;
        for pair in state.tenants.values_mut().flat_map(BTreeMap::values_mut) {
            waited |= pair.elected().is_none() && !pair.is_told();
            if pair.begun() < at {
                pair.tell();
            }
        }
        drop(state);
        if waited {
            self.due.notify_one();
        }
    }

    /// Makes a pair of a cluster that was not heard before, as far as there may be another one.
    fn tracks(
        &self,
        state: &mut State,
        tenant: &TenantId,
        profile: &Profile,
        cluster: &str,
        at: Duration,
    ) -> bool {
        let State { tenants, remembered, .. } = state;
        let pairs = match tenants.get_mut(tenant) {
            Some(pairs) if pairs.contains_key(cluster) => return true,
            Some(pairs) => pairs,
            None => tenants.entry(tenant.clone()).or_default(),
        };
        let most = self.cap(&profile.pairs);
        if pairs.len() as u64 >= most {
            metrics::counter!("tributary_ha_tracker_too_many_clusters_total", "tenant" => tenant.to_string())
                .increment(1);
            return false;
        }
        let elected = self.known(remembered, &(tenant.clone(), cluster.to_owned()));
        pairs.insert(cluster.to_owned(), Pair::new(elected, at));
        true
    }

    /// Makes a pair, if there is none of this name.
    fn meet(&self, state: &mut State, name: &Name, at: Duration) {
        if state.pair(&name.0, &name.1).is_none() {
            let elected = self.known(&mut state.remembered, name);
            state.tenants.entry(name.0.clone()).or_default().insert(name.1.clone(), Pair::new(elected, at));
        }
    }

    /// Who is listened to of a pair that was not heard before.
    fn known(&self, remembered: &mut BTreeMap<Name, Elected>, name: &Name) -> Option<Elected> {
        match self.control.get() {
            Some(control) => agreed(&control.now().state.elections, &name.0, &name.1),
            None => remembered.remove(name),
        }
    }

    pub(super) fn cap(&self, pairs: &Pairs) -> u64 {
        match pairs.max_clusters.unwrap_or(self.settings.max_clusters) {
            0 => u64::MAX,
            most => most,
        }
    }

    pub(super) fn elected(&self, wish: &Wish, term: u64) -> Elected {
        let now = self.world.clock.now_ms();
        // Before the first there was nobody whose samples could be in the way.
        let first = if wish.expect == 0 { Timestamp::MIN } else { now };
        let splice_from = wish.splice_from.unwrap_or(first);
        Elected { replica: wish.replica.clone(), term, splice_from, since: now }
    }

    /// Has a pair listen to somebody else, and what was held of it played.
    fn elect(&self, state: &mut State, (tenant, cluster): &Name, elected: Elected) {
        let Some(pair) = state.pair(tenant, cluster) else { return };
        let before = pair.elected().map(|before| before.replica.clone());
        let (replica, term) = (elected.replica.clone(), elected.term);
        state.changed = true;
        let Some(pair) = state.pair(tenant, cluster) else { return };
        let Some(Change { play, gap }) = pair.elect(elected) else { return };
        let labels = [("tenant", tenant.to_string()), ("cluster", cluster.clone())];
        metrics::counter!("tributary_ha_tracker_elected_replica_changes_total", &labels[..]).increment(1);
        metrics::gauge!("tributary_ha_tracker_elected_replica_timestamp_seconds", &labels[..])
            .set(self.world.clock.now_ms() as f64 / 1000.0);
        let held = play.len();
        match before {
            None => tracing::info!(%tenant, cluster, replica, term, "replica of an HA pair is listened to"),
            Some(before) => tracing::warn!(
                %tenant, cluster, replica, before, term, held,
                "replica of an HA pair is silent; another is listened to, and what was held of it is stored"
            ),
        }
        if let Some(gap_ms) = gap {
            metrics::counter!("tributary_ha_tracker_gaps_possible_total", &labels[..]).increment(1);
            tracing::error!(
                %tenant, cluster, gap_ms,
                "what was held of the replica that takes over did not reach back to where the one before ended; samples \
                 may be missing: raise --receive.ha-max-held-bytes, or see why the one before was late"
            );
        }
        let of = |held| {
            let (tenant, cluster, replica) = (tenant.clone(), cluster.clone(), replica.clone());
            Arc::new(Play { tenant, cluster, replica, held })
        };
        state.play.extend(play.into_iter().map(of));
        self.play.notify_one();
    }

    /// Lets the oldest go of whoever has most, until the rest fits.
    fn make_room(&self, state: &mut State) {
        while state.held > self.settings.held_bytes.bytes() {
            let pairs = state.tenants.values_mut().flat_map(BTreeMap::values_mut);
            let gone = pairs.max_by_key(|pair| pair.held_bytes()).map_or(0, Pair::drop_oldest);
            if gone == 0 {
                return;
            }
            state.held = state.held.saturating_sub(gone);
            metrics::counter!("tributary_ha_tracker_held_requests_dropped_total").increment(1);
        }
    }

    /// What there is to do now and then: lets go of what nobody needs, and shows what is held.
    pub(super) fn tidy(&self) {
        let (rules, at) = (self.rules(), self.at());
        let mut state = self.state.lock();
        let (mut gone, mut requests, mut clusters) = (0, 0, 0);
        let State { tenants, asking, owing, .. } = &mut *state;
        tenants.retain(|tenant, pairs| {
            pairs.retain(|cluster, pair| {
                gone += pair.let_go(rules, at);
                let name = (tenant.clone(), cluster.clone());
                let idle = at.saturating_sub(pair.heard()) > IDLE;
                if idle && !asking.contains(&name) && !owing.contains(&name) {
                    gone += pair.held_bytes();
                    return false;
                }
                requests += pair.held_requests();
                clusters += 1;
                true
            });
            !pairs.is_empty()
        });
        state.held = state.held.saturating_sub(gone);
        metrics::gauge!("tributary_ha_tracker_held_bytes").set(state.held as f64);
        metrics::gauge!("tributary_ha_tracker_held_requests").set(requests as f64);
        metrics::gauge!("tributary_ha_tracker_clusters").set(f64::from(clusters));
    }

    /// Elections to be held. Where there is nobody to agree with they are held at once; the others are to be asked for,
    /// and answered with [`Ha::asked`].
    pub(super) fn wishes(&self) -> Vec<(Name, Wish)> {
        let (rules, at) = (self.rules(), self.at());
        let mut state = self.state.lock();
        let mut wishes = Vec::new();
        for (tenant, pairs) in &state.tenants {
            for (cluster, pair) in pairs {
                let waits = self.control.get().is_none() && self.waits(pair);
                if let Some(wish) = pair.due(rules, at).filter(|_| !waits) {
                    wishes.push(((tenant.clone(), cluster.clone()), wish));
                }
            }
        }
        if self.control.get().is_none() {
            for (name, wish) in wishes {
                let elected = self.elected(&wish, wish.expect + 1);
                self.elect(&mut state, &name, elected);
            }
            return Vec::new();
        }
        // What was decided here alone is still to be agreed on.
        for name in state.owing.clone() {
            let Some(elected) = state.pair(&name.0, &name.1).and_then(|pair| pair.elected().cloned()) else {
                continue;
            };
            if wishes.iter().all(|(other, _)| *other != name) {
                let Elected { replica, term: expect, splice_from, .. } = elected;
                wishes.push((name, Wish { replica, expect, splice_from: Some(splice_from) }));
            }
        }
        wishes.retain(|(name, _)| !state.asking.contains(name));
        state.asking.extend(wishes.iter().map(|(name, _)| name.clone()));
        wishes
    }

    /// An election was agreed on (`Some`), or cannot be for now, and is held here alone.
    pub(super) fn asked(&self, name: &Name, elected: Elected, agreed: bool) {
        let (rules, at) = (self.rules(), self.at());
        let mut state = self.state.lock();
        state.asking.remove(name);
        match agreed {
            true => state.owing.remove(name),
            false => state.owing.insert(name.clone()),
        };
        self.elect(&mut state, name, elected);
        if !agreed && let Some(pair) = state.pair(&name.0, &name.1) {
            pair.doubt(rules, at);
        }
    }

    /// An election was refused: others have agreed on another, which is yet to be heard of here.
    pub(super) fn overruled(&self, name: &Name) {
        let (rules, at) = (self.rules(), self.at());
        let mut state = self.state.lock();
        state.asking.remove(name);
        state.owing.remove(name);
        if let Some(pair) = state.pair(&name.0, &name.1) {
            pair.doubt(rules, at);
        }
    }

    /// Follows what is agreed.
    pub(super) fn follow(&self, elections: &Elections) {
        let mut state = self.state.lock();
        let names: Vec<Name> = state.names();
        for name in names {
            let Some(elected) = agreed(elections, &name.0, &name.1) else { continue };
            let Some(pair) = state.pair(&name.0, &name.1) else { continue };
            if pair.elected().is_none_or(|known| known.term < elected.term) {
                state.owing.remove(&name);
                self.elect(&mut state, &name, elected);
            }
        }
    }

    /// The next request to be stored of those that were held.
    pub(super) fn next_play(&self) -> Option<Arc<Play>> {
        let mut state = self.state.lock();
        let play = state.play.pop_front()?;
        state.playing.push(Arc::clone(&play));
        Some(play)
    }

    /// A request that was to be played is stored, and needs no memory any more.
    pub(super) fn played(&self, play: &Arc<Play>) {
        let mut state = self.state.lock();
        state.playing.retain(|other| !Arc::ptr_eq(other, play));
        state.held = state.held.saturating_sub(play.held.bytes);
    }

    /// Gives all that was acknowledged and is not stored, for the door stops: what is held, and what was to be played.
    pub(super) fn put_to_rest(&self) -> Vec<Resting> {
        let mut guard = self.state.lock();
        let State { tenants, play, playing, held, .. } = &mut *guard;
        *held = 0;
        let played = playing.drain(..).chain(play.drain(..)).map(|play| {
            let Play { tenant, cluster, replica, held } = Arc::unwrap_or_clone(play);
            Resting { tenant, cluster, replica, newest: held.newest, kept: held.body }
        });
        let mut all: Vec<Resting> = played.collect();
        for (tenant, pairs) in tenants {
            for (cluster, pair) in pairs {
                all.extend(pair.take_held().map(|(replica, held)| Resting {
                    tenant: tenant.clone(),
                    cluster: cluster.clone(),
                    replica: replica.to_owned(),
                    newest: held.newest,
                    kept: held.body,
                }));
            }
        }
        all
    }

    /// Takes up what the life before has put to rest: it is held on, or played where its sender was elected meanwhile.
    pub(super) fn take_up(&self, resting: Vec<Resting>) {
        let (rules, at) = (self.rules(), self.at());
        let mut guard = self.state.lock();
        let state = &mut *guard;
        for Resting { tenant, cluster, replica, newest, kept } in resting {
            let name = (tenant, cluster);
            self.meet(state, &name, at);
            let bytes = kept.bytes();
            let held = Held { at, newest, bytes, body: kept };
            state.held += bytes;
            let Some(pair) = state.pair(&name.0, &name.1) else { continue };
            if pair.elected().is_some_and(|elected| elected.replica == replica) {
                let (tenant, cluster) = name;
                state.play.push_back(Arc::new(Play { tenant, cluster, replica, held }));
                self.play.notify_one();
                continue;
            }
            let gone = pair.hold(rules, &replica, held);
            state.held = state.held.saturating_sub(gone);
        }
        self.make_room(state);
    }

    /// Takes over what was elected before the start.
    pub(super) fn remember(&self, elections: impl IntoIterator<Item = (Name, Elected)>) {
        self.state.lock().remembered.extend(elections);
    }

    /// All elections, if they have changed since they were asked for last.
    pub(super) fn changed(&self) -> Option<Vec<(Name, Elected)>> {
        let mut state = self.state.lock();
        std::mem::take(&mut state.changed).then(|| state.elections())
    }

    /// Bytes held, and requests that wait to be played.
    #[cfg(test)]
    pub(super) fn held(&self) -> (u64, usize) {
        let state = self.state.lock();
        (state.held, state.play.len())
    }

    /// Does something with every pair.
    pub(super) fn each(&self, mut see: impl FnMut(&TenantId, &str, &Pair<Kept>)) {
        let state = self.state.lock();
        for (tenant, pairs) in &state.tenants {
            pairs.iter().for_each(|(cluster, pair)| see(tenant, cluster, pair));
        }
    }

    /// Hears from another door whom it hears and whom it listens to.
    pub(super) fn hear_of(
        &self,
        name: &Name,
        elected: Option<Elected>,
        replicas: impl IntoIterator<Item = (String, Duration, Timestamp)>,
    ) {
        let (rules, at) = (self.rules(), self.at());
        let mut state = self.state.lock();
        // Also of pairs that do not come this way: others ask.
        let is_full = state.tenants.values().map(BTreeMap::len).sum::<usize>() >= MOST_TOLD;
        if is_full && state.pair(&name.0, &name.1).is_none() {
            return;
        }
        self.meet(&mut state, name, at);
        let Some(pair) = state.pair(&name.0, &name.1) else { return };
        for (replica, age, newest) in replicas {
            if age < IDLE {
                pair.hear_of(rules, &replica, newest, at.saturating_sub(age));
            }
        }
        let Some(theirs) = elected else { return };
        if pair.weigh(rules, &theirs, self.control.get().is_some(), at) {
            state.owing.remove(name);
            self.elect(&mut state, name, theirs);
        }
    }
}

impl State {
    fn pair(&mut self, tenant: &TenantId, cluster: &str) -> Option<&mut Pair<Kept>> {
        self.tenants.get_mut(tenant)?.get_mut(cluster)
    }

    fn names(&self) -> Vec<Name> {
        let pairs = self.tenants.iter();
        pairs.flat_map(|(tenant, pairs)| pairs.keys().map(move |c| (tenant.clone(), c.clone()))).collect()
    }

    fn elections(&self) -> Vec<(Name, Elected)> {
        let heard = self.tenants.iter().flat_map(|(tenant, pairs)| {
            let elected = |(cluster, pair): (&String, &Pair<Kept>)| {
                Some(((tenant.clone(), cluster.clone()), pair.elected()?.clone()))
            };
            pairs.iter().filter_map(elected)
        });
        heard.chain(self.remembered.iter().map(|(name, elected)| (name.clone(), elected.clone()))).collect()
    }
}

fn agreed(elections: &Elections, tenant: &TenantId, cluster: &str) -> Option<Elected> {
    let found = elections.get(tenant.as_str(), cluster)?;
    Some(Elected {
        replica: found.replica.clone(),
        term: found.term,
        splice_from: found.splice_from,
        since: found.since,
    })
}
