//! Where `tracing` events go: one line each on standard error.

use std::fmt;

use tracing::{Event, Subscriber};
use tracing_subscriber::field::RecordFields;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, FormattedFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use crate::line::Line;

/// Least severe events that are logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

/// What a line looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `ts=2026-01-31T12:00:00.000000Z level=info msg="listening" address=127.0.0.1:10902`
    Logfmt,
    /// The same fields as one JSON object.
    Json,
}

/// Installs the log for the whole process. Later calls change nothing and say so by `false`.
pub fn init_logs(level: Level, format: Format) -> bool {
    subscriber(level, format, std::io::stderr).try_init().is_ok()
}

/// Logs several lines for every request to a peer that is away, as errors; what has to be known of it, `control` says.
const LOUD: &str = "openraft";
/// Libraries that log every frame at debug, and things that only they understand at info.
const CHATTY: [&str; 9] =
    ["h2", "hyper", "hyper_util", "tower", "tonic", "rustls", "reqwest", "hickory_proto", "hickory_resolver"];

fn subscriber<W>(level: Level, format: Format, writer: W) -> impl Subscriber + Send + Sync
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let level = match level {
        Level::Debug => LevelFilter::DEBUG,
        Level::Info => LevelFilter::INFO,
        Level::Warn => LevelFilter::WARN,
        Level::Error => LevelFilter::ERROR,
    };
    let chatty = CHATTY.map(|target| (target, level.min(LevelFilter::WARN)));
    let loud = if level == LevelFilter::DEBUG { LevelFilter::WARN } else { LevelFilter::OFF };
    let filter = Targets::new().with_default(level).with_targets(chatty).with_target(LOUD, loud);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(writer)
        .event_format(Lines(format))
        .fmt_fields(Lines(format));
    tracing_subscriber::registry().with(filter).with(lines)
}

#[derive(Clone, Copy)]
struct Lines(Format);

impl<'w> FormatFields<'w> for Lines {
    fn format_fields<R: RecordFields>(&self, mut writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut line = Line::new(self.0);
        fields.record(&mut line);
        writer.write_str(&line.into_fields())
    }
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'s> LookupSpan<'s>,
    N: for<'w> FormatFields<'w> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = Line::new(self.0);
        let mut now = String::new();
        SystemTime.format_time(&mut Writer::new(&mut now))?;
        line.put_text("ts", &now);
        line.put_text("level", &event.metadata().level().as_str().to_ascii_lowercase());
        line.put_text("caller", event.metadata().target());
        event.record(&mut line);
        for span in context.event_scope().into_iter().flatten() {
            if let Some(fields) = span.extensions().get::<FormattedFields<N>>() {
                line.put_fields(&fields.fields);
            }
        }
        writeln!(writer, "{}", line.finish())
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(level: Level, format: Format) -> String {
        let page = Page::default();
        let writer = page.clone();
        tracing::subscriber::with_default(subscriber(level, format, move || writer.clone()), || {
            tracing::debug!("too fine");
            tracing::info!(target: "h2", "chatter");
            tracing::error!(target: "openraft::replication", "a peer is away");
            let span = tracing::info_span!("write", tenant = "a b");
            let _in_span = span.enter();
            tracing::warn!(samples = 3, ok = true, error = %"disk full", "refused {}", 1);
        });
        String::from_utf8(page.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn lines_hold_time_level_message_and_fields() {
        let text = logged(Level::Info, Format::Logfmt);
        assert_eq!(text.lines().count(), 1, "{text}");
        let (ts, rest) = text.split_once(' ').unwrap();
        assert!(ts.starts_with("ts=20") && ts.ends_with('Z'), "{ts}");
        assert_eq!(
            rest,
            "level=warn caller=telemetry::logs::tests msg=\"refused 1\" samples=3 ok=true err=\"disk full\" tenant=\"a b\"\n"
        );
        let json = logged(Level::Info, Format::Json);
        assert!(json.starts_with("{\"ts\":\"20"), "{json}");
        assert!(
            json.ends_with(
                "\"msg\":\"refused 1\",\"samples\":3,\"ok\":true,\"err\":\"disk full\",\"tenant\":\"a b\"}\n"
            ),
            "{json}"
        );
        assert_eq!(logged(Level::Debug, Format::Logfmt).lines().count(), 3);
        assert_eq!(logged(Level::Error, Format::Logfmt), "");
    }
}
