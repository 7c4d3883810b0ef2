//! Elections that nobody has to agree on, remembered over a restart.
//!
//! After a restart the one that was listened to goes on, from where its last request was acknowledged; the others' last
//! requests were acknowledged and only held.

use std::path::Path;

use agreed::Elected as Stored;
use model::TenantId;
use runtime::World;
use serde::{Deserialize, Serialize};

use super::pair::Elected;
use super::tracker::Name;

#[derive(Debug, Default, Serialize, Deserialize)]
struct Content {
    elections: Vec<One>,
}

#[derive(Debug, Serialize, Deserialize)]
struct One {
    tenant: String,
    cluster: String,
    #[serde(flatten)]
    elected: Stored,
}

/// Reads the file; none where there is none. Blocks on the disk.
pub fn read(world: &World, path: &Path) -> Result<Vec<(Name, Elected)>, String> {
    if !world.disk.exists(path) {
        return Ok(Vec::new());
    }
    let bytes = world.disk.read(path).map_err(|error| error.to_string())?;
    let content: Content = serde_json::from_slice(&bytes).map_err(|error| error.to_string())?;
    let one = |one: One| {
        let tenant = TenantId::new(&one.tenant).map_err(|error| error.to_string())?;
        let Stored { replica, term, splice_from, since } = one.elected;
        Ok(((tenant, one.cluster), Elected { replica, term, splice_from, since }))
    };
    content.elections.into_iter().map(one).collect()
}

/// Writes it anew. Blocks on the disk.
pub fn write(world: &World, path: &Path, elections: Vec<(Name, Elected)>) -> Result<(), String> {
    let one = |((tenant, cluster), elected): (Name, Elected)| {
        let Elected { replica, term, splice_from, since } = elected;
        One {
            tenant: tenant.as_str().to_owned(),
            cluster,
            elected: Stored { replica, term, splice_from, since },
        }
    };
    let content = Content { elections: elections.into_iter().map(one).collect() };
    let bytes = serde_json::to_vec(&content).map_err(|error| error.to_string())?;
    world.disk.write_atomic(path, &bytes).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_elected_is_read_again_and_rubbish_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let (world, path) = (World::real(), dir.path().join("elections.json"));
        assert!(read(&world, &path).unwrap().is_empty());
        let name = (TenantId::new("t").unwrap(), "c".to_owned());
        let elected = Elected { replica: "r".to_owned(), term: 3, splice_from: -5, since: 7 };
        write(&world, &path, vec![(name.clone(), elected.clone())]).unwrap();
        assert_eq!(read(&world, &path).unwrap(), [(name, elected)]);
        world.disk.write_atomic(&path, b"{").unwrap();
        assert!(read(&world, &path).is_err());
    }
}
