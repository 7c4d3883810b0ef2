//! The owner of series and limits, safe to use as a file or object name.

use std::fmt;
use std::sync::Arc;

/// A tenant id: 1 to 150 characters of `[A-Za-z0-9!_.*'()-]`, never `.` or `..`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantId(Arc<str>);

/// Why a text is not a tenant id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTenant {
    #[error("tenant id is empty")]
    Empty,
    #[error("tenant id is {0} bytes long; at most 150 are allowed")]
    TooLong(usize),
    #[error("tenant id {0:?} is a path, not a name")]
    Dots(String),
    #[error("tenant id {id:?} contains {character:?}; allowed are letters, digits and !_.*'()-")]
    Character { id: String, character: char },
}

impl TenantId {
    /// Longest id, in bytes.
    pub const MAX_LEN: usize = 150;

    /// Checks and keeps `id`.
    pub fn new(id: &str) -> Result<TenantId, InvalidTenant> {
        if id.is_empty() {
            return Err(InvalidTenant::Empty);
        }
        if id.len() > Self::MAX_LEN {
            return Err(InvalidTenant::TooLong(id.len()));
        }
        if id == "." || id == ".." {
            return Err(InvalidTenant::Dots(id.to_owned()));
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || "!_.*'()-".contains(c);
        match id.chars().find(|&c| !allowed(c)) {
            Some(character) => Err(InvalidTenant::Character { id: id.to_owned(), character }),
            None => Ok(TenantId(id.into())),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&*self.0, f)
    }
}

impl std::borrow::Borrow<str> for TenantId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_refused() {
        for bad in ["", ".", "..", "a/b", "a\\b", "ä", "a b", "a\0"] {
            assert!(TenantId::new(bad).is_err(), "{bad:?}");
        }
        assert!(TenantId::new(&"x".repeat(151)).is_err());
        for good in ["default-tenant", "a.b", "...", "it's(1)*!_"] {
            assert_eq!(TenantId::new(good).unwrap().as_str(), good);
        }
    }
}
