//! Basic authentication: names with bcrypt hashes, as exporter-toolkit keeps them.

use std::collections::{BTreeMap, HashSet};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use parking_lot::Mutex;
use ring::hmac;

use crate::Error;

/// Pairs of either kind that are remembered, so that bcrypt, which is slow on purpose, runs once for each and not once a
/// request.
const REMEMBERED: usize = 100;

/// Who may come in.
pub struct Passwords {
    users: BTreeMap<String, String>,
    seen: Mutex<Seen>,
    key: hmac::Key,
}

/// Keyed hashes of pairs. Wrong ones are kept apart: who guesses does not make the right ones forgotten.
#[derive(Default)]
struct Seen {
    right: HashSet<Vec<u8>>,
    wrong: HashSet<Vec<u8>>,
}

/// What is known of a request without reckoning.
pub(crate) enum Glance {
    Right(String),
    Wrong,
    /// [`Passwords::check`] tells.
    Unknown,
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
        Ok(Passwords { users, seen: Mutex::default(), key: hmac::Key::new(hmac::HMAC_SHA256, key) })
    }

    /// Whether anybody has to say who they are.
    pub fn is_empty(&self) -> bool {
        self.users.is_empty()
    }

    /// What is remembered of whoever sent the headers. Fast.
    pub(crate) fn glance(&self, headers: &HeaderMap) -> Glance {
        let Some(pair) = pair(headers) else { return Glance::Wrong };
        let Some((name, _)) = pair.split_once(':') else { return Glance::Wrong };
        let (key, seen) = (self.key_of(&pair), self.seen.lock());
        if seen.right.contains(&key) && self.users.contains_key(name) {
            return Glance::Right(name.to_owned());
        }
        match seen.wrong.contains(&key) {
            true => Glance::Wrong,
            false => Glance::Unknown,
        }
    }

    /// The name of whoever sent the headers, if their password is right. Slow the first time: run it on a thread that
    /// may compute.
    pub fn check(&self, headers: &HeaderMap) -> Option<String> {
        match self.glance(headers) {
            Glance::Right(name) => return Some(name),
            Glance::Wrong => return None,
            Glance::Unknown => {}
        }
        let pair = pair(headers)?;
        let (name, password) = pair.split_once(':')?;
        // An unknown name costs as much as a known one, so that time does not tell which names there are.
        const NOBODY: &str = "$2b$10$N9qo8uLOickgx2ZMRZoMyeIjZAgcfl7p92ldGxad68LJZdL17lhWy";
        let hash = self.users.get(name).map_or(NOBODY, String::as_str);
        let good = bcrypt::verify(password, hash).unwrap_or(false) && self.users.contains_key(name);
        let (key, mut seen) = (self.key_of(&pair), self.seen.lock());
        let kept = if good { &mut seen.right } else { &mut seen.wrong };
        if kept.len() >= REMEMBERED {
            kept.clear();
        }
        kept.insert(key);
        good.then(|| name.to_owned())
    }

    fn key_of(&self, pair: &str) -> Vec<u8> {
        hmac::sign(&self.key, pair.as_bytes()).as_ref().to_vec()
    }
}

/// `name:password` of the headers.
fn pair(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = text.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()
}
