//! Credentials of senders, each bound to a tenant: bearer tokens and passwords, from a file that may change.
//!
//! ```yaml
//! credentials:
//! - {tenant: team-a, bearer_token_file: tokens/team-a}
//! - {tenant: team-b, bearer_token_sha256: 2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824}
//! - {tenant: team-c, username: c, password_hash: "$2y$10$..."}
//! - {tenant: "*", bearer_token_file: tokens/gateway}   # may name any tenant in the header
//! ```
//! Tokens themselves are in files of their own, of which only hashes are kept; neither is ever shown.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use ring::digest;
use runtime::World;
use serde::Deserialize;

use crate::checks::{Busy, Checks};
use crate::files::read;
use crate::{Error, Passwords, Watched};

/// Shortest token: anything shorter can be guessed.
const SHORTEST: usize = 16;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    credentials: Vec<Credential>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Credential {
    tenant: String,
    bearer_token_file: Option<PathBuf>,
    bearer_token_sha256: Option<String>,
    username: Option<String>,
    password_hash: Option<String>,
}

/// Whose writes a credential is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bound {
    Tenant(String),
    /// Whomever the request names.
    Any,
}

impl Bound {
    fn of(tenant: &str) -> Bound {
        if tenant == "*" { Bound::Any } else { Bound::Tenant(tenant.to_owned()) }
    }
}

struct Table {
    /// By SHA-256.
    tokens: HashMap<Vec<u8>, Bound>,
    users: BTreeMap<String, Bound>,
    passwords: Arc<Passwords>,
}

/// Who may write, and for whom, as the file says now.
#[derive(Clone)]
pub struct Credentials {
    table: Arc<Watched<Table>>,
    checks: Checks,
}

impl Credentials {
    /// Reads the file and the tokens it names, whose tenants `check` may refuse; changes of all of them are seen.
    pub fn start(
        world: &World,
        path: &Path,
        check: fn(&str) -> Result<(), String>,
    ) -> Result<Credentials, Error> {
        let key: Vec<u8> = (0..4).flat_map(|_| world.chance.next_u64().to_le_bytes()).collect();
        let mut files = vec![path.to_owned()];
        files.extend(parse(world, path)?.credentials.iter().filter_map(|one| one.token_path(path)));
        let owned = path.to_owned();
        let build = move |world: &World| table(world, &owned, &key, check);
        let table = Watched::start("credentials", world, files, build)?;
        Ok(Credentials { table, checks: Checks::default() })
    }

    /// Whose writes whoever sent the headers may send; none if they show nothing that is right.
    pub async fn bound(&self, headers: &HeaderMap) -> Result<Option<Bound>, Busy> {
        let table = self.table.current();
        let text = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        let Some((scheme, rest)) = text.and_then(|text| text.split_once(' ')) else { return Ok(None) };
        if scheme.eq_ignore_ascii_case("bearer") {
            return Ok(table.tokens.get(&sha256(rest.trim().as_bytes())).cloned());
        }
        let name = self.checks.name(&table.passwords, headers).await?;
        Ok(name.and_then(|name| table.users.get(&name).cloned()))
    }

    /// Looks at the files now.
    pub fn refresh(&self) -> bool {
        self.table.refresh()
    }
}

fn sha256(bytes: &[u8]) -> Vec<u8> {
    digest::digest(&digest::SHA256, bytes).as_ref().to_vec()
}

impl Credential {
    /// Relative to the file of credentials.
    fn token_path(&self, path: &Path) -> Option<PathBuf> {
        let folder = path.parent().unwrap_or(Path::new("."));
        self.bearer_token_file.as_ref().map(|file| folder.join(file))
    }
}

fn parse(world: &World, path: &Path) -> Result<File, Error> {
    let at = |why: String| Error::invalid(format!("{}: {why}", path.display()));
    let text = String::from_utf8(read(world, path)?).map_err(|_| at("not UTF-8 text".to_owned()))?;
    // Without a piece of the text, which may hold secrets.
    let options = serde_saphyr::options! { with_snippet: false };
    let file: File =
        serde_saphyr::from_str_with_options(&text, options).map_err(|error| at(error.to_string()))?;
    match file.credentials.is_empty() {
        true => Err(at("lists no credentials, so that nobody could write".to_owned())),
        false => Ok(file),
    }
}

fn table(
    world: &World,
    path: &Path,
    key: &[u8],
    check: fn(&str) -> Result<(), String>,
) -> Result<Table, Error> {
    let (mut tokens, mut users, mut hashes) = (HashMap::new(), BTreeMap::new(), BTreeMap::new());
    for (at, one) in parse(world, path)?.credentials.iter().enumerate() {
        let wrong = |why: &str| {
            Error::invalid(format!("{}: credentials[{at}] of tenant {:?}: {why}", path.display(), one.tenant))
        };
        if one.tenant != "*" {
            check(&one.tenant).map_err(|why| wrong(&why))?;
        }
        let (bound, token_file) = (Bound::of(&one.tenant), one.token_path(path));
        let twice = match (token_file, &one.bearer_token_sha256, &one.username, &one.password_hash) {
            (Some(file), None, None, None) => {
                let text = read(world, &file)?;
                let token = text.trim_ascii();
                if token.len() < SHORTEST {
                    return Err(wrong(&format!(
                        "the token in {} is shorter than {SHORTEST} bytes",
                        file.display()
                    )));
                }
                tokens.insert(sha256(token), bound).is_some()
            }
            (None, Some(hash), None, None) => {
                let hash =
                    hex(hash).ok_or_else(|| wrong("bearer_token_sha256 is not 64 hexadecimal digits"))?;
                tokens.insert(hash, bound).is_some()
            }
            (None, None, Some(name), Some(hash)) => {
                hashes.insert(name.clone(), hash.clone());
                users.insert(name.clone(), bound).is_some()
            }
            _ => {
                return Err(wrong(
                    "needs either bearer_token_file, or bearer_token_sha256, or username and password_hash",
                ));
            }
        };
        if twice {
            return Err(wrong("the same token or username stands for a tenant before"));
        }
    }
    Ok(Table { tokens, users, passwords: Arc::new(Passwords::new(hashes, key)?) })
}

fn hex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text.chars().map(|c| c.to_digit(16).map(|d| d as u8)).collect();
    let digits = digits.filter(|digits| digits.len() == 64)?;
    Some(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}
