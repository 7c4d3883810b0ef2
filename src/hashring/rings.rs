//! The rings of a document, built for a replication factor, behind one list of endpoints.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::Labels;
use parking_lot::Mutex;
use xxhash_rust::xxh64::xxh64;

use crate::shuffle::{Recent, Shuffle};
use crate::{Algorithm, Document, Endpoint, Error, RingSpec, TenantMatch, ketama};

/// Index into [`Rings::endpoints`].
pub type EndpointIndex = u16;

/// Every ring of a file, ready for lookups.
#[derive(Clone, Debug)]
pub struct Rings {
    rings: Vec<Arc<Ring>>,
    endpoints: Vec<Endpoint>,
    replication_factor: usize,
    fingerprint: u64,
}

/// One ring.
#[derive(Clone, Debug)]
pub struct Ring {
    name: String,
    tenants: TenantMatch,
    external_labels: Labels,
    placement: Placement,
    shards: Option<Arc<Shards>>,
}

/// Rings of tenants within a ring.
#[derive(Debug)]
struct Shards {
    shuffle: Shuffle,
    /// Of the ring's own list, and where they stand in the list of all rings.
    endpoints: Vec<Endpoint>,
    global: Vec<EndpointIndex>,
    sections: Vec<(u64, u16)>,
    copies: usize,
    recent: Mutex<Recent<Ring>>,
}

#[derive(Clone, Debug)]
enum Placement {
    /// The table's own indices are translated to [`EndpointIndex`] when it is built.
    Ketama { table: ketama::Table, size: usize },
    /// Endpoints by address, followed by the first ones again, so that any run of replicas is one slice.
    Hashmod { order: Vec<EndpointIndex>, size: usize, copies: usize },
}

impl Rings {
    /// Builds every ring of `document` for `replication_factor` copies; rings that name no algorithm use
    /// `default`.
    pub fn build(document: &Document, replication_factor: usize, default: Algorithm) -> Result<Rings, Error> {
        if replication_factor == 0 {
            return Err(Error::new("the replication factor is 0; it must be 1 at least"));
        }
        let mut endpoints: Vec<Endpoint> = Vec::new();
        let mut index: BTreeMap<String, EndpointIndex> = BTreeMap::new();
        let mut rings = Vec::with_capacity(document.rings.len());
        for (at, spec) in document.rings.iter().enumerate() {
            let place =
                |error: Error| Error { message: format!("{}: {}", title(at, spec), error.message), ..error };
            let mut global = Vec::with_capacity(spec.endpoints.len());
            for endpoint in &spec.endpoints {
                let next = endpoints.len();
                let known = match index.get(&endpoint.address) {
                    Some(known) => *known,
                    None => {
                        let new = EndpointIndex::try_from(next)
                            .map_err(|_| place(Error::new("more than 65536 endpoints")))?;
                        index.insert(endpoint.address.clone(), new);
                        endpoints.push(endpoint.clone());
                        new
                    }
                };
                global.push(known);
            }
            let placement = placement(spec, &global, replication_factor, default).map_err(place)?;
            let shards = shards(spec, &global, &placement, replication_factor).map_err(place)?;
            rings.push(Arc::new(Ring {
                name: spec.name.clone(),
                tenants: spec.tenants.clone(),
                external_labels: spec.external_labels.clone(),
                placement,
                shards: shards.map(Arc::new),
            }));
        }
        if rings.is_empty() {
            return Err(Error::new("there is no ring"));
        }
        let fingerprint = fingerprint(document, replication_factor, default);
        Ok(Rings { rings, endpoints, replication_factor, fingerprint })
    }

    /// The ring that takes the tenant's writes: the first whose tenants match, or the tenant's shard of it.
    pub fn resolve(&self, tenant: &str) -> Option<Arc<Ring>> {
        let ring = self.rings.iter().find(|ring| ring.tenants.matches(tenant))?;
        Some(match &ring.shards {
            None => Arc::clone(ring),
            Some(shards) => shards.of(tenant, ring),
        })
    }

    /// Labels that the file adds to the blocks of `tenant`: of the first ring that lists it by name.
    pub fn external_labels(&self, tenant: &str) -> Labels {
        let ring = self.rings.iter().find(|ring| ring.tenants.lists(tenant));
        ring.map(|r| r.external_labels.clone()).unwrap_or_default()
    }

    /// Every endpoint of every ring, each address once.
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// Where `address` stands in [`Rings::endpoints`], spelled as in the file.
    pub fn index_of(&self, address: &str) -> Option<EndpointIndex> {
        self.endpoints.iter().position(|e| e.address == address).map(|at| at as EndpointIndex)
    }

    pub fn replication_factor(&self) -> usize {
        self.replication_factor
    }

    pub fn rings(&self) -> &[Arc<Ring>] {
        &self.rings
    }

    /// Equal for equal placements; for metrics and comparison, not for security.
    pub fn fingerprint(&self) -> u64 {
        self.fingerprint
    }
}

impl Shards {
    fn of(&self, tenant: &str, whole: &Arc<Ring>) -> Arc<Ring> {
        let name = [("hashring", whole.name.clone())];
        metrics::counter!("thanos_shuffle_shard_cache_requests_total", &name).increment(1);
        if let Some(known) = self.recent.lock().get(tenant) {
            metrics::counter!("thanos_shuffle_shard_cache_hits_total", &name).increment(1);
            return known;
        }
        let chosen = self.shuffle.choose(tenant, &self.endpoints, &self.sections);
        let endpoints: Vec<Endpoint> =
            chosen.iter().map(|at| self.endpoints[usize::from(*at)].clone()).collect();
        let global: Vec<EndpointIndex> = chosen.iter().map(|at| self.global[usize::from(*at)]).collect();
        let Ok(mut table) = ketama::build(&endpoints, self.copies) else {
            // The whole ring was built of the same sections, so that these cannot collide.
            return Arc::clone(whole);
        };
        table.rename(&global);
        let shard = Arc::new(Ring {
            name: whole.name.clone(),
            tenants: whole.tenants.clone(),
            external_labels: whole.external_labels.clone(),
            placement: Placement::Ketama { table, size: endpoints.len() },
            shards: None,
        });
        let mut recent = self.recent.lock();
        if recent.put(tenant, Arc::clone(&shard)) {
            metrics::counter!("thanos_shuffle_shard_cache_evicted_total", &name).increment(1);
        }
        metrics::gauge!("thanos_shuffle_shard_cache_items", &name).set(recent.len() as f64);
        metrics::gauge!("thanos_shuffle_shard_cache_max_items", &name).set(self.shuffle.cached as f64);
        shard
    }
}

impl Ring {
    /// Whether tenants have shards of it; what is said of it is then said of all shards together.
    pub fn is_sharded(&self) -> bool {
        self.shards.is_some()
    }

    /// For logs and metrics; may be empty.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The endpoints that hold a series, replica 0 first, as many as the replication factor says. `hash` is
    /// `Labels::placement_hash`. No allocation; one binary search.
    pub fn replicas(&self, hash: u64) -> &[EndpointIndex] {
        match &self.placement {
            Placement::Ketama { table, .. } => table.replicas(hash),
            Placement::Hashmod { order, size, copies } => {
                let at = (hash % *size as u64) as usize;
                &order[at..at + copies]
            }
        }
    }

    /// The first set of replicas for which `test` holds; every set that a series can have is offered.
    pub fn find_set(&self, mut test: impl FnMut(&[EndpointIndex]) -> bool) -> Option<&[EndpointIndex]> {
        match &self.placement {
            Placement::Ketama { table, .. } => table.sections().map(|(_, set)| set).find(|set| test(set)),
            Placement::Hashmod { order, copies, .. } => order.windows(*copies).find(|set| test(set)),
        }
    }

    /// Number of endpoints of this ring.
    pub fn len(&self) -> usize {
        match &self.placement {
            Placement::Ketama { size, .. } | Placement::Hashmod { size, .. } => *size,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn algorithm(&self) -> Algorithm {
        match self.placement {
            Placement::Ketama { .. } => Algorithm::Ketama,
            Placement::Hashmod { .. } => Algorithm::Hashmod,
        }
    }

    /// End and replicas of each section, ascending; empty under hashmod, which has none.
    pub fn sections(&self) -> Box<dyn Iterator<Item = (u64, &[EndpointIndex])> + '_> {
        match &self.placement {
            Placement::Ketama { table, .. } => Box::new(table.sections()),
            Placement::Hashmod { .. } => Box::new(std::iter::empty()),
        }
    }
}

fn title(at: usize, spec: &RingSpec) -> String {
    match spec.name.as_str() {
        "" => format!("ring [{at}]"),
        name => format!("ring [{at}] {name:?}"),
    }
}

fn placement(
    spec: &RingSpec,
    global: &[EndpointIndex],
    copies: usize,
    default: Algorithm,
) -> Result<Placement, Error> {
    let size = global.len();
    if size < copies {
        return Err(Error::new(format!(
            "{size} endpoints cannot hold {copies} copies; add endpoints or lower the replication factor"
        )));
    }
    match spec.algorithm.unwrap_or(default) {
        Algorithm::Ketama => {
            let mut table = ketama::build(&spec.endpoints, copies)?;
            table.rename(global);
            Ok(Placement::Ketama { table, size })
        }
        Algorithm::Hashmod => {
            if spec.endpoints.iter().any(|e| !e.zone.is_empty()) {
                return Err(Error::new("hashmod knows no zones: remove az, or use the ketama algorithm"));
            }
            let mut order: Vec<usize> = (0..size).collect();
            order.sort_by(|a, b| spec.endpoints[*a].address.cmp(&spec.endpoints[*b].address));
            let order = order.iter().cycle().take(size + copies - 1).map(|at| global[*at]).collect();
            Ok(Placement::Hashmod { order, size, copies })
        }
    }
}

fn shards(
    spec: &RingSpec,
    global: &[EndpointIndex],
    placement: &Placement,
    copies: usize,
) -> Result<Option<Shards>, Error> {
    let Some(said) = &spec.shuffle_sharding else { return Ok(None) };
    let Placement::Ketama { table, .. } = placement else {
        return Err(Error::new("hashmod knows no shuffle_sharding_config; use the ketama algorithm"));
    };
    let shuffle = Shuffle::new(said, &spec.endpoints, copies)?;
    let place =
        |global_index: EndpointIndex| global.iter().position(|at| *at == global_index).unwrap_or(0) as u16;
    let sections = table.sections().map(|(end, replicas)| (end, place(replicas[0]))).collect();
    let recent = Mutex::new(Recent::new(shuffle.cached));
    let (endpoints, global) = (spec.endpoints.clone(), global.to_vec());
    Ok(Some(Shards { shuffle, endpoints, global, sections, copies, recent }))
}

/// Over everything that decides where a series goes.
fn fingerprint(document: &Document, replication_factor: usize, default: Algorithm) -> u64 {
    let mut text = format!("{replication_factor}\n");
    for spec in &document.rings {
        let algorithm = spec.algorithm.unwrap_or(default).name();
        text.push_str(&format!("{algorithm} {:?}\n", spec.tenants));
        if let Some(shuffle) = &spec.shuffle_sharding {
            text.push_str(&format!("{shuffle:?}\n"));
        }
        for endpoint in &spec.endpoints {
            text.push_str(&format!("{:?} {:?}\n", endpoint.address, endpoint.zone));
        }
    }
    xxh64(text.as_bytes(), 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rings(text: &str, copies: usize) -> Result<Rings, Error> {
        Rings::build(&Document::parse(text).unwrap(), copies, Algorithm::Ketama)
    }

    #[test]
    fn first_match_wins_and_endpoints_are_shared() {
        let rings = rings(
            r#"[{"hashring": "vip", "tenants": ["a"], "endpoints": ["x:1", "y:1"], "external_labels": {"tier": "1"}},
                {"hashring": "teams", "tenants": ["team-*", "lone"], "tenant_matcher_type": "glob",
                 "endpoints": ["y:1", "z:1"], "external_labels": {"tier": "2"}},
                {"hashring": "rest", "endpoints": ["z:1", "x:1"]}]"#,
            2,
        )
        .unwrap();
        let ring = |tenant: &str| rings.resolve(tenant).unwrap().name().to_owned();
        assert_eq!([ring("a"), ring("team-b"), ring("c")], ["vip", "teams", "rest"]);
        let addresses: Vec<_> = rings.endpoints().iter().map(|e| e.address.as_str()).collect();
        assert_eq!(addresses, ["x:1", "y:1", "z:1"]);
        for key in [0, 1 << 40, u64::MAX] {
            let mut held = rings.resolve("team-b").unwrap().replicas(key).to_vec();
            held.sort_unstable();
            assert_eq!(held, [1, 2]);
        }
        // By literal name only, as Thanos does it: a name that merely matches a pattern gets none.
        assert_eq!(rings.external_labels("a").get("tier"), Some("1"));
        assert_eq!(rings.external_labels("lone").get("tier"), Some("2"));
        assert_eq!(rings.external_labels("team-b").get("tier"), None);
    }

    #[test]
    fn no_default_ring_means_no_match() {
        let rings = rings(r#"[{"tenants": ["a"], "endpoints": ["x:1"]}]"#, 1).unwrap();
        assert!(rings.resolve("b").is_none());
    }

    #[test]
    fn what_cannot_hold_is_refused() {
        for (text, copies, part) in [
            (
                r#"[{"hashring": "r", "endpoints": ["x:1", "y:1"]}]"#,
                3,
                "ring [0] \"r\": 2 endpoints cannot hold 3 copies",
            ),
            (r#"[{"endpoints": ["x:1"]}]"#, 0, "replication factor is 0"),
            (
                r#"[{"endpoints": [{"address": "x:1", "az": "a"}], "algorithm": "hashmod"}]"#,
                1,
                "knows no zones",
            ),
            (
                r#"[{"endpoints": ["x:1", "y:1"], "shuffle_sharding_config": {"shard_size": 3}}]"#,
                1,
                "shard_size 3 is more than the 2 endpoints",
            ),
            (
                r#"[{"endpoints": ["x:1", "y:1"], "shuffle_sharding_config": {"shard_size": 1}}]"#,
                2,
                "too small for 2 copies",
            ),
            (
                r#"[{"endpoints": [{"address": "x:1", "az": "a"}, {"address": "y:1", "az": "a"}, {"address": "z:1", "az": "b"}],
                     "shuffle_sharding_config": {"shard_size": 3}}]"#,
                1,
                "takes 2 endpoints of each zone, and zone \"b\" has 1",
            ),
            (
                r#"[{"endpoints": ["x:1"], "shuffle_sharding_config": {"shard_size": 1, "overrides": [
                     {"shard_size": 1, "tenants": ["a"]}]}}]"#,
                1,
                "matches nobody",
            ),
            (
                r#"[{"endpoints": ["x:1"], "algorithm": "hashmod", "shuffle_sharding_config": {"shard_size": 1}}]"#,
                1,
                "hashmod knows no shuffle",
            ),
        ] {
            let error = rings(text, copies).unwrap_err();
            assert!(error.to_string().contains(part), "{error}");
        }
    }

    #[test]
    fn hashmod_counts_on_from_the_remainder() {
        let rings = rings(r#"[{"endpoints": ["c:1", "a:1", "b:1"], "algorithm": "hashmod"}]"#, 2).unwrap();
        let ring = rings.resolve("any").unwrap();
        let names = |hash| {
            ring.replicas(hash)
                .iter()
                .map(|r| rings.endpoints()[*r as usize].address.as_str())
                .collect::<Vec<_>>()
        };
        assert_eq!(names(0), ["a:1", "b:1"]);
        assert_eq!(names(5), ["c:1", "a:1"]);
    }

    #[test]
    fn shards_are_small_rings_that_a_tenants_name_chooses() {
        let text = r#"[{"hashring": "s", "endpoints": [
                {"address": "a:1", "az": "x"}, {"address": "b:1", "az": "x"}, {"address": "c:1", "az": "x"},
                {"address": "d:1", "az": "y"}, {"address": "e:1", "az": "y"}, {"address": "f:1", "az": "y"}],
              "shuffle_sharding_config": {"shard_size": 2, "cache_size": 3,
                "overrides": [{"shard_size": 5, "tenants": ["big-*"], "tenant_matcher_type": "glob"}]}}]"#;
        let rings = rings(text, 2).unwrap();
        let set_of = |tenant: &str| -> Vec<EndpointIndex> {
            let ring = rings.resolve(tenant).unwrap();
            let mut all: Vec<_> = ring.sections().flat_map(|(_, set)| set.to_vec()).collect();
            all.sort_unstable();
            all.dedup();
            assert_eq!(all.len(), ring.len());
            all
        };
        let mut seen = std::collections::BTreeSet::new();
        for tenant in 0..100 {
            let set = set_of(&tenant.to_string());
            // One of each zone.
            assert!(set.len() == 2 && set[0] < 3 && set[1] >= 3, "{set:?}");
            assert_eq!(set, set_of(&tenant.to_string()));
            seen.insert(set);
        }
        assert_eq!(seen.len(), 9, "every pair is somebody's");
        assert_eq!(set_of("big-one").len(), 6, "three of each zone");
        assert!(rings.rings()[0].is_sharded() && !rings.resolve("t").unwrap().is_sharded());
    }

    #[test]
    fn fingerprint_follows_placement() {
        let of = |text, copies| rings(text, copies).unwrap().fingerprint();
        let base = of(r#"[{"endpoints": ["a:1", "b:1"]}]"#, 1);
        assert_eq!(
            base,
            of(r#"[{"hashring": "named", "endpoints": ["a:1", "b:1"], "algorithm": "ketama"}]"#, 1)
        );
        assert_ne!(base, of(r#"[{"endpoints": ["a:1", "b:1"]}]"#, 2));
        assert_ne!(base, of(r#"[{"endpoints": ["a:1", "b:2"]}]"#, 1));
    }
}
