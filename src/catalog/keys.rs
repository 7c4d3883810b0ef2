//! Keys of all families: a tenant, a zero byte, and a name within it. Tenant ids hold no zero byte.

use crate::Error;
use crate::error;

/// The key of `name` of a tenant.
pub(crate) fn key(tenant: &str, name: &str) -> Vec<u8> {
    let mut key = Vec::with_capacity(tenant.len() + 1 + name.len());
    key.extend_from_slice(tenant.as_bytes());
    key.push(0);
    key.extend_from_slice(name.as_bytes());
    key
}

/// Where a tenant's keys begin, and where they have ended.
pub(crate) fn range(tenant: &str) -> (Vec<u8>, Vec<u8>) {
    let (start, mut end) = (key(tenant, ""), key(tenant, ""));
    if let Some(last) = end.last_mut() {
        *last = 1;
    }
    (start, end)
}

/// Tenant and name of a key.
pub(crate) fn split(key: &[u8]) -> Option<(&str, &str)> {
    let at = key.iter().position(|b| *b == 0)?;
    Some((std::str::from_utf8(&key[..at]).ok()?, std::str::from_utf8(&key[at + 1..]).ok()?))
}

/// A key or value that this build does not understand, in words for [`error::damaged`].
pub(crate) fn strange(dir: &std::path::Path, family: &str, key: &[u8]) -> Error {
    error::damaged(dir, format!("family {family} has an entry that cannot be read: {}", key.escape_ascii()))
}
