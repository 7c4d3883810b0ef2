//! A ring that was agreed: the text of its file, how many copies, how many for an ack, and the table built of them.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use hashring::{Algorithm, Document, Rings};
use serde::{Deserialize, Serialize};

use crate::Error;

/// A ring file and the numbers that go with it, as proposed and stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RingPlan {
    /// The ring file, letter by letter.
    pub text: String,
    /// Copies of each series.
    pub replication: u8,
    /// Copies that an ack waits for.
    pub quorum: u8,
    /// Rings that name no algorithm use hashmod.
    #[serde(default)]
    pub hashmod: bool,
}

/// A plan that was checked, with its table. Equal where the plans are.
#[derive(Clone, Serialize, Deserialize)]
#[serde(into = "RingPlan", try_from = "RingPlan")]
pub struct Placed {
    inner: Arc<(RingPlan, Rings)>,
}

impl Placed {
    pub fn plan(&self) -> &RingPlan {
        &self.inner.0
    }

    pub fn rings(&self) -> &Rings {
        &self.inner.1
    }

    /// Answers of a replica set that between them have everything acked on it: RF - W + 1.
    pub fn readers(&self) -> usize {
        usize::from(self.plan().replication - self.plan().quorum) + 1
    }

    /// Addresses of the members, each once.
    pub fn members(&self) -> impl Iterator<Item = &str> {
        self.rings().endpoints().iter().map(|e| e.address.as_str())
    }

    pub fn has(&self, address: &str) -> bool {
        self.rings().index_of(address).is_some()
    }

    /// The replica set, if there is one, of which fewer than `needed` members have `has`. Members that are `lost` for
    /// good count for nothing, and a set that has lost more than it could spare needs all that are left of it.
    pub fn shortfall(
        &self,
        needed: usize,
        lost: impl Fn(&str) -> bool,
        has: impl Fn(&str) -> bool,
    ) -> Option<Vec<String>> {
        let endpoints = self.rings().endpoints();
        let lost: Vec<bool> = endpoints.iter().map(|e| lost(&e.address)).collect();
        let has: Vec<bool> = endpoints.iter().zip(&lost).map(|(e, lost)| !lost && has(&e.address)).collect();
        // As long as no set can lack more than it may, none has to be looked at.
        let spare = usize::from(self.plan().replication).saturating_sub(needed);
        if has.iter().filter(|has| !**has).count() <= spare {
            return None;
        }
        let short = |set: &[u16]| {
            let left = set.iter().filter(|e| !lost[usize::from(**e)]).count();
            set.iter().filter(|e| has[usize::from(**e)]).count() < needed.min(left)
        };
        let set = self.rings().rings().iter().find_map(|ring| ring.find_set(short))?;
        Some(set.iter().map(|e| endpoints[usize::from(*e)].address.clone()).collect())
    }
}

impl TryFrom<RingPlan> for Placed {
    type Error = Error;

    /// Checks the plan and builds its table, or shares that of an equal plan that is in use: a state has the same ring in
    /// many epochs.
    fn try_from(plan: RingPlan) -> Result<Placed, Error> {
        static IN_USE: Mutex<Vec<Weak<(RingPlan, Rings)>>> = Mutex::new(Vec::new());
        let known = |held: &[Weak<(RingPlan, Rings)>]| {
            held.iter().filter_map(Weak::upgrade).find(|inner| inner.0 == plan)
        };
        // A table is as good where somebody broke off beside it.
        if let Some(inner) = known(&IN_USE.lock().unwrap_or_else(PoisonError::into_inner)) {
            return Ok(Placed { inner });
        }
        let placed = Placed::build(plan)?;
        let mut held = IN_USE.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|inner| inner.strong_count() > 0);
        held.push(Arc::downgrade(&placed.inner));
        Ok(placed)
    }
}

impl Placed {
    fn build(plan: RingPlan) -> Result<Placed, Error> {
        let document = Document::parse(&plan.text).map_err(|e| Error::invalid(e.to_string()))?;
        let default = if plan.hashmod { Algorithm::Hashmod } else { Algorithm::Ketama };
        let rings = Rings::build(&document, usize::from(plan.replication), default)
            .map_err(|e| Error::invalid(e.to_string()))?;
        // Sets of replicas are looked at one by one here, and shards have more of them than can be listed.
        if rings.rings().iter().any(|ring| ring.is_sharded()) {
            return Err(Error::invalid(
                "shuffle_sharding_config is not supported by the control plane; run it with a ring file, without \
                 --control.voters",
            ));
        }
        if plan.quorum == 0 || plan.quorum > plan.replication {
            return Err(Error::invalid(format!(
                "a quorum of {} of {} copies is none; it is at least 1 and at most the replication factor",
                plan.quorum, plan.replication
            )));
        }
        Ok(Placed { inner: Arc::new((plan, rings)) })
    }
}

impl From<Placed> for RingPlan {
    fn from(placed: Placed) -> RingPlan {
        placed.plan().clone()
    }
}

impl PartialEq for Placed {
    fn eq(&self, other: &Placed) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner) || self.plan() == other.plan()
    }
}

impl Eq for Placed {}

impl Hash for Placed {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.rings().fingerprint().hash(state);
    }
}

impl fmt::Debug for Placed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.members()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn placed(members: usize, replication: u8, quorum: u8) -> Result<Placed, Error> {
        let endpoints: Vec<String> = (0..members).map(|n| format!("\"n{n}:1\"")).collect();
        let text = format!(r#"[{{"endpoints": [{}]}}]"#, endpoints.join(","));
        Placed::try_from(RingPlan { text, replication, quorum, hashmod: false })
    }

    #[test]
    fn a_set_that_lacks_answers_is_named() {
        let ring = placed(5, 3, 2).unwrap();
        assert_eq!(ring.readers(), 2);
        let nobody = |_: &str| false;
        assert_eq!(ring.shortfall(2, nobody, |a| a != "n0:1"), None);
        let short = ring.shortfall(2, nobody, |a| a != "n0:1" && a != "n3:1").unwrap();
        assert!(short.contains(&"n0:1".to_owned()) && short.contains(&"n3:1".to_owned()), "{short:?}");
        // What is lost for good cannot be waited for; who is left must have answered.
        let lost = |a: &str| a == "n0:1" || a == "n3:1";
        assert_eq!(ring.shortfall(2, lost, |_| true), None);
        assert!(ring.shortfall(2, lost, |a| a != "n1:1").is_some());
    }

    #[test]
    fn what_cannot_be_is_refused_and_what_can_survives_storing() {
        assert!(placed(2, 3, 2).unwrap_err().message.contains("2 endpoints cannot hold 3 copies"));
        assert!(placed(3, 3, 0).unwrap_err().message.contains("a quorum of 0"));
        assert!(placed(3, 3, 4).unwrap_err().message.contains("a quorum of 4"));
        let ring = placed(3, 3, 2).unwrap();
        let text = serde_json::to_string(&ring).unwrap();
        assert_eq!(serde_json::from_str::<Placed>(&text).unwrap(), ring);
        assert!(serde_json::from_str::<Placed>(&text.replace("n0:1", "n1:1")).is_err());
    }
}
