//! Writes `io.prometheus.write.v2.Request` bytes: for what arrives in another protocol, for load tools and tests.

use std::collections::HashMap;

use model::{Native, Sample, Timestamp};

use super::encode::{put_bytes, put_double, put_histogram, put_number, put_sample_fields, put_varint};

/// A request while it grows, series by series.
#[derive(Default)]
pub struct RequestV2 {
    numbers: HashMap<Box<str>, u32>,
    /// Encoded symbols.
    symbols: Vec<u8>,
    /// Encoded series.
    series: Vec<u8>,
    refs: Vec<u32>,
    /// Of the series at hand, everything but its labels.
    body: Vec<u8>,
    message: Vec<u8>,
}

impl RequestV2 {
    /// The number of a text; the empty one is number 0.
    pub fn symbol(&mut self, text: &str) -> u32 {
        if self.numbers.is_empty() {
            self.numbers.insert("".into(), 0);
            put_bytes(4, b"", &mut self.symbols);
        }
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let number = self.numbers.len() as u32;
        self.numbers.insert(text.into(), number);
        put_bytes(4, text.as_bytes(), &mut self.symbols);
        number
    }

    /// A label of the series at hand.
    pub fn label(&mut self, name: &str, value: &str) {
        let pair = [self.symbol(name), self.symbol(value)];
        self.refs.extend(pair);
    }

    /// A float; `start` is 0 where it is not known.
    pub fn sample(&mut self, sample: Sample, start: Timestamp) {
        self.message.clear();
        put_sample_fields(sample, &mut self.message);
        if start != 0 {
            put_number(3, start as u64, &mut self.message);
        }
        put_bytes(2, &self.message, &mut self.body);
    }

    /// A native histogram; `start` is 0 where it is not known.
    pub fn histogram(&mut self, histogram: &Native, timestamp: Timestamp, start: Timestamp) {
        self.message.clear();
        put_histogram(timestamp, start, histogram, &mut self.message);
        put_bytes(3, &self.message, &mut self.body);
    }

    pub fn exemplar<'a>(
        &mut self,
        labels: impl IntoIterator<Item = (&'a str, &'a str)>,
        value: f64,
        timestamp: Timestamp,
    ) {
        let mut refs = Vec::new();
        for (name, value) in labels {
            put_varint(self.symbol(name).into(), &mut refs);
            put_varint(self.symbol(value).into(), &mut refs);
        }
        self.message.clear();
        put_bytes(1, &refs, &mut self.message);
        put_double(2, value, &mut self.message);
        put_number(3, timestamp as u64, &mut self.message);
        put_bytes(4, &self.message, &mut self.body);
    }

    /// `kind` by its number, as in [`super::Metadata`].
    pub fn metadata(&mut self, kind: u8, help: &str, unit: &str) {
        let (help, unit) = (self.symbol(help), self.symbol(unit));
        self.message.clear();
        put_number(1, kind.into(), &mut self.message);
        put_number(3, help.into(), &mut self.message);
        put_number(4, unit.into(), &mut self.message);
        put_bytes(5, &self.message, &mut self.body);
    }

    /// Ends the series at hand.
    pub fn end(&mut self) {
        self.message.clear();
        let mut refs = Vec::with_capacity(self.refs.len() * 2);
        self.refs.drain(..).for_each(|symbol| put_varint(symbol.into(), &mut refs));
        put_bytes(1, &refs, &mut self.message);
        self.message.append(&mut self.body);
        put_bytes(5, &self.message, &mut self.series);
    }

    /// The request, uncompressed.
    pub fn finish(self) -> Vec<u8> {
        let mut all = self.symbols;
        all.extend_from_slice(&self.series);
        all
    }
}
