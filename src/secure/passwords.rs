//! Basic authentication: names with bcrypt hashes, as exporter-toolkit keeps them.

use std::collections::{BTreeMap, HashSet};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use parking_lot::Mutex;
use ring::hmac;

use crate::Error;

/// Right pairs that are remembered, so that bcrypt, which is slow on purpose, runs once for each and not once a request.
const REMEMBERED: usize = 100;

/// Who may come in.
pub struct Passwords {
    users: BTreeMap<String, String>,
    /// Keyed hashes of pairs that were right.
    right: Mutex<HashSet<Vec<u8>>>,
    key: hmac::Key,
}

impl Passwords {
    /// Of names and their hashes; a hash that is none is an error. `key` is random, of this process.
    pub fn new(users: BTreeMap<String, String>, key: &[u8]) -> Result<Passwords, Error> {
        for (name, hash) in &users {
            if hash.parse::<bcrypt::HashParts>().is_err() {
                return Err(Error::invalid(format!(
                    "basic_auth_users: what stands for {name:?} is no bcrypt hash; make one with `htpasswd -nBC 10`"
                )));
            }
        }
        Ok(Passwords { users, right: Mutex::default(), key: hmac::Key::new(hmac::HMAC_SHA256, key) })
    }

    /// Whether anybody has to say who they are.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// The name of whoever sent the headers, if their password is right. Slow the first time: run it on a thread that
    /// may compute.
    pub fn check(&self, headers: &HeaderMap) -> Option<String> {
        let text = headers.get(AUTHORIZATION)?.to_str().ok()?;
        let (scheme, encoded) = text.split_once(' ')?;
        if !scheme.eq_ignore_ascii_case("basic") {
            return None;
        }
        let pair = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
        let (name, password) = pair.split_once(':')?;
        let key = hmac::sign(&self.key, pair.as_bytes()).as_ref().to_vec();
        if self.users.contains_key(name) && self.right.lock().contains(&key) {
            return Some(name.to_owned());
        }
        // An unknown name costs as much as a known one, so that time does not tell which names there are.
        const NOBODY: &str = "$2b$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy";
        let hash = self.users.get(name).map_or(NOBODY, String::as_str);
        let good = bcrypt::verify(password, hash).unwrap_or(false) && self.users.contains_key(name);
        if !good {
            return None;
        }
        let mut right = self.right.lock();
        if right.len() >= REMEMBERED {
            right.clear();
        }
        right.insert(key);
        Some(name.to_owned())
    }
}
