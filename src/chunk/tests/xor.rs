//! Float chunks: bytes worked out by hand from the format, round trips of anything, and bytes from anywhere.

use chunk::{Error, xor};
use model::{Sample, TimeRange, stale_nan};
use proptest::prelude::*;

fn sample(timestamp: i64, value: f64) -> Sample {
    Sample { timestamp, value }
}

fn decode(bytes: &[u8]) -> Result<Vec<Sample>, Error> {
    xor::Iter::new(bytes)?.collect()
}

/// Bytes from a text of hex digits up to `|`, then of bits; the last byte is padded with zeroes.
fn bytes(text: &str) -> Vec<u8> {
    let (hex, bits) = text.split_once('|').unwrap();
    let digits: Vec<u32> = hex.chars().filter_map(|c| c.to_digit(16)).collect();
    let mut out: Vec<u8> = digits.chunks(2).map(|d| (d[0] * 16 + d[1]) as u8).collect();
    let bits: Vec<u32> = bits.chars().filter_map(|c| c.to_digit(2)).collect();
    out.extend(
        bits.chunks(8).map(|b| (0..8).fold(0, |v, at| v << 1 | b.get(at).copied().unwrap_or(0) as u8)),
    );
    out
}

fn check(samples: &[Sample], golden: &str) {
    let encoded = xor::encode(samples.iter().copied()).unwrap();
    assert_eq!(encoded, bytes(golden));
    assert_eq!(decode(&encoded).unwrap(), samples);
    assert_eq!(usize::from(xor::count(&encoded).unwrap()), samples.len());
}

#[test]
fn golden_by_hand() {
    check(&[], "0000 |");
    // One: count, zigzag of 1000, 1.0.
    check(&[sample(1000, 1.0)], "0001 d00f 3ff0000000000000 |");
    // Equal steps of an equal value take two bits each.
    check(
        &[sample(1000, 1.0), sample(1010, 1.0), sample(1020, 1.0)],
        "0003 d00f 3ff0000000000000 0a | 0  0 0",
    );
    // 12 ^ 24 has 11 leading and 52 trailing zeroes: one significant bit.
    check(
        &[
            sample(-1, 12.0),
            sample(14_999, 24.0), // delta 15000
            sample(30_004, 24.0), // delta of deltas +5
            sample(36_817, 12.0), // -8192 does not fit 14 bits
            sample(51_822, 24.0), // +8192 does
        ],
        "0005 01 4028000000000000 9875 |
         11 01011 000001 1
         10 00000000000101  0
         110 11110000000000000  10 1
         10 10000000000000  10 1",
    );
    // 64 significant bits are written as 0, leading zeroes as 31 at most; deltas of deltas at every edge.
    let (a, b) = (f64::from_bits(0x8000_0000_0000_0001), f64::from_bits(1 << 20));
    check(
        &[
            sample(0, 0.0),
            sample(0, a),                  // delta 0, all 64 bits
            sample(65_536, a),             // +65536: the top of 17 bits
            sample(65_536, 0.0),           // -131072... of the delta before: 20 bits; window reused
            sample(524_288 + 65_536, 0.0), // 20 bits' top
        ],
        &format!(
            "0005 00 0000000000000000 00 |
             11 00000 000000 {:064b}
             110 10000000000000000  0
             1110 11110000000000000000  10 {:064b}
             1110 10000000000000000000  0",
            a.to_bits(),
            a.to_bits()
        ),
    );
    check(
        &[sample(0, 0.0), sample(1, b), sample(524_291, b)],
        "0003 00 0000000000000000 01 | 11 11111 001101 0000000000001  1111
         0000000000000000000000000000000000000000000010000000000000000001 0",
    );
    check(
        &[sample(0, 1.0), sample(15, stale_nan())],
        &format!(
            "0002 00 3ff0000000000000 0f | 11 00001 111110 {:062b}",
            (0x3ff0_0000_0000_0000u64 ^ 0x7ff0_0000_0000_0002) >> 1
        ),
    );
}

#[test]
fn full_at_65535() {
    let (mut appender, mut out) = (xor::Appender::default(), Vec::new());
    for n in 0..65_535 {
        appender.push(&mut out, sample(n, n as f64)).unwrap();
    }
    let before = out.clone();
    assert_eq!(appender.push(&mut out, sample(65_535, 0.0)), Err(Error::Full));
    assert_eq!((out == before, decode(&out).unwrap().len(), appender.count()), (true, 65_535, 65_535));
}

#[test]
fn readable_after_every_push() {
    let (mut appender, mut out, mut pushed) = (xor::Appender::default(), Vec::new(), Vec::new());
    for n in 0..300i64 {
        let next = sample(n * 15_000 + n % 7, (n * n) as f64 * 0.1);
        appender.push(&mut out, next).unwrap();
        pushed.push(next);
        assert_eq!(decode(&out).unwrap(), pushed);
        assert_eq!((appender.last_timestamp(), appender.last_value()), (next.timestamp, next.value));
    }
}

/// A scrape's life: mostly steady steps with jitter, values that walk, repeat, reset, go stale or are arbitrary.
fn walk() -> impl Strategy<Value = Vec<Sample>> {
    let step = prop_oneof![
        6 => Just(15_000i64),
        3 => 14_990i64..15_010,
        1 => 0i64..1_000_000,
        1 => any::<i64>(),
        1 => prop_oneof![Just(8191i64), Just(8192), Just(8193), Just(65_536), Just(65_537), Just(524_288), Just(524_289)],
    ];
    let value = prop_oneof![
        4 => (0u32..100).prop_map(|by| (0u8, by as f64)),
        3 => Just((0, 0.0)),
        2 => any::<u64>().prop_map(|bits| (1, f64::from_bits(bits))),
        1 => Just((1, stale_nan())),
        1 => prop_oneof![Just(f64::NAN), Just(-0.0), Just(f64::INFINITY), Just(f64::MIN_POSITIVE / 2.0)].prop_map(|v| (1, v)),
    ];
    (any::<i64>(), prop::collection::vec((step, value), 0..200)).prop_map(|(start, steps)| {
        let (mut at, mut level) = (start, 0.0f64);
        let next = |(step, (absolute, value)): (i64, (u8, f64))| {
            at = at.wrapping_add(step);
            if absolute == 1 {
                return sample(at, value);
            }
            level += value;
            sample(at, level)
        };
        steps.into_iter().map(next).collect()
    })
}

proptest! {
    #[test]
    fn any_walk_round_trips(samples in walk()) {
        let encoded = xor::encode(samples.iter().copied()).unwrap();
        prop_assert_eq!(decode(&encoded).unwrap(), samples);
    }

    #[test]
    fn pieces_are_filled_alike(samples in walk(), size in 1usize..70) {
        let (mut grows, mut pieced) = (xor::Appender::default(), xor::Appender::default());
        let (mut wanted, mut full, mut tail, mut len) = (Vec::new(), Vec::new(), vec![0xaa; size.max(xor::MOST_BYTES + 1)], 0);
        for sample in samples {
            grows.push(&mut wanted, sample).unwrap();
            match pieced.push_tail(&mut tail, len, sample) {
                Ok(longer) => len = longer,
                Err(error) => {
                    prop_assert_eq!(error, Error::NoRoom);
                    // As if nothing had been tried.
                    let aside = pieced.push_aside(tail[len - 1], sample);
                    full.extend_from_slice(&tail[..len - 1]);
                    tail[..aside.bytes().len()].copy_from_slice(aside.bytes());
                    len = aside.bytes().len();
                }
            }
            let mut whole = [&full[..], &tail[..len]].concat();
            whole[..2].copy_from_slice(&pieced.count().to_be_bytes());
            prop_assert_eq!(&whole, &wanted);
            if let Some(packed) = pieced.pack() {
                pieced = packed.unpack(pieced.last_timestamp());
            }
        }
    }

    #[test]
    fn cut_short_is_truncated(samples in walk(), cut in 0.0f64..1.0) {
        let encoded = xor::encode(samples.iter().copied()).unwrap();
        let end = (encoded.len() as f64 * cut) as usize;
        match decode(&encoded[..end]) {
            Err(error) => prop_assert_eq!(error, Error::Truncated),
            Ok(_) => prop_assert!(false, "cut to {} of {}", end, encoded.len()),
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..300), count in any::<u16>()) {
        let _ = decode(&bytes);
        if bytes.len() > 2 {
            bytes[..2].copy_from_slice(&count.to_be_bytes());
            let mut iter = xor::Iter::new(&bytes).unwrap();
            let good = iter.by_ref().take_while(Result::is_ok).count();
            prop_assert!(good <= usize::from(count) && iter.next().is_none());
        }
    }

    #[test]
    fn damaged_chunks_never_panic(samples in walk(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let mut encoded = xor::encode(samples.iter().copied()).unwrap();
        let at = at.index(encoded.len());
        encoded[at] ^= 1 << bit;
        let _ = decode(&encoded);
    }
}

proptest! {
    #[test]
    fn a_range_is_what_a_walk_finds_in_it(
        steps in prop::collection::vec((1i64..100_000, any::<f64>()), 0..200),
        start in -10i64..10_000_000,
        length in -10i64..10_000_000,
    ) {
        let mut t = 0;
        let samples: Vec<Sample> = steps.iter().map(|(d, v)| { t += d; sample(t, *v) }).collect();
        let encoded = xor::encode(samples.iter().copied()).unwrap();
        let range = TimeRange::new(start, start + length);
        let (mut times, mut values) = (vec![7], vec![7.0]);
        xor::decode_range(&encoded, range, &mut times, &mut values).unwrap();
        let wanted: Vec<_> = samples.iter().filter(|s| range.contains(s.timestamp)).collect();
        prop_assert_eq!(times.len(), wanted.len() + 1);
        prop_assert_eq!(values.len(), times.len());
        for (at, s) in wanted.iter().enumerate() {
            prop_assert_eq!(times[at + 1], s.timestamp);
            prop_assert_eq!(values[at + 1].to_bits(), s.value.to_bits());
        }
    }

    #[test]
    fn a_range_of_any_bytes_is_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        let (mut times, mut values) = (Vec::new(), Vec::new());
        let read = xor::decode_range(&bytes, TimeRange::ALL, &mut times, &mut values);
        prop_assert_eq!(times.len(), values.len());
        let walked = decode(&bytes);
        prop_assert_eq!(read.is_ok(), walked.is_ok());
    }

    #[test]
    fn a_chunk_of_one_sample_is_the_same_either_way(t in any::<i64>(), v in any::<f64>()) {
        let mut out = Vec::new();
        xor::put_one(&mut out, sample(t, v));
        prop_assert_eq!(out, xor::encode([sample(t, v)]).unwrap());
    }
}
