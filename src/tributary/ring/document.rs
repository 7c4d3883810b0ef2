//! A ring file with members added, taken out or replaced; everything else in it stays.

use std::collections::BTreeSet;

use anyhow::{Context as _, anyhow, bail};
use serde_json::{Value, json};

/// A ring file that is being edited.
pub struct Document(Vec<Value>);

fn address(endpoint: &Value) -> Option<&str> {
    endpoint.as_str().or_else(|| endpoint.get("address")?.as_str())
}

impl Document {
    pub fn parse(text: &str) -> anyhow::Result<Document> {
        match serde_json::from_str(text).context("the agreed ring is not JSON")? {
            Value::Array(rings) => Ok(Document(rings)),
            _ => bail!("the agreed ring is not a list of rings"),
        }
    }

    fn endpoints(ring: &mut Value) -> Option<&mut Vec<Value>> {
        ring.get_mut("endpoints")?.as_array_mut()
    }

    /// Adds a member to the ring of that name, or to the only one.
    pub fn add(&mut self, member: &str, zone: Option<&str>, ring: Option<&str>) -> anyhow::Result<()> {
        let rings = self.0.len();
        let named = |value: &Value| value.get("hashring").and_then(Value::as_str).map(str::to_owned);
        let names: Vec<String> = self.0.iter().filter_map(named).collect();
        let found = match ring {
            None if rings == 1 => self.0.first_mut(),
            None => bail!("the file has {rings} rings; say which one by --ring: {}", names.join(", ")),
            Some(name) => self.0.iter_mut().find(|value| named(value).as_deref() == Some(name)),
        };
        let found = found.ok_or_else(|| anyhow!("there is no such ring; there are: {}", names.join(", ")))?;
        let endpoints = Document::endpoints(found).ok_or_else(|| anyhow!("the ring has no endpoints"))?;
        if endpoints.iter().any(|e| address(e) == Some(member)) {
            bail!("{member} is in the ring already");
        }
        // In the shape that the others have.
        let zoned = endpoints.iter().any(|e| e.get("az").is_some());
        if zoned && zone.is_none() {
            bail!("the other members have zones: say by --zone in which {member} is");
        }
        endpoints.push(match zone {
            Some(zone) => json!({ "address": member, "az": zone }),
            None => json!(member),
        });
        Ok(())
    }

    /// Takes members out of every ring; each has to be in one.
    pub fn remove(&mut self, members: &BTreeSet<String>) -> anyhow::Result<()> {
        let mut found = BTreeSet::new();
        for endpoints in self.0.iter_mut().filter_map(Document::endpoints) {
            endpoints.retain(|e| match address(e).filter(|a| members.contains(*a)) {
                Some(address) => {
                    found.insert(address.to_owned());
                    false
                }
                None => true,
            });
        }
        missing(members, &found)
    }

    /// Puts another one into the place of a member, in every ring.
    pub fn replace(&mut self, member: &str, with: &str) -> anyhow::Result<()> {
        let mut found = BTreeSet::new();
        for endpoint in self.0.iter_mut().filter_map(Document::endpoints).flatten() {
            if address(endpoint) != Some(member) {
                continue;
            }
            found.insert(member.to_owned());
            match endpoint.get_mut("address") {
                Some(address) => *address = json!(with),
                None => *endpoint = json!(with),
            }
        }
        missing(&BTreeSet::from([member.to_owned()]), &found)
    }

    /// As text.
    pub fn text(&self) -> anyhow::Result<String> {
        let mut text = serde_json::to_string_pretty(&self.0)?;
        text.push('\n');
        Ok(text)
    }
}

fn missing(asked: &BTreeSet<String>, found: &BTreeSet<String>) -> anyhow::Result<()> {
    match asked.difference(found).next() {
        None => Ok(()),
        Some(member) => {
            bail!("{member} is not in the ring; `tributary ring show` has the members as they are spelled")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|n| (*n).to_owned()).collect()
    }

    #[test]
    fn members_come_go_and_are_replaced() {
        let text = r#"[{"hashring": "big", "tenants": ["x"], "endpoints": ["a:1", {"address": "b:1", "az": "z"}]},
                       {"hashring": "rest", "endpoints": ["a:1", "c:1"]}]"#;
        let mut ring = Document::parse(text).unwrap();
        assert!(ring.add("d:1", None, None).unwrap_err().to_string().contains("big, rest"));
        assert!(ring.add("d:1", None, Some("big")).unwrap_err().to_string().contains("--zone"));
        assert!(ring.add("c:1", None, Some("rest")).unwrap_err().to_string().contains("already"));
        ring.add("d:1", Some("y"), Some("big")).unwrap();
        ring.add("d:1", None, Some("rest")).unwrap();
        ring.remove(&set(&["a:1"])).unwrap();
        assert!(ring.remove(&set(&["a:1"])).unwrap_err().to_string().contains("not in the ring"));
        ring.replace("b:1", "e:1").unwrap();
        ring.replace("c:1", "f:1").unwrap();
        let now: Value = serde_json::from_str(&ring.text().unwrap()).unwrap();
        assert_eq!(
            now[0]["endpoints"],
            json!([{"address": "e:1", "az": "z"}, {"address": "d:1", "az": "y"}])
        );
        assert_eq!(now[1]["endpoints"], json!(["f:1", "d:1"]));
        assert_eq!(now[0]["tenants"], json!(["x"]));
    }
}
