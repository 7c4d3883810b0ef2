//! Every message, field and service of `proto/`, compared with the reviewed list in `proto/descriptor.golden.txt`.

use std::fmt::Write;
use std::path::Path;

use prost::Message;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet};

#[test]
#[allow(clippy::disallowed_methods)] // A test that keeps its own golden file.
fn the_wire_is_as_reviewed() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto/descriptor.golden.txt");
    let now = dump();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &now).unwrap();
        return;
    }
    let reviewed = std::fs::read_to_string(&path).unwrap_or_default();
    let changed: Vec<_> = now
        .lines()
        .filter(|line| !reviewed.lines().any(|r| r == *line))
        .map(|line| format!("+ {line}"))
        .chain(reviewed.lines().filter(|r| !now.lines().any(|l| l == *r)).map(|line| format!("- {line}")))
        .collect();
    assert!(
        now == reviewed,
        "proto/ differs from descriptor.golden.txt:\n{}\nif that is meant: UPDATE_GOLDEN=1 cargo test -p \
         tributary-wire --test descriptor",
        changed.join("\n")
    );
}

/// One line per service method, field and enum value, sorted by message.
fn dump() -> String {
    let set = FileDescriptorSet::decode(wire::DESCRIPTORS).unwrap();
    let mut lines = Vec::new();
    for file in &set.file {
        let package = file.package();
        if package.starts_with("google.") {
            continue;
        }
        for service in &file.service {
            for method in &service.method {
                let stream = |on: bool| if on { "stream " } else { "" };
                lines.push(format!(
                    "{package}.{}/{}({}{}) returns ({}{})",
                    service.name(),
                    method.name(),
                    stream(method.client_streaming()),
                    &method.input_type()[1..],
                    stream(method.server_streaming()),
                    &method.output_type()[1..],
                ));
            }
        }
        for message in &file.message_type {
            message_lines(package, message, &mut lines);
        }
        for one in &file.enum_type {
            enum_lines(package, one, &mut lines);
        }
    }
    lines.sort();
    let mut out = String::new();
    for line in lines {
        writeln!(out, "{line}").unwrap();
    }
    out
}

fn message_lines(parent: &str, message: &DescriptorProto, lines: &mut Vec<String>) {
    let name = format!("{parent}.{}", message.name());
    if message.field.is_empty() {
        lines.push(format!("{name} {{}}"));
    }
    for field in &message.field {
        let oneof = match field.oneof_index {
            Some(at) if !field.proto3_optional() => {
                format!(" oneof {}", message.oneof_decl[at as usize].name())
            }
            Some(_) => " optional".to_owned(),
            None => String::new(),
        };
        lines.push(format!("{name} {:>4} {}: {}{oneof}", field.number(), field.name(), type_of(field)));
    }
    for range in &message.reserved_range {
        lines.push(format!("{name} {:>4} reserved to {}", range.start(), range.end() - 1));
    }
    for nested in &message.nested_type {
        message_lines(&name, nested, lines);
    }
    for one in &message.enum_type {
        enum_lines(&name, one, lines);
    }
}

fn enum_lines(parent: &str, one: &EnumDescriptorProto, lines: &mut Vec<String>) {
    for value in &one.value {
        lines.push(format!("{parent}.{} enum {} = {}", one.name(), value.number(), value.name()));
    }
}

fn type_of(field: &FieldDescriptorProto) -> String {
    let scalar = match field.r#type() {
        Type::Message | Type::Enum => field.type_name()[1..].to_owned(),
        other => other.as_str_name().trim_start_matches("TYPE_").to_lowercase(),
    };
    if field.label() == Label::Repeated { format!("repeated {scalar}") } else { scalar }
}
