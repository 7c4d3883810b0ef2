//! One HA pair as a door sees it: who is listened to, what the others sent lately, and when another takes the place.
//! Pure; times come from outside.
//!
//! ```text
//!            first heard                silent for its patience, another is heard
//! (nobody) ─────────────▶ listened to ─────────────────────────────────────────▶ on standby ─┐
//!                              ▲   what it sent while on standby is played, spliced          │
//!                              └─────────────────────────────────────────────────────────────┘
//! ```
//! What the one that is listened to sends is stored. What others send is acknowledged and held, as it came, for as long
//! as it may be needed: until the one that is listened to has sent as much, and for at least as long as it takes to
//! notice that it has gone.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use model::Timestamp;

/// Who is silent for less than this is there.
const QUICK: Duration = Duration::from_secs(10);
/// What is held outlives the patience by this, so that the one that notices late misses nothing.
const MARGIN: Duration = Duration::from_secs(5);
/// However far behind the one that is listened to is, no request is held for longer.
const LONGEST: Duration = Duration::from_secs(600);
/// Pauses between requests that are remembered of a replica.
const PAUSES: usize = 8;
/// A pause longer than this is an absence, not a habit.
const HABIT: Duration = Duration::from_secs(150);

/// What another door heard later than this is news.
const TOLD: Duration = Duration::from_secs(1);

/// How a pair is watched.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Longest silence of a replica that sends as often.
    pub failover: Duration,
}

/// Who is listened to, and since when.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Elected {
    pub replica: String,
    /// Counts the elections of this pair. Higher ones go before lower ones.
    pub term: u64,
    /// What was sent before reaches to here, in milliseconds.
    pub splice_from: Timestamp,
    /// When it was elected, by some node's clock.
    pub since: Timestamp,
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// It is stored; spliced where it may overlap with what another replica sent.
    Listen {
        spliced: bool,
    },
    Hold,
}

/// An election that should be held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wish {
    pub replica: String,
    /// The term that was seen.
    pub expect: u64,
    /// Newest sample of the one before, if it was heard.
    pub splice_from: Option<Timestamp>,
}

/// A request on standby.
#[derive(Clone, Debug)]
pub struct Held<T> {
    pub at: Duration,
    pub newest: Timestamp,
    pub bytes: u64,
    pub body: T,
}

/// What an election brings.
#[derive(Debug)]
pub struct Change<T> {
    /// To be stored as spliced, in this order.
    pub play: Vec<Held<T>>,
    /// Milliseconds up to which samples may be missing behind what the one before sent: they were held, and let go.
    pub gap: Option<i64>,
}

/// See the module. `T` is what is held.
#[derive(Debug)]
pub struct Pair<T> {
    elected: Option<Elected>,
    replicas: BTreeMap<String, Replica<T>>,
    /// Since when this door knows of the pair.
    begun: Duration,
    /// What the other doors know of it is known here.
    is_told: bool,
    /// Until when another door may listen to another replica.
    doubted: Duration,
}

#[derive(Debug)]
struct Replica<T> {
    heard: Option<Duration>,
    pauses: VecDeque<Duration>,
    newest: Timestamp,
    held: VecDeque<Held<T>>,
    /// Newest sample of what was held and let go.
    lost: Timestamp,
}

impl<T> Default for Replica<T> {
    fn default() -> Replica<T> {
        Replica {
            heard: None,
            pauses: VecDeque::new(),
            newest: Timestamp::MIN,
            held: VecDeque::new(),
            lost: Timestamp::MIN,
        }
    }
}

impl<T> Replica<T> {
    fn hear(&mut self, rules: Rules, newest: Timestamp, at: Duration) {
        if let Some(heard) = self.heard {
            let pause = at.saturating_sub(heard);
            // Nor is one after which it had been given up, once its habits are known: it would be waited for as long when it
            // goes the next time.
            let absent = pause > HABIT || self.pauses.len() > 1 && pause > self.patience(rules);
            match absent {
                true => self.pauses.clear(),
                false => self.pauses.push_back(pause),
            }
            if self.pauses.len() > PAUSES {
                self.pauses.pop_front();
            }
        }
        self.heard = self.heard.max(Some(at));
        self.newest = self.newest.max(newest);
    }

    /// Longest silence that is nothing unusual.
    fn patience(&self, rules: Rules) -> Duration {
        // Once is no habit.
        let Some(pause) = self.pauses.iter().max().filter(|_| self.pauses.len() > 1) else {
            return rules.failover;
        };
        // Who sends seldom is not given up between two requests, whatever the limit.
        (2 * *pause).max(QUICK).min(rules.failover.max(*pause * 3 / 2))
    }
}

impl<T> Pair<T> {
    pub fn new(elected: Option<Elected>, at: Duration) -> Pair<T> {
        Pair { elected, replicas: BTreeMap::new(), begun: at, is_told: false, doubted: Duration::ZERO }
    }

    pub fn elected(&self) -> Option<&Elected> {
        self.elected.as_ref()
    }

    /// All other doors that answer have been asked about it since it is known here.
    pub fn tell(&mut self) {
        self.is_told = true;
    }

    pub fn is_told(&self) -> bool {
        self.is_told
    }

    pub fn begun(&self) -> Duration {
        self.begun
    }

    /// When anybody was heard last.
    pub fn heard(&self) -> Duration {
        self.replicas.values().filter_map(|replica| replica.heard).max().unwrap_or(self.begun)
    }

    /// Replicas, when each was heard last here or elsewhere, and its newest sample.
    pub fn sightings(&self) -> impl Iterator<Item = (&str, Duration, Timestamp)> {
        self.replicas.iter().filter_map(|(name, r)| r.heard.map(|heard| (name.as_str(), heard, r.newest)))
    }

    /// Hears of a request with samples of these times, and says what becomes of it.
    pub fn hear(
        &mut self,
        rules: Rules,
        replica: &str,
        oldest: Timestamp,
        newest: Timestamp,
        at: Duration,
    ) -> Said {
        self.note(rules, replica, newest, at);
        match &self.elected {
            Some(elected) if elected.replica == replica => {
                // Others go on listening to the one before until they hear of the election.
                let settled = elected.splice_from.saturating_add(2 * rules.failover.as_millis() as i64);
                Said::Listen { spliced: oldest <= settled || at < self.doubted }
            }
            _ => Said::Hold,
        }
    }

    fn note(&mut self, rules: Rules, replica: &str, newest: Timestamp, at: Duration) {
        let known = self.of(replica);
        let was_given_up = known.heard.is_some_and(|heard| at.saturating_sub(heard) > known.patience(rules));
        known.hear(rules, newest, at);
        // It is back before this door has heard that another was elected, if one was.
        if was_given_up && self.elected.as_ref().is_some_and(|elected| elected.replica == replica) {
            self.doubt(rules, at);
        }
    }

    /// Another door may listen to another replica: what is listened to here is spliced for a while.
    pub fn doubt(&mut self, rules: Rules, at: Duration) {
        self.doubted = at + rules.failover;
    }

    /// Hears whom another door listens to, and says whether to do the same. Terms that were agreed on (`agrees`) are one
    /// election each, whoever tells of it; of those that doors give by themselves the same goes before the others everywhere.
    pub fn weigh(&mut self, rules: Rules, theirs: &Elected, agrees: bool, at: Duration) -> bool {
        let Some(ours) = &self.elected else { return true };
        let rank = |elected: &Elected| (elected.term, Reverse(elected.replica.clone()));
        let follows = if agrees { ours.term < theirs.term } else { rank(ours) < rank(theirs) };
        if ours.replica != theirs.replica {
            self.doubt(rules, at);
        }
        follows
    }

    /// Hears that another door heard of a replica.
    pub fn hear_of(&mut self, rules: Rules, replica: &str, newest: Timestamp, at: Duration) {
        let known = self.of(replica);
        // What comes back from whom it was told is late by the way, and no news.
        if known.heard.is_none_or(|heard| heard + TOLD < at) {
            self.note(rules, replica, newest, at);
        } else {
            known.newest = known.newest.max(newest);
        }
    }

    /// Holds a request of a replica that is not listened to. Gives the bytes of those let go for it.
    pub fn hold(&mut self, rules: Rules, replica: &str, held: Held<T>) -> u64 {
        let at = held.at;
        self.of(replica).held.push_back(held);
        self.let_go(rules, at)
    }

    /// Lets go of what is not needed any more; its bytes.
    pub fn let_go(&mut self, rules: Rules, at: Duration) -> u64 {
        let listened = self.elected.as_ref().and_then(|elected| self.replicas.get(&elected.replica));
        let reached = listened.map_or(Timestamp::MIN, |replica| replica.newest);
        let patience = listened.map_or(rules.failover, |replica| replica.patience(rules));
        let mut bytes = 0;
        for replica in self.replicas.values_mut() {
            while let Some(held) = replica.held.front() {
                let age = at.saturating_sub(held.at);
                if age <= patience + MARGIN || held.newest > reached && age <= LONGEST {
                    break;
                }
                bytes += replica.drop_oldest();
            }
        }
        bytes
    }

    /// Lets the oldest request go, for want of room; its bytes, 0 where nothing is held.
    pub fn drop_oldest(&mut self) -> u64 {
        let oldest = self.replicas.values_mut().filter(|replica| !replica.held.is_empty());
        let oldest = oldest.min_by_key(|replica| replica.held.front().map(|held| held.at));
        oldest.map_or(0, Replica::drop_oldest)
    }

    /// Gives all that is held, and of whom.
    pub fn take_held(&mut self) -> impl Iterator<Item = (&str, Held<T>)> {
        let replicas = self.replicas.iter_mut();
        replicas.flat_map(|(name, replica)| replica.held.drain(..).map(|held| (name.as_str(), held)))
    }

    pub fn held_bytes(&self) -> u64 {
        self.replicas.values().flat_map(|replica| &replica.held).map(|held| held.bytes).sum()
    }

    pub fn held_requests(&self) -> usize {
        self.replicas.values().map(|replica| replica.held.len()).sum()
    }

    /// Whom to elect, if anybody.
    pub fn due(&self, rules: Rules, at: Duration) -> Option<Wish> {
        let Some(elected) = &self.elected else {
            // By name as well: there is no one before.
            let (first, _) = self.replicas.iter().find(|(_, replica)| replica.heard.is_some())?;
            return Some(Wish { replica: first.clone(), expect: 0, splice_from: None });
        };
        let listened = self.replicas.get(&elected.replica);
        let heard = listened.and_then(|replica| replica.heard).unwrap_or(self.begun);
        let patience = listened.map_or(rules.failover, |replica| replica.patience(rules));
        if at.saturating_sub(heard) <= patience {
            return None;
        }
        // By name, so that doors that see the same choose the same.
        let (replica, _) = self.replicas.iter().find(|(name, replica)| {
            let there = |last: Duration| last > heard && at.saturating_sub(last) <= replica.patience(rules);
            **name != elected.replica && replica.heard.is_some_and(there)
        })?;
        let splice_from = listened.map(|replica| replica.newest).filter(|newest| *newest != Timestamp::MIN);
        Some(Wish { replica: replica.clone(), expect: elected.term, splice_from })
    }

    /// From now on another one is listened to, or the same one under a higher term.
    pub fn elect(&mut self, mut elected: Elected) -> Option<Change<T>> {
        let before = self.elected.as_ref();
        if before.is_some_and(|before| before.replica == elected.replica) {
            if let Some(before) = &mut self.elected {
                before.term = before.term.max(elected.term);
            }
            return None;
        }
        let listened = before.and_then(|before| self.replicas.get(&before.replica));
        let reached = listened.map_or(Timestamp::MIN, |replica| replica.newest);
        // What was heard here may be newer than what was known where it was elected.
        elected.splice_from = elected.splice_from.max(reached);
        let chosen = self.of(&elected.replica);
        let gap = chosen.lost.checked_sub(reached).filter(|gap| *gap > 0 && reached != Timestamp::MIN);
        let play = chosen.held.drain(..).collect();
        chosen.lost = Timestamp::MIN;
        self.elected = Some(elected);
        Some(Change { play, gap })
    }

    fn of(&mut self, replica: &str) -> &mut Replica<T> {
        if !self.replicas.contains_key(replica) {
            self.replicas.insert(replica.to_owned(), Replica::default());
        }
        self.replicas.entry(replica.to_owned()).or_default()
    }
}

impl<T> Replica<T> {
    fn drop_oldest(&mut self) -> u64 {
        let Some(held) = self.held.pop_front() else { return 0 };
        self.lost = self.lost.max(held.newest);
        held.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: Rules = Rules { failover: Duration::from_secs(30) };

    fn after(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// A pair whose `a` is listened to; both send every five seconds until `until`.
    fn sending(until: u64) -> Pair<()> {
        let elected = Elected { replica: "a".to_owned(), term: 1, splice_from: Timestamp::MIN, since: 0 };
        let mut pair = Pair::new(Some(elected), after(0));
        for at in (0..until).step_by(5) {
            hear(&mut pair, "a", at);
            hear(&mut pair, "b", at + 1);
        }
        pair
    }

    fn hear(pair: &mut Pair<()>, replica: &str, at: u64) {
        pair.hear(RULES, replica, at as i64 * 1_000, at as i64 * 1_000, after(at));
    }

    #[test]
    fn an_absence_is_no_habit() {
        let mut pair = sending(60);
        // 80 s away, and back for a few requests, it is waited for as little as before when it goes again.
        for at in (60..135).step_by(5) {
            hear(&mut pair, "b", at + 1);
        }
        for at in (135..160).step_by(5) {
            hear(&mut pair, "a", at);
            hear(&mut pair, "b", at + 1);
        }
        for at in (160..170).step_by(5) {
            hear(&mut pair, "b", at + 1);
        }
        assert_eq!(pair.due(RULES, after(165)), None);
        assert_eq!(pair.due(RULES, after(167)).unwrap().replica, "b");
    }

    #[test]
    fn who_had_been_given_up_is_spliced_for_a_while() {
        let mut pair = sending(60);
        let said = |pair: &mut Pair<()>, at: u64| {
            pair.hear(RULES, "a", at as i64 * 1_000, at as i64 * 1_000, after(at))
        };
        assert_eq!(said(&mut pair, 60), Said::Listen { spliced: false });
        assert_eq!(
            said(&mut pair, 72),
            Said::Listen { spliced: true },
            "others may have elected the other one"
        );
        assert_eq!(said(&mut pair, 77), Said::Listen { spliced: true });
        for at in (82..110).step_by(5) {
            said(&mut pair, at);
        }
        assert_eq!(said(&mut pair, 110), Said::Listen { spliced: false });
    }

    #[test]
    fn whom_another_door_listens_to_is_followed_or_a_reason_for_doubt() {
        let elected =
            |replica: &str, term| Elected { replica: replica.to_owned(), term, ..Elected::default() };
        // Which replica and term, whether that is agreed on; whether it is followed, and whether the own one is doubted.
        for (replica, term, agrees, follows, doubts) in [
            ("b", 2, true, true, true),
            ("b", 1, true, false, true),
            ("b", 1, false, false, true),
            ("a", 1, false, false, false),
            ("Z", 1, false, true, true),
            ("Z", 1, true, false, true),
        ] {
            let mut pair = sending(60);
            assert_eq!(
                pair.weigh(RULES, &elected(replica, term), agrees, after(60)),
                follows,
                "{replica} {term}"
            );
            let said = pair.hear(RULES, "a", 60_000, 60_000, after(60));
            assert_eq!(said, Said::Listen { spliced: doubts }, "{replica} {term}");
        }
        assert!(Pair::<()>::new(None, after(0)).weigh(RULES, &elected("b", 0), true, after(0)));
    }

    #[test]
    fn who_sends_seldom_is_waited_for_once_that_is_known() {
        let mut pair = sending(60);
        for at in (60..300).step_by(60) {
            hear(&mut pair, "a", at);
            hear(&mut pair, "b", at + 1);
        }
        assert_eq!(pair.due(RULES, after(240 + 61)), None);
        hear(&mut pair, "b", 301);
        hear(&mut pair, "b", 361);
        assert_eq!(pair.due(RULES, after(362)).unwrap().replica, "b");
    }
}
