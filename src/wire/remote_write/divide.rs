//! A request as several, one for each value of a label that names the tenant; the label is left out.
//!
//! For those who write for many tenants at once (`--receive.split-tenant-label-name`). Series are moved as they stand,
//! byte for byte but for the label; what is no series stays with the series that do not have it.

use std::collections::BTreeMap;

use super::encode::put_varint;
use crate::WireError;
use crate::walk::{Walk, Wire};

/// Uncompressed requests by the label's value, in order; those without it under the empty one.
pub type Parts = BTreeMap<String, Vec<u8>>;

/// Divides a `prometheus.WriteRequest`.
pub fn divide_v1(plain: &[u8], label: &str) -> Result<Parts, WireError> {
    let mut parts = Parts::new();
    each_field(plain, |field, wire, whole, inner| {
        if (field, wire) != (1, Wire::Bytes) {
            parts.entry(String::new()).or_default().extend_from_slice(whole);
            return Ok(());
        }
        let (mut tenant, mut rest) = (String::new(), Vec::with_capacity(inner.len()));
        each_field(inner, |field, wire, whole, pair| {
            if (field, wire) == (1, Wire::Bytes)
                && let Some(value) = value_of(pair, label)?
                && !value.is_empty()
            {
                tenant = text(value)?;
            } else {
                rest.extend_from_slice(whole);
            }
            Ok(())
        })?;
        put_message(1, &rest, parts.entry(tenant).or_default());
        Ok(())
    })?;
    Ok(parts)
}

/// Divides an `io.prometheus.write.v2.Request`; every part has all symbols.
pub fn divide_v2(plain: &[u8], label: &str) -> Result<Parts, WireError> {
    let (mut symbols, mut symbol_bytes, mut others) = (Vec::new(), Vec::new(), Vec::new());
    each_field(plain, |field, wire, whole, inner| {
        match (field, wire) {
            (4, Wire::Bytes) => {
                symbols.push(inner);
                symbol_bytes.extend_from_slice(whole);
            }
            (5, Wire::Bytes) => {}
            _ => others.extend_from_slice(whole),
        }
        Ok(())
    })?;
    let symbol = |reference: u64| symbols.get(usize::try_from(reference).ok()?).copied();
    let mut parts = Parts::new();
    each_field(plain, |field, wire, _, inner| {
        if (field, wire) != (5, Wire::Bytes) {
            return Ok(());
        }
        let (mut references, mut rest) = (Vec::new(), Vec::with_capacity(inner.len()));
        each_field(inner, |field, wire, whole, value| {
            match (field, wire) {
                (1, Wire::Bytes) => {
                    let mut walk = Walk::new(value);
                    while !walk.is_done() {
                        references.push(walk.varint()?);
                    }
                }
                (1, Wire::Varint) => references.push(Walk::new(value).varint()?),
                _ => rest.extend_from_slice(whole),
            }
            Ok(())
        })?;
        let named = references.chunks_exact(2).position(|pair| {
            symbol(pair[0]) == Some(label.as_bytes())
                && symbol(pair[1]).is_some_and(|value| !value.is_empty())
        });
        let mut tenant = String::new();
        if let Some(at) = named {
            tenant = text(symbol(references[2 * at + 1]).unwrap_or_default())?;
            references.drain(2 * at..2 * at + 2);
        }
        let (mut packed, mut series) = (Vec::new(), Vec::new());
        references.iter().for_each(|reference| put_varint(*reference, &mut packed));
        put_message(1, &packed, &mut series);
        series.extend_from_slice(&rest);
        let part = parts.entry(tenant).or_insert_with(|| symbol_bytes.clone());
        put_message(5, &series, part);
        Ok(())
    })?;
    if !others.is_empty() {
        parts.entry(String::new()).or_insert(symbol_bytes).extend_from_slice(&others);
    }
    Ok(parts)
}

/// Shows each field: its number, its kind, all of its bytes, and its value's.
fn each_field<'a>(
    bytes: &'a [u8],
    mut see: impl FnMut(u32, Wire, &'a [u8], &'a [u8]) -> Result<(), WireError>,
) -> Result<(), WireError> {
    let mut walk = Walk::new(bytes);
    while !walk.is_done() {
        let from = walk.at;
        let (field, wire) = walk.key()?;
        let mut value = &bytes[walk.at..walk.at];
        if wire == Wire::Bytes {
            let inner = walk.enter()?;
            value = &bytes[inner.at..inner.end];
        } else {
            let at = walk.at;
            walk.skip(field, wire)?;
            value = if walk.at > at { &bytes[at..walk.at] } else { value };
        }
        see(field, wire, &bytes[from..walk.at], value)?;
    }
    Ok(())
}

/// The value of a `Label`, if its name is `label`.
fn value_of<'a>(pair: &'a [u8], label: &str) -> Result<Option<&'a [u8]>, WireError> {
    let (mut name, mut found) = (&pair[..0], &pair[..0]);
    each_field(pair, |field, wire, _, inner| {
        match (field, wire) {
            (1, Wire::Bytes) => name = inner,
            (2, Wire::Bytes) => found = inner,
            _ => {}
        }
        Ok(())
    })?;
    Ok((name == label.as_bytes()).then_some(found))
}

fn text(value: &[u8]) -> Result<String, WireError> {
    let wrong = |_| WireError::invalid("the label that names the tenant is not UTF-8 text");
    std::str::from_utf8(value).map(str::to_owned).map_err(wrong)
}

fn put_message(field: u64, message: &[u8], out: &mut Vec<u8>) {
    put_varint(field << 3 | 2, out);
    put_varint(message.len() as u64, out);
    out.extend_from_slice(message);
}

#[cfg(test)]
mod tests {
    use model::Sample;
    use proptest::prelude::*;
    use prost::Message;

    use super::super::encode_v1;
    use super::*;
    use crate::pb::io::prometheus::write::v2;
    use crate::pb::prometheus::WriteRequest;

    const SAMPLE: [Sample; 1] = [Sample { timestamp: 7, value: 1.0 }];

    #[test]
    fn series_go_to_the_tenants_they_name() {
        let series = [
            vec![("__name__", "a"), ("tenant", "x"), ("z", "1")],
            vec![("__name__", "b")],
            vec![("__name__", "c"), ("tenant", "")],
            vec![("__name__", "d"), ("tenant", "x")],
            vec![("__name__", "e"), ("tenant", "y")],
        ];
        let mut plain = Vec::new();
        encode_v1(series.iter().map(|labels| (labels.clone(), SAMPLE)), &mut plain);
        let parts = divide_v1(&plain, "tenant").unwrap();
        let shown = |bytes: &[u8]| -> Vec<String> {
            let request = WriteRequest::decode(bytes).unwrap();
            assert!(request.timeseries.iter().all(|series| series.samples.len() == 1));
            let label = |l: &crate::pb::prometheus::Label| format!("{}={}", l.name, l.value);
            request
                .timeseries
                .iter()
                .map(|s| s.labels.iter().map(label).collect::<Vec<_>>().join(","))
                .collect()
        };
        let all: Vec<_> = parts.iter().map(|(tenant, bytes)| (tenant.as_str(), shown(bytes))).collect();
        let lines = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            all,
            [
                ("", lines(&["__name__=b", "__name__=c,tenant="])),
                ("x", lines(&["__name__=a,z=1", "__name__=d"])),
                ("y", lines(&["__name__=e"])),
            ]
        );
    }

    #[test]
    fn symbols_go_along() {
        let mut request = v2::Request {
            symbols: ["", "__name__", "a", "tenant", "x"].map(str::to_owned).to_vec(),
            ..Default::default()
        };
        let series =
            |labels_refs: &[u32]| v2::TimeSeries { labels_refs: labels_refs.to_vec(), ..Default::default() };
        request.timeseries = vec![series(&[1, 2, 3, 4]), series(&[1, 2]), series(&[1, 2, 3, 9])];
        let parts = divide_v2(&request.encode_to_vec(), "tenant").unwrap();
        let read = |tenant: &str| v2::Request::decode(&parts[tenant][..]).unwrap();
        assert_eq!(read("x").timeseries, [series(&[1, 2])]);
        // A reference out of range is somebody else's to refuse.
        assert_eq!(read("").timeseries, [series(&[1, 2]), series(&[1, 2, 3, 9])]);
        assert_eq!(read("x").symbols, request.symbols);
    }

    proptest! {
        #[test]
        fn any_bytes_are_divided_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = divide_v1(&bytes, "tenant");
            let _ = divide_v2(&bytes, "tenant");
        }
    }
}
