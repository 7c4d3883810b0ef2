//! Whether an endpoint can have anything for a request: a pure function of what it said of itself.
//!
//! Leaving one out wrongly loses data, asking one in vain costs a little: in doubt it is asked. Our own receivers
//! are never left out by what they said seconds ago: times and tenants appear there between two polls.

use model::{Labels, Matcher, TimeRange};
use rpc::PeerInfo;

/// Whether an endpoint that said `info` may have series in `range` that pass `matchers`.
pub fn may_have(info: &PeerInfo, range: TimeRange, matchers: &[Matcher]) -> bool {
    let Some(store) = &info.store else { return false };
    store.range.overlaps(&range) && label_sets_allow(&info.label_sets, matchers)
}

/// Whether some label set contradicts none of the matchers; an endpoint without label sets may have everything.
pub fn label_sets_allow(sets: &[Labels], matchers: &[Matcher]) -> bool {
    let allows = |set: &Labels| {
        matchers.iter().all(|m| match set.get(&m.name) {
            Some(value) => m.matches(value),
            // The label may still be on the series themselves.
            None => true,
        })
    };
    sets.is_empty() || sets.iter().any(allows)
}

/// Whether `storeMatch[]` chooses an endpoint: any of its sets does. `__address__` is the endpoint's address.
pub fn chosen(address: &str, sets: &[Labels], store_matchers: &[Vec<Matcher>]) -> bool {
    let by_set = |set: &Vec<Matcher>| {
        let (on_address, on_labels): (Vec<_>, Vec<_>) =
            set.iter().cloned().partition(|m| &*m.name == "__address__");
        on_address.iter().all(|m| m.matches(address)) && label_sets_allow(sets, &on_labels)
    };
    store_matchers.is_empty() || store_matchers.iter().any(by_set)
}

#[cfg(test)]
mod tests {
    use model::MatchOp;
    use rpc::PeerStore;

    use super::*;

    fn peer(sets: &[&[(&str, &str)]], range: Option<TimeRange>) -> PeerInfo {
        let store =
            |range| PeerStore { range, strips_replica_labels: true, shards: true, tsdb_infos: vec![] };
        PeerInfo {
            apis: Default::default(),
            component: "store".into(),
            label_sets: sets.iter().map(|s| Labels::from_pairs(s.iter().copied()).unwrap()).collect(),
            store: range.map(store),
            node: None,
        }
    }

    #[test]
    fn times_and_labels() {
        let info = peer(&[&[("dc", "a")], &[("dc", "b"), ("tenant", "x")]], Some(TimeRange::new(100, 200)));
        let eq = |n, v| vec![Matcher::equal(n, v)];
        let within = TimeRange::new(150, 160);
        assert!(may_have(&info, TimeRange::new(200, 300), &[]));
        assert!(!may_have(&info, TimeRange::new(201, 300), &[]));
        assert!(may_have(&info, within, &eq("dc", "b")));
        assert!(!may_have(&info, within, &eq("dc", "c")));
        assert!(may_have(&info, within, &eq("job", "c")));
        assert!(!may_have(&info, within, &[Matcher::equal("dc", "b"), Matcher::equal("tenant", "y")]));
        assert!(may_have(&info, within, &[Matcher::new(MatchOp::NotRegex, "dc", "a|c").unwrap()]));
        assert!(!may_have(&peer(&[], None), within, &[]));
        assert!(may_have(&peer(&[], Some(TimeRange::ALL)), within, &eq("dc", "c")));
    }

    #[test]
    fn store_match() {
        let sets = peer(&[&[("dc", "a")]], None).label_sets;
        let set = |n, v| vec![Matcher::equal(n, v)];
        assert!(chosen("h:1", &sets, &[]));
        assert!(chosen("h:1", &sets, &[set("__address__", "h:1")]));
        assert!(!chosen("h:2", &sets, &[set("__address__", "h:1")]));
        assert!(chosen("h:2", &sets, &[set("__address__", "h:1"), set("dc", "a")]));
        assert!(!chosen("h:2", &sets, &[set("dc", "b")]));
    }
}
