//! Who does a job of which there must be one: a token that only grows fences whoever was too slow.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::command::Outcome;

/// A job that somebody does.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Lease {
    pub holder: String,
    /// Greater than that of everybody who held this job, or any other, before.
    pub token: u64,
    /// Milliseconds, by the proposer's clock.
    pub until: i64,
}

/// The jobs, and the last token given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Leases {
    last: u64,
    jobs: BTreeMap<String, Lease>,
}

impl Leases {
    pub fn get(&self, job: &str) -> Option<&Lease> {
        self.jobs.get(job)
    }

    pub(crate) fn take(
        &mut self,
        job: String,
        holder: String,
        token: Option<u64>,
        time: i64,
        ttl: i64,
    ) -> Result<Outcome, Error> {
        let until = time.saturating_add(ttl.max(0));
        if let Some(lease) = self.jobs.get_mut(&job) {
            if token == Some(lease.token) && lease.holder == holder {
                lease.until = lease.until.max(until);
                return Ok(Outcome::Leased { token: lease.token });
            }
            if time < lease.until {
                return Err(Error::later(format!("{job} is held by {} for now", lease.holder)));
            }
        }
        if token.is_some() {
            return Err(Error::refused(format!(
                "{job} was given to somebody else meanwhile; what was done is void"
            )));
        }
        self.last += 1;
        self.jobs.insert(job, Lease { holder, token: self.last, until });
        Ok(Outcome::Leased { token: self.last })
    }

    pub(crate) fn release(&mut self, job: &str, token: u64) -> Outcome {
        if self.jobs.get(job).is_some_and(|lease| lease.token == token) {
            self.jobs.remove(job);
            return Outcome::Done;
        }
        Outcome::Already
    }
}
