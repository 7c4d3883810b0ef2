//! Methods, types, encodings and bodies that are none.

use super::*;

const UP: &[(&str, &str)] = &[("__name__", "up")];

fn up_1() -> Sent {
    one(UP).float(0, 1.0).into()
}

fn up_2() -> Sent {
    two(UP).float(0, 1.0).into()
}

// Of the type of those that change the length.
#[allow(clippy::ptr_arg)]
fn corrupt(body: &mut Vec<u8>) {
    body[0] = b'0';
}

fn chunked(body: &mut Vec<u8>) {
    let mut out = format!("{:x}\r\n", body.len()).into_bytes();
    out.append(body);
    out.extend(b"\r\n0\r\n\r\n");
    *body = out;
}

/// A frame that says how much it holds.
fn zstd(plain: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(plain, 3).unwrap()
}

/// One that does not.
fn zstd_stream(plain: &[u8]) -> Vec<u8> {
    zstd::stream::encode_all(plain, 1).unwrap()
}

pub fn cases() -> Vec<Case> {
    let v3 = "application/x-protobuf;proto=io.prometheus.write.v3.Request";
    let spaced = "application/x-protobuf; proto=io.prometheus.write.v2.Request";
    let named = "application/x-protobuf;proto=prometheus.WriteRequest";
    // The declared size is 4 GiB, in five bytes.
    let bomb = [0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0];
    vec![
        case("type_json_is_refused_before_the_body_is_read").sends(
            up_2().header("Content-Type", "application/json").spoiled(corrupt),
            415,
            SILENT,
            "content type \"application/json\" is not supported",
        ),
        case("type_png_is_refused_before_the_body_is_read").sends(
            up_2().header("Content-Type", "image/png").spoiled(corrupt),
            415,
            SILENT,
            "content type \"image/png\" is not supported",
        ),
        case("encoding_gzip_is_refused_before_the_body_is_read").sends(
            up_2().header("Content-Encoding", "gzip").spoiled(corrupt),
            415,
            SILENT,
            "content encoding \"gzip\" is not supported",
        ),
        case("encoding_deflate_is_refused_before_the_body_is_read").sends(
            up_2().header("Content-Encoding", "deflate").spoiled(corrupt),
            415,
            SILENT,
            "content encoding \"deflate\" is not supported",
        ),
        case("encoding_is_judged_before_type").sends(
            up_2().header("Content-Encoding", "br").header("Content-Type", "image/png"),
            415,
            SILENT,
            "content encoding",
        ),
        case("corrupt_body_of_version_2").sends(
            up_2().spoiled(corrupt),
            400,
            wrote(0, 0, 0),
            "not a snappy block",
        ),
        case("corrupt_body_of_version_1").sends(
            up_1().spoiled(|body| body[0] = 0xff),
            400,
            SILENT,
            "not a snappy block",
        ),
        case("truncated_body").sends(
            up_1().spoiled(|body| body.truncate(body.len() - 3)),
            400,
            SILENT,
            "not a snappy block",
        ),
        case("body_that_is_no_protobuf").sends(
            raw(&wire::remote_write::compress(b"\x0a\xff\xff\xff\xff\x0f garbage").unwrap()),
            400,
            SILENT,
            "protobuf",
        ),
        case("body_that_is_no_protobuf_of_version_2").sends(
            raw(&wire::remote_write::compress(b"\x2a\xff\xff\xff\xff\x0f garbage").unwrap())
                .header("Content-Type", sent::TWO),
            400,
            wrote(0, 0, 0),
            "cut short",
        ),
        case("method_get_is_refused").sends(up_1().method("GET"), 405, SILENT, "Method Not Allowed"),
        case("encoding_is_absent")
            .sends(up_1().header("Content-Encoding", ""), 204, SILENT, "")
            .stores(&["up 0:1"]),
        case("encoding_in_another_case")
            .sends(up_1().header("Content-Encoding", "Snappy"), 204, SILENT, "")
            .stores(&["up 0:1"]),
        case("type_is_absent_and_stands_for_version_1")
            .sends(up_1().header("Content-Type", ""), 204, SILENT, "")
            .stores(&["up 0:1"]),
        case("type_names_version_1")
            .sends(up_1().header("Content-Type", named), 204, SILENT, "")
            .stores(&["up 0:1"]),
        case("type_names_version_2_behind_a_space")
            .sends(up_2().header("Content-Type", spaced), 204, wrote(1, 0, 0), "")
            .stores(&["up 0:1"]),
        case("type_has_another_parameter")
            .sends(up_1().header("Content-Type", "application/x-protobuf;charset=utf-8"), 204, SILENT, "")
            .stores(&["up 0:1"]),
        case("type_has_a_parameter_without_a_value").sends(
            up_1().header("Content-Type", "application/x-protobuf;proto"),
            415,
            SILENT,
            "is not supported",
        ),
        case("type_names_an_unknown_message").sends(
            up_1().header("Content-Type", v3),
            415,
            SILENT,
            "io.prometheus.write.v2.Request",
        ),
        case("version_header_decides_nothing")
            .sends(up_1().header("X-Prometheus-Remote-Write-Version", "2.0.0"), 204, SILENT, "")
            .sends(
                Sent::from(two(UP).float(1, 2.0)).header("X-Prometheus-Remote-Write-Version", "0.1.0"),
                204,
                wrote(1, 0, 0),
                "",
            )
            .stores(&["up 0:1 1:2"]),
        // The messages share no field, so that nothing is found in the other's.
        case("version_2_under_the_type_of_version_1").sends(
            up_2().header("Content-Type", "application/x-protobuf"),
            204,
            SILENT,
            "",
        ),
        case("version_1_under_the_type_of_version_2").sends(
            up_1().header("Content-Type", sent::TWO),
            204,
            wrote(0, 0, 0),
            "",
        ),
        case("bomb").sends(raw(&bomb), 413, SILENT, "4294967295 bytes after decompression"),
        case("bomb_of_version_2").sends(
            raw(&bomb).header("Content-Type", sent::TWO),
            413,
            wrote(0, 0, 0),
            "4294967295 bytes after decompression",
        ),
        case("body_is_larger_than_allowed").sends(raw(&[0; 70_000]), 413, SILENT, "write request too large"),
        case("body_declares_more_than_is_allowed").sends(
            raw(b"").header("Content-Length", "99999999"),
            413,
            SILENT,
            "99999999 bytes",
        ),
        case("body_in_chunks_without_a_length")
            .sends(up_1().header("Transfer-Encoding", "chunked").spoiled(chunked), 204, SILENT, "")
            .stores(&["up 0:1"]),
        case("every_path_takes_every_version")
            .sends(up_1().path("/api/v1/receive"), 204, SILENT, "")
            .sends(up_2().path("/api/v1/receive"), 204, wrote(1, 0, 0), "")
            .sends(up_1().path("/api/v1/push"), 204, SILENT, "")
            .sends(up_2().path("/api/v1/push"), 204, wrote(1, 0, 0), "")
            .stores(&["up 0:1"]),
        case("tenant_is_a_path").sends(up_1().header("THANOS-TENANT", ".."), 400, SILENT, "is a path"),
        case("tenant_has_a_slash").sends(
            up_1().header("THANOS-TENANT", "../etc/passwd"),
            400,
            SILENT,
            "contains '/'",
        ),
        case("copy_beyond_the_replication_factor").sends(
            up_1().header("THANOS-REPLICA", "2"),
            400,
            SILENT,
            "replication factor",
        ),
        case("copy_that_is_no_number").sends(
            up_1().header("THANOS-REPLICA", "x"),
            400,
            SILENT,
            "not the number",
        ),
        case("zstd_of_version_1").sends(up_1().packed("zstd", zstd), 204, SILENT, "").stores(&["up 0:1"]),
        case("zstd_of_version_2")
            .sends(up_2().packed("zstd", zstd), 204, wrote(1, 0, 0), "")
            .stores(&["up 0:1"]),
        case("zstd_that_does_not_say_its_size")
            .sends(up_2().packed("Zstd", zstd_stream), 204, wrote(1, 0, 0), "")
            .stores(&["up 0:1"]),
        case("zstd_that_is_none").sends(
            up_1().header("Content-Encoding", "zstd"),
            400,
            SILENT,
            "not a zstd frame",
        ),
        case("zstd_cut_short").sends(
            up_2().packed("zstd", zstd).spoiled(|body| body.truncate(body.len() - 1)),
            400,
            wrote(0, 0, 0),
            "not a zstd frame: it is cut short",
        ),
        case("bomb_of_zstd_that_says_its_size").sends(
            raw(&zstd(&vec![0; 8 << 20])).header("Content-Encoding", "zstd"),
            413,
            SILENT,
            "8388608 bytes after decompression",
        ),
        case("bomb_of_zstd_that_does_not_say_its_size").sends(
            raw(&zstd_stream(&vec![0; 8 << 20])).header("Content-Encoding", "zstd"),
            413,
            SILENT,
            "more than 1048576 bytes after decompression",
        ),
        case("empty_request_of_version_1").sends(One::empty(), 204, SILENT, ""),
        case("empty_request_of_version_2").sends(Two::empty(), 204, wrote(0, 0, 0), ""),
    ]
}
