//! Parts of a receiver that are read from files its settings name.

use ::settings::PathOrContent;
use bucket::Bucket;
use model::{Kind, TenantId};
use runtime::World;
use secure::Credentials;

use crate::ha::{self, Ha};
use crate::{Error, Settings};

/// Where blocks go, if anywhere: a router has none.
pub fn bucket(settings: &Settings, world: &World) -> Result<Option<Bucket>, Error> {
    let Some(document) = settings.objstore.document() else { return Ok(None) };
    if !settings.mode().stores() {
        return Ok(None);
    }
    let text =
        document.text(|path| world.disk.read(path)).map_err(|e| Error::new(Kind::Invalid, e.to_string()))?;
    let bucket = Bucket::from_yaml(&text, world).map_err(|error| {
        Error::with_source(error.kind, format!("objstore settings in {}: {error}", document.origin()), error)
    })?;
    Ok(Some(bucket))
}

/// HA pairs as this node watches them, with what it remembers of them.
pub fn pairs(settings: &Settings, world: &World) -> Ha {
    let stores = settings.mode().stores();
    let dir = || match stores {
        true => Some(settings.data_dir.clone()),
        // A router has no folder of its own but that of its hints.
        false => settings.replication.hints_dir.clone(),
    };
    let elections = stores.then(|| settings.data_dir.join("elections.json"));
    let ha = Ha::new(&settings.ha, world, elections, dir().map(|dir| dir.join("held-of-pairs")));
    ha::open(&ha);
    ha
}

/// Who may write, where a file says so.
pub fn credentials(settings: &Settings, world: &World) -> Result<Option<Credentials>, Error> {
    let Some(path) = &settings.tenancy.credentials else { return Ok(None) };
    let check = |tenant: &str| TenantId::new(tenant).map(drop).map_err(|error| error.to_string());
    let started = Credentials::start(world, path, check);
    started.map(Some).map_err(|e| Error::with_source(e.kind, format!("--receive.credentials-file: {e}"), e))
}

/// The relabelling rules, if any are given.
pub fn relabelling(settings: &Settings, world: &World) -> Result<relabel::Rules, Error> {
    let invalid = |error: String| Error::new(Kind::Invalid, error);
    let given = &settings.relabel;
    let document = PathOrContent::settle("receive.relabel-config", &given.text, &given.file)
        .map_err(|error| invalid(error.to_string()))?;
    let Some(document) = document else { return Ok(relabel::Rules::default()) };
    let text = document.text(|path| world.disk.read(path)).map_err(|error| invalid(error.to_string()))?;
    relabel::parse(&text).map_err(|error| invalid(format!("{}: {error}", document.origin())))
}
