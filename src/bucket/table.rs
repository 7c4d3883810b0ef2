//! Blocks of a bucket as text: the output of `tools bucket ls` and `tools bucket inspect`.

use std::fmt::Write as _;

use block::Meta;
use block::meta::rfc3339;
use model::{Kind, format_duration};

use crate::{Catalogue, Error, State};

/// How `ls` prints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LsOutput {
    /// One id per line.
    #[default]
    Ids,
    /// One meta.json per block, one after the other.
    Json,
    /// One line per block.
    Wide,
}

impl std::str::FromStr for LsOutput {
    type Err = Error;

    fn from_str(text: &str) -> Result<LsOutput, Error> {
        match text {
            "" => Ok(LsOutput::Ids),
            "json" => Ok(LsOutput::Json),
            "wide" => Ok(LsOutput::Wide),
            other => Err(Error::new(Kind::Invalid, format!("output {other:?} is not json or wide"))),
        }
    }
}

/// How `inspect` prints.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InspectOutput {
    #[default]
    Table,
    Csv,
    Tsv,
    Json,
}

impl std::str::FromStr for InspectOutput {
    type Err = Error;

    fn from_str(text: &str) -> Result<InspectOutput, Error> {
        match text {
            "" | "table" => Ok(InspectOutput::Table),
            "csv" => Ok(InspectOutput::Csv),
            "tsv" => Ok(InspectOutput::Tsv),
            "json" => Ok(InspectOutput::Json),
            other => {
                Err(Error::new(Kind::Invalid, format!("output {other:?} is not table, csv, tsv or json")))
            }
        }
    }
}

/// Lists every block with a readable meta.json; with `exclude_marked` not those marked for deletion.
pub fn ls(catalogue: &Catalogue, output: LsOutput, exclude_marked: bool) -> Result<String, Error> {
    let mut out = String::new();
    for (id, meta) in &catalogue.readable {
        let marked = catalogue.marks.contains_key(id);
        if exclude_marked && marked {
            continue;
        }
        match output {
            LsOutput::Ids => out.push_str(&format!("{id}\n")),
            LsOutput::Json => {
                let text = meta.to_json().map_err(|e| Error::with_source(e.kind, e.message.clone(), e))?;
                out.push_str(&String::from_utf8_lossy(&text));
                out.push('\n');
            }
            LsOutput::Wide => {
                let Row { from, until, range, level, resolution, source, .. } = Row::of(meta);
                let mut line = format!(
                    "{id} -- {from} - {until} Diff: {range}, Compaction: {level}, Downsample: {resolution}, Source: {source}"
                );
                if marked {
                    line.push_str(", marked for deletion");
                }
                out.push_str(&line);
                out.push('\n');
            }
        }
    }
    Ok(out)
}

/// Prints every block with a readable meta.json in columns; below the table, folders that are no block (yet).
pub fn inspect(catalogue: &Catalogue, output: InspectOutput) -> Result<String, Error> {
    let mut metas: Vec<&Meta> = catalogue.readable.values().map(|m| &**m).collect();
    metas.sort_by_key(|m| (m.min_time, m.max_time, m.ulid));
    if output == InspectOutput::Json {
        let text = serde_json::to_string_pretty(&metas)
            .map_err(|e| Error::new(Kind::Internal, format!("metas cannot be printed: {e}")))?;
        return Ok(text + "\n");
    }
    let rows: Vec<[String; COLUMNS]> = metas.iter().map(|meta| Row::of(meta).cells()).collect();
    Ok(match output {
        InspectOutput::Csv => separated(&rows, ',', quote),
        InspectOutput::Tsv => separated(&rows, '\t', |cell| cell.replace(['\t', '\n'], " ")),
        _ => {
            let mut out = drawn(&rows);
            for (id, (state, why)) in &catalogue.states {
                if !catalogue.readable.contains_key(id) || *state == State::Duplicate {
                    let _ = writeln!(out, "{id}: {}: {why}", state.as_str());
                }
            }
            out
        }
    })
}

const COLUMNS: usize = 12;
const HEADINGS: [&str; COLUMNS] = [
    "ULID",
    "FROM",
    "UNTIL",
    "RANGE",
    "#SERIES",
    "#SAMPLES",
    "#CHUNKS",
    "COMP LEVEL",
    "COMP FAILED",
    "LABELS",
    "RESOLUTION",
    "SOURCE",
];

struct Row {
    id: String,
    from: String,
    until: String,
    range: String,
    series: u64,
    samples: u64,
    chunks: u64,
    level: u32,
    failed: bool,
    labels: String,
    resolution: String,
    source: String,
}

impl Row {
    fn of(meta: &Meta) -> Row {
        let thanos = meta.thanos.as_ref();
        let labels: Vec<String> =
            thanos.iter().flat_map(|t| &t.labels).map(|(n, v)| format!("{n}={v}")).collect();
        Row {
            id: meta.ulid.to_string(),
            from: rfc3339(meta.min_time),
            until: rfc3339(meta.max_time),
            range: format_duration(meta.max_time.saturating_sub(meta.min_time)),
            series: meta.stats.num_series,
            samples: meta.stats.num_samples,
            chunks: meta.stats.num_chunks,
            level: meta.compaction.level,
            failed: meta.compaction.failed,
            labels: labels.join(","),
            resolution: format_duration(meta.resolution()),
            source: thanos.map(|t| t.source.clone()).unwrap_or_default(),
        }
    }

    fn cells(self) -> [String; COLUMNS] {
        [
            self.id,
            self.from,
            self.until,
            self.range,
            self.series.to_string(),
            self.samples.to_string(),
            self.chunks.to_string(),
            self.level.to_string(),
            self.failed.to_string(),
            self.labels,
            self.resolution,
            self.source,
        ]
    }
}

fn separated(rows: &[[String; COLUMNS]], by: char, cell: impl Fn(&str) -> String) -> String {
    let line = |cells: Vec<String>| cells.join(&by.to_string()) + "\n";
    let mut out = line(HEADINGS.iter().map(|h| (*h).to_owned()).collect());
    rows.iter().for_each(|row| out.push_str(&line(row.iter().map(|c| cell(c)).collect())));
    out
}

fn quote(cell: &str) -> String {
    if cell.contains([',', '"', '\n']) {
        format!("\"{}\"", cell.replace('"', "\"\""))
    } else {
        cell.to_owned()
    }
}

fn drawn(rows: &[[String; COLUMNS]]) -> String {
    let headings = HEADINGS.map(str::to_owned);
    let mut widths = [0; COLUMNS];
    for row in rows.iter().chain([&headings]) {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let rule: String = widths.iter().map(|w| format!("+{}", "-".repeat(w + 2))).collect::<String>() + "+\n";
    let line = |row: &[String; COLUMNS]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("| {cell:width$} "));
        cells.collect::<String>() + "|\n"
    };
    let mut out = rule.clone() + &line(&headings) + &rule;
    rows.iter().for_each(|row| out.push_str(&line(row)));
    out + &rule
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use block::BlockId;

    use super::*;

    #[test]
    fn blocks_in_every_form() {
        let id = BlockId::from_parts(1, 2);
        let text = format!(
            "{{\"ulid\":\"{id}\",\"minTime\":0,\"maxTime\":7200000,\"version\":1,\"stats\":{{\"numSamples\":9,\
             \"numSeries\":3,\"numChunks\":4}},\"compaction\":{{\"level\":1}},\"thanos\":{{\"labels\":\
             {{\"a\":\"1\",\"b\":\"2\"}},\"source\":\"receive\",\"downsample\":{{\"resolution\":300000}}}}}}"
        );
        let mut catalogue = Catalogue::default();
        catalogue.readable.insert(id, Arc::new(Meta::parse(text.as_bytes()).unwrap()));
        let partial = BlockId::from_parts(2, 2);
        catalogue.states.insert(partial, (State::NoMeta, "no meta".to_owned()));
        assert_eq!(ls(&catalogue, LsOutput::Ids, false).unwrap(), format!("{id}\n"));
        let wide = ls(&catalogue, LsOutput::Wide, false).unwrap();
        assert!(
            wide.contains("1970-01-01T00:00:00Z - 1970-01-01T02:00:00Z Diff: 2h, Compaction: 1"),
            "{wide}"
        );
        let table = inspect(&catalogue, InspectOutput::Table).unwrap();
        assert!(table.contains("| 2h    | 3       | 9        | 4       |"), "{table}");
        assert!(table.contains("| a=1,b=2 | 5m "), "{table}");
        assert!(table.ends_with(&format!("{partial}: no-meta-json: no meta\n")), "{table}");
        assert!(inspect(&catalogue, InspectOutput::Csv).unwrap().contains(",\"a=1,b=2\",5m,receive\n"));
        catalogue.marks.insert(id, crate::DeletionMark::new(id, 0, ""));
        assert_eq!(ls(&catalogue, LsOutput::Ids, true).unwrap(), "");
        assert!("yaml".parse::<LsOutput>().is_err());
    }
}
