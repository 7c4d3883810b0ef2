//! OTLP's requests, protobuf and JSON, until they are remote write 2.0.

use prost::Message;
use wire::otlp::{Request, Settings, Translation, decode, decode_json, translate};
use wire::pb::io::prometheus::write::v2;
use wire::remote_write::{DecodedV2, Limits, decode_v2};

/// A byte of settings, then a body. What is decoded is translated into a request that our door takes, each of whose series
/// has a name and labels that a series may have, and never more of them than are allowed.
pub fn request(bytes: &[u8]) {
    let Some((&flags, body)) = bytes.split_first() else { return };
    let flag = |bit: u8| flags & (1 << bit) != 0;
    let request = match flag(0) {
        true => decode_json(body),
        false => {
            let ours = decode(body);
            if let Ok(ours) = &ours {
                // By their bytes: NaN is not equal to itself.
                let theirs = Request::decode(body).expect("what was decoded is protobuf");
                assert_eq!(ours.encode_to_vec(), theirs.encode_to_vec());
            }
            ours
        }
    };
    let Ok(request) = request else { return };
    let settings = Settings {
        translation: Translation::ALL[usize::from(flags >> 1 & 3)].1,
        promote_resource_attributes: vec!["service.name".to_owned(), "a.b".to_owned()],
        promote_all_resource_attributes: flag(3),
        target_info: !flag(4),
        keep_identifying_resource_attributes: flag(5),
        promote_scope_metadata: flag(5),
        convert_histograms_to_nhcb: flag(6),
        native_delta_ingestion: flag(7),
        max_series: 200,
    };
    let Ok(translated) = translate(&request, &settings) else { return };
    let plain = &translated.request;
    let theirs = v2::Request::decode(&plain[..]).expect("a request that a protobuf library reads");
    let mut out = DecodedV2::default();
    decode_v2(plain, &Limits::default(), &mut out).expect("a request that our door reads");
    assert_eq!(out.columns.series().len(), theirs.timeseries.len());
    assert!(theirs.timeseries.len() <= settings.max_series, "{} series", theirs.timeseries.len());
    for series in out.columns.series() {
        for histogram in out.columns.histograms_of(series) {
            match &histogram.histogram {
                Ok(histogram) => assert_eq!(histogram.check(), Ok(())),
                Err(error) => panic!("a histogram that is not one was not set aside: {error:?}"),
            }
        }
    }
}
