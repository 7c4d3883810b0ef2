//! What the door lets in, and what it says to the rest.

use settings::{ByteSize, Span};

use super::*;

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let pair = |(name, value): &(&str, &str)| (name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
    pairs.iter().map(pair).collect()
}

#[test]
fn types_and_encodings() {
    let check = |name: &str, value: &str| check_head(&headers(&[(name, value)]));
    assert_eq!(check_head(&HeaderMap::new()), Ok((Version::V1, Packing::Snappy)));
    for encoding in ["snappy", "Snappy", ""] {
        assert_eq!(check("content-encoding", encoding), Ok((Version::V1, Packing::Snappy)));
    }
    assert_eq!(check("content-encoding", "zstd"), Ok((Version::V1, Packing::Zstd)));
    for encoding in ["gzip", "deflate", "snappy, gzip", "zstd, snappy"] {
        assert!(matches!(check("content-encoding", encoding), Err(Denial::Unsupported(_))), "{encoding}");
    }
    for good in [
        "application/x-protobuf",
        "application/x-protobuf;proto=prometheus.WriteRequest",
        "application/x-protobuf; proto=prometheus.WriteRequest",
        "Application/X-Protobuf; charset=utf-8",
    ] {
        assert_eq!(check("content-type", good).unwrap().0, Version::V1, "{good}");
    }
    for bad in ["application/json", "image/png", "application/x-protobuf;x", "application/x-protobuf;proto=y"]
    {
        assert!(matches!(check("content-type", bad), Err(Denial::Unsupported(_))), "{bad}");
    }
    for two in [
        "application/x-protobuf;proto=io.prometheus.write.v2.Request",
        "application/x-protobuf; proto=\"io.prometheus.write.v2.Request\"; charset=utf-8",
    ] {
        assert_eq!(check("content-type", two).unwrap().0, Version::V2, "{two}");
    }
}

#[test]
fn tenants() {
    let tenancy = Tenancy { header: "X-Scope-OrgID".to_owned(), ..Tenancy::default() };
    let of = |pairs: &[(&str, &str)]| {
        let (mut head, ()) = http::Request::new(()).into_parts();
        head.headers = headers(pairs);
        tenant_of(&head, &tenancy).map(|t| t.to_string())
    };
    assert_eq!(of(&[]).unwrap(), "default-tenant");
    assert_eq!(of(&[("thanos-tenant", "a")]).unwrap(), "a");
    assert_eq!(of(&[("thanos-tenant", "a"), ("x-scope-orgid", "b")]).unwrap(), "b");
    assert_eq!(of(&[("thanos-tenant", "")]).unwrap(), "default-tenant");
    for bad in ["..", ".", "a/b", "../../etc", "a b"] {
        assert!(matches!(of(&[("thanos-tenant", bad)]), Err(Denial::Invalid(_))), "{bad}");
    }
    assert_eq!(replica_of(&headers(&[("thanos-replica", "2")]), "THANOS-REPLICA"), Ok(2));
    assert!(replica_of(&headers(&[("thanos-replica", "-1")]), "THANOS-REPLICA").is_err());
}

fn tenant() -> TenantId {
    TenantId::new("a").unwrap()
}

fn admission(max_body: u64, inflight: u64) -> Admission {
    Admission::new(&Settings {
        max_body: ByteSize::from_bytes(max_body),
        max_inflight: ByteSize::from_bytes(inflight),
        inflight_wait: Span::from_ms(50),
        ..Settings::default()
    })
}

#[tokio::test]
async fn a_body_is_held_and_bounded() {
    let admission = admission(100, 1000);
    let none = HeaderMap::new();
    let ok = admission
        .read(&tenant(), &none, Body::from(vec![b'x'; 100]), Version::V1, Packing::Snappy, |_| Ok(()))
        .await
        .unwrap();
    assert_eq!((ok.body.len(), admission.held_bytes()), (100, ok.permit.bytes()));
    drop(ok);
    assert_eq!(admission.held_bytes(), 0);
    let over = admission
        .read(&tenant(), &none, Body::from(vec![b'x'; 101]), Version::V1, Packing::Snappy, |_| Ok(()))
        .await
        .unwrap_err();
    assert!(matches!(over, Denial::TooLarge(_)));
    let declared = headers(&[("content-length", "5000000000")]);
    let over = admission
        .read(&tenant(), &declared, Body::empty(), Version::V1, Packing::Snappy, |_| Ok(()))
        .await
        .unwrap_err();
    assert!(matches!(over, Denial::TooLarge(text) if text.contains("5000000000")));
    let held = admission.hold(950).await.unwrap();
    let busy = admission
        .read(
            &tenant(),
            &headers(&[("content-length", "90")]),
            Body::empty(),
            Version::V1,
            Packing::Snappy,
            |_| Ok(()),
        )
        .await
        .unwrap_err();
    assert!(matches!(busy, Denial::Busy(text) if text.contains("950 of 1000")));
    drop(held);
}

/// There is place for one of them at a time with what it becomes, and for the bodies of all: one after the other is taken,
/// none waits for what the others hold.
#[tokio::test]
async fn bodies_never_keep_each_other_from_what_they_become() {
    // Nothing that becomes smaller.
    let plain: Vec<u8> = (0..4096u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    let body = wire::remote_write::compress(&plain).unwrap();
    let admission = admission(20 << 10, 64 << 10);
    let (whose, length) = (tenant(), headers(&[("content-length", &body.len().to_string())]));
    let all = (0..8).map(|_| async {
        let body = Body::from(body.clone());
        let read = admission.read(&whose, &length, body, Version::V1, Packing::Snappy, |_| Ok(()));
        let admitted = read.await.unwrap();
        assert_eq!(admitted.permit.bytes(), admitted.body.len() as u64 + 2 * admitted.plain);
        tokio::task::yield_now().await;
    });
    futures::future::join_all(all).await;
    assert_eq!(admission.held_bytes(), 0);
}

#[tokio::test]
async fn a_body_that_breaks_off_may_come_again_and_a_malformed_one_may_not() {
    let broken = |kind: ErrorKind| {
        let frames = [Ok(axum::body::Bytes::from_static(b"x")), Err(std::io::Error::new(kind, "why"))];
        Body::from_stream(futures::stream::iter(frames))
    };
    let admission = admission(100, 1000);
    let read = async |kind| {
        admission
            .read(&tenant(), &HeaderMap::new(), broken(kind), Version::V1, Packing::Snappy, |_| Ok(()))
            .await
            .unwrap_err()
    };
    for kind in [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset, ErrorKind::TimedOut] {
        assert!(matches!(read(kind).await, Denial::Busy(_)), "{kind:?}");
    }
    assert!(matches!(read(ErrorKind::InvalidInput).await, Denial::Invalid(_)));
    assert_eq!(admission.held_bytes(), 0);
}

#[tokio::test]
async fn a_body_that_stalls_may_come_again() {
    let admission = admission(100, 1000);
    let first = futures::stream::iter([Ok::<_, std::io::Error>(axum::body::Bytes::from_static(b"x"))]);
    let stalled = Body::from_stream(futures::StreamExt::chain(first, futures::stream::pending()));
    let denial = admission
        .read(&tenant(), &HeaderMap::new(), stalled, Version::V1, Packing::Snappy, |_| Ok(()))
        .await
        .unwrap_err();
    assert!(matches!(denial, Denial::Busy(text) if text.contains("stopped")));
}
