//! A set of labels in one allocation: sorted by name, unique, cheap to clone, compare and hash.
//!
//! Layout: for each label in order, `len(name) name len(value) value`, lengths as LEB128. The bytes are
//! canonical: equal sets have equal bytes, on every node.

use std::cmp::Ordering;
use std::fmt;
use std::sync::Arc;

use xxhash_rust::xxh64::{Xxh64, xxh64};

/// The label that holds a metric's name.
pub const METRIC_NAME: &str = "__name__";

/// Longest encoded label set that is accepted anywhere, in bytes.
pub const MAX_LABELS_BYTES: usize = 1 << 20;

/// Sorted, unique labels without empty values.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Labels {
    bytes: Arc<[u8]>,
}

/// Why bytes or pairs are not a label set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLabels {
    #[error("label name is empty")]
    EmptyName,
    #[error("label {0:?} appears twice")]
    Duplicate(String),
    #[error("label {0:?} is out of order")]
    Unsorted(String),
    #[error("label {0:?} has an empty value")]
    EmptyValue(String),
    #[error("label name or value is not valid UTF-8")]
    Utf8,
    #[error("label bytes are cut short")]
    Truncated,
    #[error("labels take {0} bytes; at most {MAX_LABELS_BYTES} are allowed")]
    TooLong(usize),
}

impl Labels {
    /// No labels at all.
    pub fn empty() -> Labels {
        Labels { bytes: Arc::default() }
    }

    /// Builds from pairs in any order; empty values are dropped (a label with an empty value is absent).
    pub fn from_pairs<N: AsRef<str>, V: AsRef<str>>(
        pairs: impl IntoIterator<Item = (N, V)>,
    ) -> Result<Labels, InvalidLabels> {
        let mut builder = LabelsBuilder::default();
        for (name, value) in pairs {
            builder.push(name.as_ref(), value.as_ref());
        }
        builder.finish()
    }

    /// Takes canonical bytes as [`Labels::as_bytes`] gives them, checking everything that makes them so.
    pub fn from_bytes(bytes: &[u8]) -> Result<Labels, InvalidLabels> {
        Labels::check(bytes)?;
        Ok(Labels { bytes: bytes.into() })
    }

    /// Takes bytes that were checked before by [`Labels::check`], or came from [`Labels::as_bytes`]. Others make
    /// labels that end where the bytes are wrong, and compare in no order.
    pub fn from_checked(bytes: &[u8]) -> Labels {
        debug_assert_eq!(Labels::check(bytes), Ok(()));
        Labels { bytes: bytes.into() }
    }

    /// Whether bytes are canonical, as [`Labels::from_bytes`] wants them.
    pub fn check(bytes: &[u8]) -> Result<(), InvalidLabels> {
        if bytes.len() > MAX_LABELS_BYTES {
            return Err(InvalidLabels::TooLong(bytes.len()));
        }
        // One wide pass instead of many short ones; the length of a long text is no ASCII either.
        let ascii = bytes.is_ascii();
        let take = |rest: &mut _| take_text(rest).and_then(|text| if ascii { Ok(text) } else { utf8(text) });
        let shown = |name: &[u8]| String::from_utf8_lossy(name).into_owned();
        let mut rest = bytes;
        let mut last: &[u8] = b"";
        while !rest.is_empty() {
            let name = take(&mut rest)?;
            let value = take(&mut rest)?;
            match last.cmp(name) {
                _ if name.is_empty() => return Err(InvalidLabels::EmptyName),
                Ordering::Equal => return Err(InvalidLabels::Duplicate(shown(name))),
                Ordering::Greater => return Err(InvalidLabels::Unsorted(shown(name))),
                Ordering::Less if value.is_empty() => return Err(InvalidLabels::EmptyValue(shown(name))),
                Ordering::Less => last = name,
            }
        }
        Ok(())
    }

    /// The canonical bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Number of labels; walks them.
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Name and value of each label, by name.
    pub fn iter(&self) -> Iter<'_> {
        Iter { rest: &self.bytes }
    }

    /// As [`Labels::iter`], in bytes: for those who write them down as they are.
    pub fn raw(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let (name, start) = text_at(&self.bytes, at)?;
            let (value, next) = text_at(&self.bytes, start)?;
            at = next;
            Some((name, value))
        })
    }

    /// The value of `name`, if present.
    pub fn get(&self, name: &str) -> Option<&str> {
        let mut at = 0;
        while let Some((label, start)) = text_at(&self.bytes, at) {
            let (value, next) = text_at(&self.bytes, start)?;
            match label.cmp(name.as_bytes()) {
                Ordering::Less => at = next,
                Ordering::Equal => return std::str::from_utf8(value).ok(),
                Ordering::Greater => break,
            }
        }
        None
    }

    /// The value of `name`, or the empty string (PromQL does not tell the two apart).
    pub fn value(&self, name: &str) -> &str {
        self.get(name).unwrap_or("")
    }

    pub fn metric_name(&self) -> &str {
        self.value(METRIC_NAME)
    }

    /// Only the labels for which `keep` answers true.
    pub fn filter(&self, mut keep: impl FnMut(&str) -> bool) -> Labels {
        let mut out = Vec::with_capacity(self.bytes.len());
        // Labels that are kept are copied in runs, and values not looked at.
        let (mut from, mut at) = (0, 0);
        while let Some((name, start)) = text_at(&self.bytes, at)
            && let Some((_, next)) = text_at(&self.bytes, start)
        {
            if !std::str::from_utf8(name).is_ok_and(&mut keep) {
                out.extend_from_slice(&self.bytes[from..at]);
                from = next;
            }
            at = next;
        }
        if from == 0 {
            return self.clone();
        }
        out.extend_from_slice(&self.bytes[from..at]);
        Labels { bytes: out.into() }
    }

    /// Where the labels lie in memory: equal for clones, and as long as one is held for nothing else.
    pub fn address(&self) -> usize {
        self.bytes.as_ptr().addr()
    }

    /// These labels with `other`'s laid over them: on equal names `other` wins.
    pub fn overlay(&self, other: &Labels) -> Labels {
        if other.is_empty() {
            return self.clone();
        }
        let mut out = Vec::with_capacity(self.bytes.len() + other.bytes.len());
        let (mut a, mut b) = (raw_labels(&self.bytes).peekable(), raw_labels(&other.bytes).peekable());
        loop {
            let next = match (a.peek(), b.peek()) {
                (Some(x), Some(y)) => match x.0.cmp(y.0) {
                    Ordering::Less => a.next(),
                    Ordering::Greater => b.next(),
                    Ordering::Equal => {
                        a.next();
                        b.next()
                    }
                },
                (Some(_), None) => a.next(),
                (None, _) => b.next(),
            };
            let Some((_, bytes)) = next else { break };
            out.extend_from_slice(bytes);
        }
        Labels { bytes: out.into() }
    }

    /// A builder that starts from these labels.
    pub fn to_builder(&self) -> LabelsBuilder {
        let mut builder = LabelsBuilder::default();
        for (name, value) in self.iter() {
            builder.push(name, value);
        }
        builder
    }

    /// xxhash64 (seed 0) over `name 0xFF value 0xFF` of each label: Prometheus's and Thanos's hash of a
    /// label set, equal on every machine.
    pub fn stable_hash(&self) -> u64 {
        let mut hasher = Xxh64::new(0);
        self.feed(&mut hasher);
        hasher.digest()
    }

    /// The hash by which Thanos places a series on a ring: as [`Labels::stable_hash`], after the tenant and
    /// one 0xFF.
    pub fn placement_hash(&self, tenant: &str) -> u64 {
        placement_hash(tenant, &self.bytes)
    }

    fn feed(&self, hasher: &mut Xxh64) {
        feed(self.iter(), hasher);
    }
}

/// [`Labels::placement_hash`] of canonical label bytes ([`Labels::as_bytes`]), without building a [`Labels`].
pub fn placement_hash(tenant: &str, label_bytes: &[u8]) -> u64 {
    if let Some(hash) = placement_hash_at_once(tenant.as_bytes(), label_bytes) {
        return hash;
    }
    let mut hasher = Xxh64::new(0);
    hasher.update(tenant.as_bytes());
    hasher.update(&[0xff]);
    feed(Iter { rest: label_bytes }, &mut hasher);
    hasher.digest()
}

/// Where all lengths take one byte, the hashed text is the canonical bytes moved one place to the left with
/// 0xFF in place of every length: one copy and one hash, about five times as fast as label by label. None for others.
fn placement_hash_at_once(tenant: &[u8], label_bytes: &[u8]) -> Option<u64> {
    let mut text = [0xff; 768];
    let base = tenant.len() + 1;
    let used = base + label_bytes.len();
    text.get_mut(..tenant.len())?.copy_from_slice(tenant);
    let (_, tail) = label_bytes.split_first()?;
    text.get_mut(base..used - 1)?.copy_from_slice(tail);
    let mut at = 0;
    while let Some(&len) = label_bytes.get(at) {
        if len >= 0x80 {
            return None;
        }
        if at > 0 {
            text[base + at - 1] = 0xff;
        }
        at += 1 + len as usize;
    }
    if at != label_bytes.len() {
        return None;
    }
    Some(xxh64(text.get(..used)?, 0))
}

fn feed(labels: Iter<'_>, hasher: &mut Xxh64) {
    for (name, value) in labels {
        hasher.update(name.as_bytes());
        hasher.update(&[0xff]);
        hasher.update(value.as_bytes());
        hasher.update(&[0xff]);
    }
}

impl Default for Labels {
    fn default() -> Self {
        Labels::empty()
    }
}

/// Label by label: name, then value; a prefix comes first. The order of every sorted series set.
///
/// Series that are compared mostly share their first labels, so the common bytes are skipped at eight at a time
/// and only the first text that differs is compared.
impl Ord for Labels {
    fn cmp(&self, other: &Self) -> Ordering {
        let (a, b) = (&*self.bytes, &*other.bytes);
        let common = common_prefix(a, b);
        if common == a.len() && common == b.len() {
            return Ordering::Equal;
        }
        // Texts that end within the common bytes are equal; the next one, length or content, is not.
        let mut at = 0;
        while let Some((text, next)) = text_at(a, at)
            && next <= common
        {
            debug_assert_eq!(text_at(b, at).map(|t| t.0), Some(text));
            at = next;
        }
        // None comes first: it is the end of the shorter set.
        text_at(a, at).map(|t| t.0).cmp(&text_at(b, at).map(|t| t.0))
    }
}

/// How many first bytes are equal.
fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    let words = a.as_chunks::<8>().0.iter().zip(b.as_chunks::<8>().0);
    let mut at = words.take_while(|(x, y)| x == y).count() * 8;
    while at < a.len() && at < b.len() && a[at] == b[at] {
        at += 1;
    }
    at
}

/// The name of each label, and all its bytes.
fn raw_labels(bytes: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let (name, start) = text_at(bytes, at)?;
        let (_, next) = text_at(bytes, start)?;
        let whole = bytes.get(at..next)?;
        at = next;
        Some((name, whole))
    })
}

/// The text whose length stands at `at`, and where the next one starts; none at the end.
fn text_at(bytes: &[u8], at: usize) -> Option<(&[u8], usize)> {
    let (mut len, mut shift, mut start) = (0usize, 0, at);
    loop {
        let byte = *bytes.get(start)?;
        start += 1;
        len |= ((byte & 0x7f) as usize) << shift;
        if byte & 0x80 == 0 {
            return Some((bytes.get(start..start + len)?, start + len));
        }
        shift += 7;
        if shift > 21 {
            return None;
        }
    }
}

impl PartialOrd for Labels {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// As PromQL writes a series: `name{a="b", c="d"}`, values quoted.
impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.metric_name();
        f.write_str(name)?;
        let mut pairs = self.iter().filter(|(n, _)| *n != METRIC_NAME).peekable();
        if pairs.peek().is_none() && !name.is_empty() {
            return Ok(());
        }
        f.write_str("{")?;
        for (at, (name, value)) in pairs.enumerate() {
            if at > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{name}={value:?}")?;
        }
        f.write_str("}")
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Walks a label set; see [`Labels::iter`].
#[derive(Clone)]
pub struct Iter<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Iter<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        // Labels are only ever built from checked bytes; a fault here ends the walk instead of panicking.
        let name = take_str(&mut self.rest).ok()?;
        let value = take_str(&mut self.rest).ok()?;
        Some((name, value))
    }
}

/// Collects labels in any order and makes a [`Labels`] of them.
#[derive(Clone, Default)]
pub struct LabelsBuilder {
    text: String,
    /// (name start, name end = value start, value end) in `text`.
    spans: Vec<(u32, u32, u32)>,
}

impl LabelsBuilder {
    /// Adds a label; a second one of the same name is an error at [`LabelsBuilder::finish`].
    pub fn push(&mut self, name: &str, value: &str) {
        let start = self.text.len() as u32;
        self.text.push_str(name);
        let middle = self.text.len() as u32;
        self.text.push_str(value);
        self.spans.push((start, middle, self.text.len() as u32));
    }

    /// Sets a label, replacing one of the same name; an empty value removes it.
    pub fn set(&mut self, name: &str, value: &str) {
        self.remove(name);
        if !value.is_empty() {
            self.push(name, value);
        }
    }

    pub fn remove(&mut self, name: &str) {
        let text = &self.text;
        self.spans.retain(|&(s, m, _)| &text[s as usize..m as usize] != name);
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        let span = self.spans.iter().find(|&&(s, m, _)| &self.text[s as usize..m as usize] == name)?;
        Some(&self.text[span.1 as usize..span.2 as usize])
    }

    /// All labels as they stand, in no order.
    pub fn pairs(&self) -> Vec<(String, String)> {
        let text = |s: u32, e: u32| self.text[s as usize..e as usize].to_owned();
        self.spans.iter().map(|&(s, m, e)| (text(s, m), text(m, e))).collect()
    }

    pub fn clear(&mut self) {
        self.text.clear();
        self.spans.clear();
    }

    /// Sorts, drops empty values and checks names.
    pub fn finish(&mut self) -> Result<Labels, InvalidLabels> {
        let text = self.text.as_str();
        let name = |&(s, m, _): &(u32, u32, u32)| &text[s as usize..m as usize];
        let value = |&(_, m, e): &(u32, u32, u32)| &text[m as usize..e as usize];
        self.spans.sort_by(|a, b| name(a).cmp(name(b)));
        if let Some(pair) = self.spans.windows(2).find(|pair| name(&pair[0]) == name(&pair[1])) {
            return Err(InvalidLabels::Duplicate(name(&pair[0]).to_owned()));
        }
        let mut out = Vec::with_capacity(text.len() + self.spans.len() * 2);
        for span in &self.spans {
            if name(span).is_empty() {
                return Err(InvalidLabels::EmptyName);
            }
            if !value(span).is_empty() {
                put_str(&mut out, name(span));
                put_str(&mut out, value(span));
            }
        }
        if out.len() > MAX_LABELS_BYTES {
            return Err(InvalidLabels::TooLong(out.len()));
        }
        Ok(Labels { bytes: out.into() })
    }
}

/// Walks canonical label bytes label by label: each label's own bytes, its name and its value. Ends where the
/// bytes are not canonical.
pub fn label_parts(bytes: &[u8]) -> impl Iterator<Item = (&[u8], &str, &str)> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let before = rest;
        let name = take_str(&mut rest).ok()?;
        let value = take_str(&mut rest).ok()?;
        Some((&before[..before.len() - rest.len()], name, value))
    })
}

/// As [`label_parts`], without asking whether the texts are UTF-8: for bytes that were checked before.
#[inline]
pub fn label_spans(bytes: &[u8]) -> impl Iterator<Item = (&[u8], &[u8], &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let before = rest;
        let name = take_text(&mut rest).ok()?;
        let value = take_text(&mut rest).ok()?;
        Some((&before[..before.len() - rest.len()], name, value))
    })
}

/// Adds one label as canonical label bytes hold it.
pub fn put_label(out: &mut Vec<u8>, name: &str, value: &str) {
    put_str(out, name);
    put_str(out, value);
}

fn put_str(out: &mut Vec<u8>, text: &str) {
    let mut len = text.len();
    while len >= 0x80 {
        out.push(len as u8 | 0x80);
        len >>= 7;
    }
    out.push(len as u8);
    out.extend_from_slice(text.as_bytes());
}

fn take_str<'a>(rest: &mut &'a [u8]) -> Result<&'a str, InvalidLabels> {
    std::str::from_utf8(take_text(rest)?).map_err(|_| InvalidLabels::Utf8)
}

fn utf8(text: &[u8]) -> Result<&[u8], InvalidLabels> {
    std::str::from_utf8(text).map(str::as_bytes).map_err(|_| InvalidLabels::Utf8)
}

#[inline]
fn take_text<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], InvalidLabels> {
    // Nearly all texts are short.
    if let Some((&len, tail)) = rest.split_first()
        && len < 0x80
        && let Some((text, tail)) = tail.split_at_checked(usize::from(len))
    {
        *rest = tail;
        return Ok(text);
    }
    take_long_text(rest)
}

fn take_long_text<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], InvalidLabels> {
    let (mut len, mut shift) = (0usize, 0);
    loop {
        let (&byte, tail) = rest.split_first().ok_or(InvalidLabels::Truncated)?;
        *rest = tail;
        len |= ((byte & 0x7f) as usize) << shift;
        if byte & 0x80 == 0 {
            // One spelling for each length, so that equal sets have equal bytes.
            if byte == 0 && shift > 0 {
                return Err(InvalidLabels::Truncated);
            }
            break;
        }
        shift += 7;
        if shift > 21 {
            return Err(InvalidLabels::Truncated);
        }
    }
    if len > rest.len() {
        return Err(InvalidLabels::Truncated);
    }
    let (text, tail) = rest.split_at(len);
    *rest = tail;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        Labels::from_pairs(pairs.iter().copied()).unwrap()
    }

    #[test]
    fn sorts_drops_empty_and_round_trips() {
        let l = labels(&[("b", "2"), ("a", "1"), ("c", "")]);
        assert_eq!(l.iter().collect::<Vec<_>>(), [("a", "1"), ("b", "2")]);
        assert_eq!(Labels::from_bytes(l.as_bytes()).unwrap(), l);
        assert_eq!(l.get("b"), Some("2"));
        assert_eq!(l.get("c"), None);
        assert_eq!(l.to_string(), r#"{a="1", b="2"}"#);
        assert_eq!(labels(&[("__name__", "up")]).to_string(), "up");
    }

    #[test]
    fn refuses_what_is_not_canonical() {
        assert!(matches!(
            Labels::from_pairs([("a", "1"), ("a", "2")]),
            Err(InvalidLabels::Duplicate(name)) if name == "a"
        ));
        assert_eq!(Labels::from_pairs([("", "1")]), Err(InvalidLabels::EmptyName));
        for bytes in
            [&b"\x01a"[..], b"\x01b\x011\x01a\x011", b"\x01a\x00", b"\x81\x00a\x011", b"\xff\xff\xff\xff\x01"]
        {
            assert!(Labels::from_bytes(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn overlay_and_order() {
        let l = labels(&[("a", "1"), ("c", "3")]).overlay(&labels(&[("b", "2"), ("c", "4")]));
        assert_eq!(l, labels(&[("a", "1"), ("b", "2"), ("c", "4")]));
        assert!(labels(&[("a", "1")]) < labels(&[("a", "1"), ("b", "1")]));
        assert!(labels(&[("a", "1"), ("b", "1")]) < labels(&[("a", "2")]));
        // Order is by label text, not by encoded bytes: a longer name that sorts first comes first.
        assert!(labels(&[("aaa", "1")]) < labels(&[("b", "1")]));
    }

    #[test]
    fn the_short_way_to_the_placement_hash_is_the_long_way() {
        for pairs in [1, 2, 10, 60] {
            for value in [1, 40, 127, 128, 300] {
                for tenant in ["a", "default-tenant", &"t".repeat(150)] {
                    let names: Vec<_> = (0..pairs).map(|n| format!("name_{n}")).collect();
                    let l =
                        Labels::from_pairs(names.iter().map(|n| (n.as_str(), "v".repeat(value)))).unwrap();
                    let mut hasher = Xxh64::new(0);
                    hasher.update(tenant.as_bytes());
                    hasher.update(&[0xff]);
                    feed(l.iter(), &mut hasher);
                    assert_eq!(l.placement_hash(tenant), hasher.digest(), "{pairs} labels of {value}");
                }
            }
        }
        assert_eq!(Labels::empty().placement_hash("a"), xxh64(b"a\xff", 0));
        for odd in [&b"\x01"[..], b"\x05ab", b"\x01a\x00\xff"] {
            placement_hash("a", odd);
        }
    }

    #[test]
    fn long_values_keep_their_length() {
        let long = "x".repeat(70_000);
        let l = labels(&[("a", &long)]);
        assert_eq!(l.get("a"), Some(long.as_str()));
        assert_eq!(Labels::from_bytes(l.as_bytes()).unwrap(), l);
    }

    #[test]
    fn order_is_that_of_the_pairs() {
        let long = "v".repeat(200);
        let texts = ["a", "aa", "ab", "b", "\u{7f}", "é", "aaaaaaaaaaaaaaaa", "aaaaaaaaaaaaaaab", &long];
        let mut all = vec![Labels::empty()];
        for (i, x) in texts.iter().enumerate() {
            for (j, y) in texts.iter().enumerate() {
                all.push(labels(&[("l", x)]));
                all.push(labels(&[(x, "1"), ("zz", y)]));
                all.push(labels(&[("common_prefix", "of them all"), (&format!("z{x}"), y), ("zzz", "end")]));
                if i != j {
                    all.push(labels(&[(x, y), (y, x)]));
                }
            }
        }
        for a in &all {
            for b in &all {
                assert_eq!(a.cmp(b), a.iter().cmp(b.iter()), "{a} and {b}");
            }
        }
    }
}
