//! Shuffle sharding: a tenant's own small ring, of endpoints that its name chooses; Thanos's choice.
//!
//! Nothing is remembered of earlier choices: name, endpoints and size decide. Rings are worked out when a tenant first
//! writes and kept for those who wrote last.

use std::collections::HashMap;
use std::sync::Arc;

use md5::{Digest, Md5};

use crate::document::{ShuffleOverride, ShuffleSharding};
use crate::gorand::GoRand;
use crate::{Endpoint, Error, Glob};

/// Rings kept where the file does not say how many.
const CACHED: usize = 100;

/// The rules of one ring, checked against its endpoints.
#[derive(Clone, Debug)]
pub(crate) struct Shuffle {
    size: usize,
    zones: bool,
    overrides: Vec<(Tenants, usize)>,
    pub cached: usize,
}

#[derive(Clone, Debug)]
enum Tenants {
    Exact(Vec<String>),
    Glob(Vec<Glob>),
}

impl Tenants {
    fn of(rule: &ShuffleOverride) -> Result<Tenants, Error> {
        match rule.tenant_matcher_type.as_str() {
            "exact" => Ok(Tenants::Exact(rule.tenants.clone())),
            "glob" => {
                let globs: Result<Vec<_>, _> = rule.tenants.iter().map(|t| Glob::new(t)).collect();
                let wrong = |why| Error::new(format!("shuffle_sharding_config.overrides: tenants: {why}"));
                globs.map(Tenants::Glob).map_err(wrong)
            }
            other => Err(Error::new(format!(
                "shuffle_sharding_config.overrides: tenant_matcher_type {other:?} matches nobody; write \"exact\" or \
                 \"glob\""
            ))),
        }
    }

    fn matches(&self, tenant: &str) -> bool {
        match self {
            Tenants::Exact(names) => names.iter().any(|name| name == tenant),
            Tenants::Glob(globs) => globs.iter().any(|glob| glob.as_str() == tenant || glob.matches(tenant)),
        }
    }
}

impl Shuffle {
    /// Checks what the file says; a size that no tenant could ever be given is refused here and not at its first write.
    pub(crate) fn new(
        said: &ShuffleSharding,
        endpoints: &[Endpoint],
        copies: usize,
    ) -> Result<Shuffle, Error> {
        let mut shuffle = Shuffle {
            size: 0,
            zones: !said.zone_awareness_disabled,
            overrides: Vec::new(),
            cached: usize::try_from(said.cache_size).ok().filter(|n| *n > 0).unwrap_or(CACHED),
        };
        shuffle.size = shuffle.checked(said.shard_size, endpoints, copies)?;
        for rule in &said.overrides {
            let size = shuffle.checked(rule.shard_size, endpoints, copies)?;
            shuffle.overrides.push((Tenants::of(rule)?, size));
        }
        Ok(shuffle)
    }

    fn checked(&self, size: i64, endpoints: &[Endpoint], copies: usize) -> Result<usize, Error> {
        let wrong =
            |why: String| Err(Error::new(format!("shuffle_sharding_config: shard_size {size} {why}")));
        let size = match usize::try_from(size) {
            Ok(size) if size > endpoints.len() => {
                return wrong(format!("is more than the {} endpoints", endpoints.len()));
            }
            Ok(size) if size > 0 => size,
            _ => return wrong("must be 1 at least".to_owned()),
        };
        let groups = self.groups(endpoints);
        let take = size.div_ceil(groups.len());
        if let Some((zone, members)) = groups.iter().find(|(_, members)| members.len() < take) {
            return wrong(format!(
                "takes {take} endpoints of each zone, and zone {zone:?} has {}",
                members.len()
            ));
        }
        let all = take * groups.len();
        if all < copies {
            return wrong(format!("is too small for {copies} copies"));
        }
        Ok(size)
    }

    /// Endpoints by zone, or all of them as one.
    fn groups<'a>(&self, endpoints: &'a [Endpoint]) -> Vec<(&'a str, Vec<u16>)> {
        let mut groups: Vec<(&str, Vec<u16>)> = Vec::new();
        for (at, endpoint) in endpoints.iter().enumerate() {
            let zone = if self.zones { endpoint.zone.as_str() } else { "" };
            match groups.iter_mut().find(|(name, _)| *name == zone) {
                Some((_, members)) => members.push(at as u16),
                None => groups.push((zone, vec![at as u16])),
            }
        }
        groups
    }

    fn size_of(&self, tenant: &str) -> usize {
        let rule = self.overrides.iter().find(|(tenants, _)| tenants.matches(tenant));
        rule.map_or(self.size, |(_, size)| *size)
    }

    /// The tenant's endpoints, by their place in the ring's list, ascending. `sections` are the whole ring's ends and
    /// owners, ascending.
    pub(crate) fn choose(&self, tenant: &str, endpoints: &[Endpoint], sections: &[(u64, u16)]) -> Vec<u16> {
        let groups = self.groups(endpoints);
        let take = self.size_of(tenant).div_ceil(groups.len());
        let mut chosen: Vec<u16> = Vec::with_capacity(take * groups.len());
        for (zone, members) in groups {
            let own: Vec<_> = sections.iter().filter(|(_, owner)| members.contains(owner)).collect();
            let mut numbers = GoRand::new(seed(tenant, zone));
            for _ in 0..take.min(members.len()) {
                let number = numbers.next_u64();
                let from = own.partition_point(|(end, _)| *end < number);
                let around = own[from..].iter().chain(&own[..from]);
                let next = around.map(|(_, owner)| *owner).find(|owner| !chosen.contains(owner));
                chosen.extend(next);
            }
        }
        chosen.sort_unstable();
        chosen
    }
}

/// The first eight bytes of the MD5 of tenant and zone; an empty zone is not written.
fn seed(tenant: &str, zone: &str) -> i64 {
    let mut hash = Md5::new();
    hash.update(tenant.as_bytes());
    if !zone.is_empty() {
        hash.update([0]);
        hash.update(zone.as_bytes());
    }
    let digest = hash.finalize();
    digest.iter().take(8).fold(0i64, |seed, byte| seed << 8 | i64::from(*byte))
}

/// What was worked out for the tenants who asked last.
#[derive(Debug)]
pub(crate) struct Recent<T> {
    most: usize,
    turn: u64,
    kept: HashMap<String, (u64, Arc<T>)>,
}

impl<T> Recent<T> {
    pub(crate) fn new(most: usize) -> Recent<T> {
        Recent { most: most.max(1), turn: 0, kept: HashMap::new() }
    }

    pub(crate) fn get(&mut self, tenant: &str) -> Option<Arc<T>> {
        self.turn += 1;
        let (used, kept) = self.kept.get_mut(tenant)?;
        *used = self.turn;
        Some(Arc::clone(kept))
    }

    /// Keeps one; true if another had to go.
    pub(crate) fn put(&mut self, tenant: &str, ring: Arc<T>) -> bool {
        self.turn += 1;
        self.kept.insert(tenant.to_owned(), (self.turn, ring));
        if self.kept.len() <= self.most {
            return false;
        }
        let oldest = self.kept.iter().min_by_key(|(_, (used, _))| *used).map(|(tenant, _)| tenant.clone());
        oldest.is_some_and(|tenant| self.kept.remove(&tenant).is_some())
    }

    pub(crate) fn len(&self) -> usize {
        self.kept.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds() {
        // MD5("") is d41d8cd98f00b204..., MD5("a") 0cc175b9c0f1b6a8...
        assert_eq!(seed("", ""), 0xd41d_8cd9_8f00_b204_u64 as i64);
        assert_eq!(seed("a", ""), 0x0cc1_75b9_c0f1_b6a8);
        assert_ne!(seed("a", "z"), seed("az", ""));
    }

    #[test]
    fn who_asked_last_is_kept() {
        let mut recent = Recent::new(2);
        assert!(!recent.put("a", Arc::new(1)) && !recent.put("b", Arc::new(2)));
        assert_eq!(recent.get("a"), Some(Arc::new(1)));
        assert!(recent.put("c", Arc::new(3)));
        assert_eq!((recent.get("b"), recent.len()), (None, 2));
    }
}
