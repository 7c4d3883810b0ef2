//! Which of a pair of Prometheus servers is listened to.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::command::{Election, Outcome};
use crate::{Error, command};

/// The elected replica of a pair.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Elected {
    pub replica: String,
    /// Counts the elections of this pair.
    pub term: u64,
    /// What its predecessor sent reaches to here, in milliseconds.
    pub splice_from: i64,
    pub since: i64,
}

/// By tenant, then by the pair's name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Elections {
    by_tenant: BTreeMap<String, BTreeMap<String, Elected>>,
}

impl Elections {
    pub fn get(&self, tenant: &str, group: &str) -> Option<&Elected> {
        self.by_tenant.get(tenant)?.get(group)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&str, &str, &Elected)> {
        let tenants = self.by_tenant.iter();
        tenants.flat_map(|(tenant, all)| all.iter().map(move |(g, e)| (tenant.as_str(), g.as_str(), e)))
    }

    pub(crate) fn elect(&mut self, asked: command::Election) -> Result<Outcome, Error> {
        let Election { tenant, group, replica, expect, splice_from, time, cap } = asked;
        let term = self.get(&tenant, &group).map_or(0, |e| e.term);
        if term != expect {
            return Err(Error::refused(format!(
                "pair {group:?} of tenant {tenant:?} is in term {term}, not {expect}; look again"
            )));
        }
        let pairs = self.by_tenant.get(&tenant).map_or(0, BTreeMap::len);
        if term == 0 && pairs >= cap as usize {
            return Err(Error::refused(format!(
                "tenant {tenant:?} has {cap} pairs, which is its limit; raise it, or send fewer cluster names"
            )));
        }
        let pairs = self.by_tenant.entry(tenant).or_default();
        pairs.insert(group, Elected { replica, term: term + 1, splice_from, since: time });
        Ok(Outcome::Done)
    }
}
