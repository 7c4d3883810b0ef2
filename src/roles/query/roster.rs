//! What each endpoint is to the agreed ring, where there is one: an owner of what is not in the bucket yet, a receiver that
//! is not needed, or none of its receivers.
//!
//! An endpoint is a receiver of the ring by its address, or by the address under which it says that the ring has it (an
//! endpoint that was found by a name has another one). Of several ways to one receiver one is used.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use agreed::State as Agreed;

use crate::endpoints::Endpoint;

/// What an endpoint is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// What it says itself.
    Other,
    /// This receiver of the ring: a read has to ask it.
    Owner(String),
    /// A receiver of the ring that is asked another way, or whose data are in the bucket.
    Spare,
}

/// The ring as of the start of a query, and what the endpoints are to it.
#[derive(Clone, Debug, Default)]
pub struct Roster {
    /// None where rings are files.
    pub agreed: Option<Arc<Agreed>>,
    /// By endpoint, in the order of the list.
    pub parts: Vec<Part>,
    /// The latest ring epoch that a receiver of the ring has spoken of.
    pub heard: u64,
}

/// What is known of an endpoint.
struct Known<'a> {
    address: &'a str,
    /// As the ring has it.
    name: Option<String>,
    answers: bool,
    epoch: u64,
}

impl Roster {
    pub fn new(agreed: Option<Arc<Agreed>>, endpoints: &[Arc<Endpoint>]) -> Roster {
        let Some(agreed) = agreed else {
            return Roster { agreed: None, parts: vec![Part::Other; endpoints.len()], heard: 0 };
        };
        let ring = everybody(&agreed);
        let known: Vec<Known<'_>> = endpoints
            .iter()
            .map(|endpoint| {
                let state = endpoint.state();
                let node = state.info.as_ref().and_then(|info| info.node.as_ref());
                let said = node.map(|node| node.ring_address.as_str()).filter(|name| ring.contains(name));
                let own = Some(endpoint.address.as_str()).filter(|address| ring.contains(address));
                Known {
                    address: &endpoint.address,
                    name: own.or(said).map(str::to_owned),
                    answers: state.missing().is_none(),
                    epoch: node.map_or(0, |node| node.ring_epoch.max(endpoint.client.ring_epoch())),
                }
            })
            .collect();
        let parts = parts(&known, &agreed.to_ask());
        let heard = known.iter().filter(|one| one.name.is_some()).map(|one| one.epoch).max().unwrap_or(0);
        Roster { agreed: Some(agreed), parts, heard }
    }

    /// Whether receivers of the ring are in a later epoch than the last that is known here.
    pub fn is_behind(&self) -> bool {
        self.agreed.as_deref().and_then(|agreed| behind(agreed, self.heard)).is_some()
    }
}

/// What is wrong with an answer by this ring, where receivers have spoken of epoch `heard`.
pub fn behind(agreed: &Agreed, heard: u64) -> Option<String> {
    let known = agreed.current().map_or(0, |epoch| epoch.number);
    (known < heard).then(|| {
        format!(
            "receivers are in ring epoch {heard}, of which this querier has not heard: does it reach the control plane?"
        )
    })
}

/// Addresses of all that the ring knows of, or will.
fn everybody(agreed: &Agreed) -> BTreeSet<&str> {
    let members = agreed.epochs.iter().flat_map(|epoch| epoch.view.members());
    let warming = agreed.pending.iter().flat_map(|pending| pending.ring.members());
    members.chain(warming).chain(agreed.nodes.keys().map(String::as_str)).collect()
}

fn parts(known: &[Known<'_>], to_ask: &BTreeSet<&str>) -> Vec<Part> {
    let mut ways: BTreeMap<&str, usize> = BTreeMap::new();
    let better = |a: &Known<'_>, b: &Known<'_>| {
        let rank = |one: &Known<'_>| (one.answers, Some(one.address) == one.name.as_deref());
        rank(a) > rank(b)
    };
    for (at, one) in known.iter().enumerate() {
        let Some(name) = one.name.as_deref() else { continue };
        let way = ways.entry(name).or_insert(at);
        if better(one, &known[*way]) {
            *way = at;
        }
    }
    let part = |(at, one): (usize, &Known<'_>)| match one.name.as_deref() {
        None => Part::Other,
        Some(name) if to_ask.contains(name) && ways.get(name) == Some(&at) => Part::Owner(name.to_owned()),
        Some(_) => Part::Spare,
    };
    known.iter().enumerate().map(part).collect()
}

/// Whom a querier wants to know: those whom reads ask, and those who are about to be among them.
pub fn wanted(agreed: &Agreed) -> BTreeSet<String> {
    let warming = agreed.pending.iter().flat_map(|pending| pending.ring.members());
    agreed.to_ask().into_iter().chain(warming).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_owner_is_asked_one_way_and_who_is_not_needed_is_not() {
        let one = |address, name: Option<&str>, answers| Known {
            address,
            name: name.map(str::to_owned),
            answers,
            epoch: 0,
        };
        let to_ask = BTreeSet::from(["a:1", "b:1", "c:1"]);
        let owner = |name: &str| Part::Owner(name.to_owned());
        let known = [
            one("10.0.0.1:1", Some("a:1"), true),
            one("a:1", Some("a:1"), true),
            one("10.0.0.2:1", Some("b:1"), true),
            one("b:1", Some("b:1"), false),
            one("d:1", Some("d:1"), true),
            one("store:1", None, true),
            one("c:1", Some("c:1"), false),
        ];
        let want =
            [Part::Spare, owner("a:1"), owner("b:1"), Part::Spare, Part::Spare, Part::Other, owner("c:1")];
        assert_eq!(parts(&known, &to_ask), want);
    }
}
