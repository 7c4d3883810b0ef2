//! A write as bytes that can be kept and sent later: Thanos's message with our context, whatever way it went.

use model::Kind;
use storage::Error;
use wire::remote_write::{Limits, PeerWrite};

use super::{WriteCall, WriteRequest, WriteShape, client, server};

/// The rows of a call as bytes.
pub fn keep_write(call: &WriteCall) -> Vec<u8> {
    client::encode(call, WriteShape::Single, "").0.into()
}

/// What [`keep_write`] made of a call, judged again like anything that was read.
pub fn kept_write(bytes: &[u8]) -> Result<WriteRequest, Error> {
    let limits = Limits { max_bytes: usize::MAX, ..Limits::default() };
    let request = server::read(bytes, &limits, &mut PeerWrite::default())?;
    match request.groups.len() {
        1 => Ok(request),
        n => Err(Error::new(Kind::Corrupt, format!("a kept write is of one tenant, this one of {n}"))),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use model::{Labels, Sample, TenantId};
    use storage::WriteBatch;

    use super::*;

    #[test]
    fn a_kept_write_is_read_as_it_was_and_rubbish_is_refused() {
        let mut batch = WriteBatch::default();
        for n in 0..3 {
            let labels = Labels::from_pairs([("__name__", "up"), ("n", &n.to_string())]).unwrap();
            let samples = (0..4).map(|t| Sample { timestamp: t * 7, value: t as f64 });
            batch.push(labels.as_bytes(), labels.placement_hash("team"), samples);
        }
        batch.ask(true);
        let batch = Arc::new(batch);
        let tenant = TenantId::new("team").unwrap();
        let rows = vec![0, 2];
        let call =
            WriteCall { tenant, batch: Arc::clone(&batch), rows, replica: 2, judged_at: 77, ring_epoch: 0 };
        let bytes = keep_write(&call);
        let read = kept_write(&bytes).unwrap();
        assert_eq!((read.replica, read.judged_at), (2, Some(77)));
        let group = &read.groups[0];
        assert_eq!(group.tenant.as_str(), "team");
        assert!(group.batch.is_spliced() && group.batch.asks());
        for (at, row) in [0, 2].into_iter().enumerate() {
            let (kept, was) = (&group.batch.series()[at], &batch.series()[row]);
            assert_eq!(group.batch.label_bytes(kept), batch.label_bytes(was));
            assert_eq!(kept.hash, was.hash);
            assert_eq!(group.batch.samples()[kept.samples()], batch.samples()[was.samples()]);
        }
        assert!(kept_write(&[]).is_err());
        for at in 0..bytes.len() {
            // Whatever a prefix holds, it is no panic.
            let _ = kept_write(&bytes[..at]);
        }
    }
}
