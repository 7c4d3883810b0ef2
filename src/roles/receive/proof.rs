//! For tests and fuzzing: both ways of reading a plain body side by side, in full and recognised; what a limits file says.

use identity::Identities;
use model::TenantId;
use runtime::World;
use wire::remote_write::Limits;

use crate::decode::{Aside, Carry, Decoded, Reading, Recognise, Ways, decode_v1, decode_v2};
use crate::resolve::LabelsOf;
use crate::status::Denial;

#[cfg(test)]
impl<'a> Reading<'a> {
    /// Without rules.
    pub fn within(limits: &'a Limits) -> Reading<'a> {
        Reading { limits, strip: None, rules: &relabel::NONE }
    }
}

/// Labels, placement hash, floats by their bits, and what is rare as text.
type Row = (Vec<u8>, u64, Vec<(i64, u64)>, String);

fn rows(decoded: &Decoded, plain: &[u8], reading: Reading<'_>) -> Vec<Row> {
    let labels_of = LabelsOf::new(plain, &decoded.regions, decoded.by_symbols, reading);
    let batch = &decoded.batch;
    let all = batch.series().iter().enumerate();
    all.map(|(row, series)| {
        let mut labels = batch.label_bytes(series).to_vec();
        if labels.is_empty() {
            assert!(labels_of.write(row as u32, &mut labels));
        }
        let samples = batch.samples()[series.samples()].iter();
        let floats = samples.map(|s| (s.timestamp, s.value.to_bits())).collect();
        let exemplars = &batch.exemplars()[batch.exemplars_of(series)];
        let exemplars: Vec<_> =
            exemplars.iter().map(|e| (e.timestamp, e.value.to_bits(), batch.exemplar_labels(e))).collect();
        let rare = format!("{:?} {exemplars:?}", &batch.histograms()[batch.histograms_of(series)]);
        (labels, series.hash, floats, rare)
    })
    .collect()
}

/// A door with a memory of the series that came through it.
pub struct Door {
    identities: Identities,
    limits: Limits,
    strip: Option<&'static str>,
    rules: relabel::Rules,
}

/// Rules that drop, rename, and make labels that no series may have.
const RULES: &str = "
- {source_labels: [a], regex: b, action: drop}
- {source_labels: [b], regex: '(.+)', target_label: 'c_$1'}
- {source_labels: [c], regex: a, target_label: __name__, replacement: ''}
";

impl Default for Door {
    fn default() -> Door {
        Door::new()
    }
}

impl Door {
    /// With limits that are small enough to be met.
    pub fn new() -> Door {
        let limits = Limits { max_series: 12, max_labels: 5, ..Limits::default() };
        let identities = Identities::new(identity::Settings::default(), &*World::real().chance);
        Door { identities, limits, strip: None, rules: relabel::Rules::default() }
    }

    /// As [`Door::new`], with relabelling.
    pub fn relabelling() -> Door {
        Door { rules: relabel::parse(RULES).expect("rules"), ..Door::new() }
    }

    /// As [`Door::relabelling`], leaving a label out before.
    pub fn stripping() -> Door {
        Door { strip: Some("b"), ..Door::relabelling() }
    }

    fn reading(&self) -> Reading<'_> {
        Reading { limits: &self.limits, strip: self.strip, rules: &self.rules }
    }

    /// Forgets who did not come since the beginning.
    pub fn forget(&self) {
        self.identities.sweep(1 << 40);
    }

    /// Decodes both ways, has the identities learn, and panics where the two differ. Gives how series were recognised.
    pub fn check(&self, tenant: &str, plain: &[u8], labels: bool, with_handles: bool) -> Ways {
        self.compare(false, tenant, plain, labels, with_handles)
    }

    /// The same for a body of 2.0.
    pub fn check_v2(&self, tenant: &str, plain: &[u8], labels: bool, with_handles: bool) -> Ways {
        self.compare(true, tenant, plain, labels, with_handles)
    }

    fn read<R>(
        &self,
        by_symbols: bool,
        tenant: &TenantId,
        body: &[u8],
        recognise: Option<Recognise<'_>>,
        then: impl FnOnce(&mut Decoded, &[u8]) -> R,
    ) -> Result<R, Denial> {
        match by_symbols {
            true => decode_v2(tenant, body, self.reading(), recognise, then),
            false => decode_v1(tenant, body, self.reading(), recognise, then),
        }
    }

    fn compare(
        &self,
        by_symbols: bool,
        tenant: &str,
        plain: &[u8],
        labels: bool,
        with_handles: bool,
    ) -> Ways {
        let tenant = TenantId::new(tenant).expect("a tenant's name");
        let body = snap::raw::Encoder::new().compress_vec(plain).expect("a body that is not too large");
        let all = |decoded: &mut Decoded, plain: &[u8]| -> (Vec<Row>, Aside) {
            (rows(decoded, plain, self.reading()), std::mem::take(&mut decoded.aside))
        };
        let want = self.read(by_symbols, &tenant, &body, None, all);
        let recognise = Recognise {
            identities: &self.identities,
            space: tenant.as_str(),
            now: 0,
            labels: if labels { Carry::All } else { Carry::Unnamed },
        };
        let mut ways = Ways::default();
        let got = self.read(by_symbols, &tenant, &body, Some(recognise), |decoded, plain| {
            let seen = all(decoded, plain);
            assert_eq!(decoded.met.len(), seen.0.len());
            assert!(
                !labels || decoded.batch.series().iter().all(|s| !decoded.batch.label_bytes(s).is_empty())
            );
            let handles: Vec<_> = (0..seen.0.len() as u32).map(|row| (row, u64::from(row))).collect();
            let handles = if with_handles { &handles[..] } else { &[] };
            self.identities.learn(tenant.as_str(), &mut decoded.met, handles, !with_handles, 0);
            ways = decoded.ways;
            seen
        });
        // A body with two faults may be refused for either.
        let kind = |denial| std::mem::discriminant(&denial);
        assert_eq!(got.map_err(kind), want.map_err(kind));
        ways
    }
}

/// The out-of-order windows that a limits file gives to its tenants, or why it is refused.
pub fn limits(text: &str, widest: i64) -> Result<Vec<Option<i64>>, String> {
    let document = crate::limits::file::parse(text, &crate::limits::Profile::default(), widest)?;
    let all = std::iter::once(&document.default).chain(document.tenants.values());
    Ok(all.map(|profile| profile.engine.out_of_order_window).collect())
}
