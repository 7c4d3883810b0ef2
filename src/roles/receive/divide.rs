//! Writes for many tenants at once: a request becomes one for each, and what became of them becomes one answer.

use model::TenantId;
use storage::Refusal;
use wire::remote_write::{self, Limits, Packed};

use crate::admit::Version;
use crate::decode::deny;
use crate::status::{Denial, Summary};

/// The parts of a compressed request, compressed, each with its tenant; of series that do not have the label the tenant
/// is `default`. A value that is no tenant id refuses the request before anything of it is stored.
pub fn divide(
    body: Packed<'_>,
    version: Version,
    limits: &Limits,
    label: &str,
    default: &TenantId,
) -> Result<Vec<(TenantId, Vec<u8>)>, Denial> {
    let mut scratch = Vec::new();
    let plain = body.open(limits, &mut scratch).map_err(deny)?;
    let parts = match version {
        Version::V2 => remote_write::divide_v2(plain, label),
        Version::V1 | Version::Otlp(_) => remote_write::divide_v1(plain, label),
    };
    let part = |(tenant, plain): (String, Vec<u8>)| {
        let tenant = match tenant.as_str() {
            "" => default.clone(),
            named => {
                TenantId::new(named).map_err(|error| Denial::Invalid(format!("label {label}: {error}")))?
            }
        };
        Ok((tenant, remote_write::compress(&plain).map_err(deny)?))
    };
    parts.map_err(deny)?.into_iter().map(part).collect()
}

/// One outcome of several. Where all were turned away, the first says why; where only some were, what they had counts as
/// not stored for now, because the others were taken and a 4xx would say that a retry cannot help.
pub fn together(parts: Vec<Result<Summary, Denial>>) -> Result<Summary, Denial> {
    if parts.iter().all(Result::is_err) {
        return parts.into_iter().next().unwrap_or_else(|| Ok(Summary::default()));
    }
    let mut all = Summary::default();
    for part in parts {
        match part {
            Ok(part) => {
                all.accepted += part.accepted;
                all.deduplicated += part.deduplicated;
                all.histograms += part.histograms;
                all.exemplars += part.exemplars;
                all.retryable += part.retryable;
                for (reason, samples) in Refusal::ALL.iter().zip(part.refused) {
                    all.refuse(*reason, samples);
                }
                all.example = all.example.or(part.example);
                all.trouble = all.trouble.or(part.trouble);
            }
            // At least one sample; how many is not known of what was not decoded.
            Err(Denial::Busy(why) | Denial::RateLimited(why, _)) => {
                all.retryable += 1;
                all.trouble = all.trouble.or(Some(why));
            }
            Err(denial) => return Err(denial),
        }
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_turned_away_is_a_retry_and_all_is_their_answer() {
        let taken = || Ok(Summary { accepted: 2, ..Summary::default() });
        let limited = || Err(Denial::RateLimited("slower".to_owned(), 3));
        assert_eq!(together(vec![limited(), limited()]).unwrap_err(), limited().unwrap_err());
        let both = together(vec![taken(), limited(), taken()]).unwrap();
        assert_eq!((both.accepted, both.retryable, both.trouble.as_deref()), (4, 1, Some("slower")));
        let too_large = Denial::TooLarge("x".to_owned());
        assert_eq!(together(vec![taken(), Err(too_large.clone())]).unwrap_err(), too_large);
    }
}
