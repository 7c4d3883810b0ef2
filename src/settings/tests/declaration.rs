//! One declaration, read from flags and files: precedence, kingpin's notations, and what is said of mistakes.

use std::path::{Path, PathBuf};

use settings::{
    ByteSize, Error, FileText, LabelPair, Listen, Load, Loaded, Log, LogFormat, Origin, Span, example, load,
    with_flags,
};

settings::settings! {
    /// Keeps samples.
    pub struct Keeper {
        /// How many copies are kept.
        ["receive.replication-factor"] copies: u32 = 1;
        /// Where they are kept.
        ["tsdb.path"] path: PathBuf = PathBuf::from("./data");
        /// How long they are kept.
        ["tsdb.retention"] retention: Span = Span::from_days(15);
        /// Most bytes in memory.
        ["memory"] memory: ByteSize = ByteSize::from_mib(512);
        /// Compresses the log.
        ["tsdb.wal-compression"] compress: bool = true;
        /// Takes no lock.
        ["tsdb.no-lockfile"] no_lockfile: bool = false;
        /// Labels of the blocks.
        ["label"] labels: Vec<LabelPair> = Vec::new();
        /// Where to listen.
        ["http-address"] http: Listen = Listen::everywhere(10902);
        /// Document.
        ["objstore.config-file"] objstore: Option<PathBuf> = None;
        /// Document itself.
        ["objstore.config"] inline: Option<String> = None;
        /// For tests.
        [hidden "receive-forward-timeout"] forward_timeout: Span = Span::from_secs(5);
        [..] log: Log;
    }
}

impl Keeper {
    fn validate(&self) -> Result<(), String> {
        match self.copies {
            0 => Err("--receive.replication-factor must be 1 or more".to_owned()),
            _ => Ok(()),
        }
    }
}

fn read(args: &[&str], file: Option<&str>) -> Result<Loaded<Keeper>, String> {
    let command = with_flags::<Keeper>(clap::Command::new("keeper"));
    let args = std::iter::once("keeper").chain(args.iter().copied());
    let matches = command.try_get_matches_from(args).map_err(|e| e.to_string())?;
    let file = file.map(|text| FileText { path: Path::new("k.yaml"), text });
    load(&matches, file).map_err(|Error { message }| message)
}

#[test]
fn nothing_given_is_the_default() {
    let loaded = read(&[], None).unwrap();
    assert_eq!(loaded.settings, Keeper::default());
    assert_eq!(loaded.provenance.origin("log.level"), Some(&Origin::Default));
}

#[test]
fn flags_in_every_notation() {
    let args =
        ["--receive.replication-factor", "3", "--tsdb.retention=2d", "--label=a=\"1\"", "--label", "b=2"];
    let keeper = read(&args, None).unwrap().settings;
    assert_eq!((keeper.copies, keeper.retention), (3, Span::from_days(2)));
    assert_eq!(keeper.labels, [LabelPair::new("a", "1"), LabelPair::new("b", "2")]);
    let switches = |args: &[&str]| {
        let keeper = read(args, None).unwrap().settings;
        (keeper.compress, keeper.no_lockfile)
    };
    assert_eq!(switches(&["--tsdb.no-lockfile"]), (true, true));
    assert_eq!(switches(&["--no-tsdb.wal-compression"]), (false, false));
    assert_eq!(switches(&["--tsdb.wal-compression=false"]), (false, false));
    assert_eq!(switches(&["--no-tsdb.wal-compression", "--tsdb.wal-compression"]), (true, false));
    assert_eq!(read(&["--http-address=:1"], None).unwrap().settings.http.to_string(), ":1");
    assert_eq!(read(&["--receive-forward-timeout=1s"], None).unwrap().settings.forward_timeout.ms(), 1000);
    // Thanos's manifests say "" where a path is not set.
    assert_eq!(read(&["--objstore.config-file="], None).unwrap().settings.objstore, None);
}

#[test]
fn flag_before_file_before_default() {
    let file = "# mine\nreceive.replication-factor: 3\ntsdb.retention: 7d\nlog.format: json\nlabel:\n  - a=\"1\"\n  - b=2\n\
                tsdb.wal-compression: false\nmemory:\n";
    let loaded = read(&["--tsdb.retention=1d"], Some(file)).unwrap();
    let keeper = &loaded.settings;
    assert_eq!((keeper.copies, keeper.retention, keeper.compress), (3, Span::from_days(1), false));
    assert_eq!(keeper.log.format, LogFormat::Json);
    assert_eq!(keeper.labels, [LabelPair::new("a", "1"), LabelPair::new("b", "2")]);
    assert_eq!(keeper.memory, ByteSize::from_mib(512));
    let origin = |name| loaded.provenance.origin(name).unwrap().to_string();
    assert_eq!(origin("tsdb.retention"), "flag");
    assert_eq!(origin("receive.replication-factor"), "k.yaml line 2");
    assert_eq!(origin("tsdb.path"), "default");
    assert!(loaded.provenance.to_string().contains("tsdb.retention: 1d (flag)\n"));
    assert!(loaded.provenance.given().contains(&"log.format=json".to_owned()));
}

#[test]
fn documents_are_not_repeated() {
    let args = ["--objstore.config={type: S3, config: {secret_key: hunter2}}"];
    let loaded = read(&args, None).unwrap();
    assert_eq!(loaded.provenance.given(), ["objstore.config=<document>"]);
    let page: Vec<_> = loaded.provenance.shown().collect();
    assert!(page.contains(&("tsdb.retention", "15d".to_owned())));
    assert!(!format!("{page:?} {}", loaded.provenance).contains("hunter2"));
}

#[test]
fn a_single_text_is_a_list_of_one() {
    let keeper = read(&[], Some("label: a=\"1\"\n")).unwrap().settings;
    assert_eq!(keeper.labels, [LabelPair::new("a", "1")]);
}

#[test]
fn mistakes_are_named() {
    let problem = |args: &[&str], file: Option<&str>| read(args, file).unwrap_err();
    let unknown = problem(&["--tsdb.retenton=1d"], None);
    assert!(unknown.contains("--tsdb.retenton") && unknown.contains("--tsdb.retention"), "{unknown}");
    assert_eq!(
        problem(&["--tsdb.retention=soon"], None),
        "--tsdb.retention: \"soon\" is not a duration such as 30s, 1h30m or 15d"
    );
    assert_eq!(
        problem(&["--receive.replication-factor=0"], None),
        "--receive.replication-factor must be 1 or more"
    );
    assert!(problem(&["--memory=1MB", "--memory=2MB"], None).contains("cannot be used multiple times"));
    assert_eq!(
        problem(&[], Some("log.level: info\n\ntsdb.retentoin: 1d\nb: [1]\n")),
        "k.yaml line 3: unknown setting \"tsdb.retentoin\"; did you mean \"tsdb.retention\"?"
    );
    assert_eq!(
        problem(&[], Some("log.level: info\nhttp-address: 10902\n")),
        "k.yaml line 2: http-address: \"10902\" is not an address such as 0.0.0.0:10902, :10902 or [::1]:10902"
    );
    for (broken, said) in [
        ("- a\n- b\n", "k.yaml line 1: expected mapping start"),
        ("just text", "k.yaml line 1: expected mapping start"),
        ("\nlog.level: {a: b}\n", "k.yaml line 2: expected string scalar"),
        ("log.level: debug\nlog.level: info\n", "k.yaml line 2: duplicate mapping key: log.level"),
    ] {
        assert_eq!(problem(&[], Some(broken)), said);
    }
    assert!(problem(&[], Some("label: [a=b\n")).starts_with("k.yaml line "));
}

#[test]
fn numbers_keep_their_text() {
    // YAML would read these as a float, an octal number and a boolean.
    let keeper = read(&[], Some("tsdb.path: 1.10\nmemory: 0100\nlabel: yes=no\n")).unwrap().settings;
    assert_eq!(keeper.path, Path::new("1.10"));
    assert_eq!(keeper.memory, ByteSize::from_bytes(100));
}

#[test]
fn help_shows_defaults_and_hides_what_is_hidden() {
    let help = with_flags::<Keeper>(clap::Command::new("keeper")).render_long_help().to_string();
    assert!(help.contains("--tsdb.retention <DURATION>"), "{help}");
    assert!(help.contains("[default: 15d]") && help.contains("Logging:"), "{help}");
    assert!(!help.contains("forward-timeout") && !help.contains("--no-tsdb"), "{help}");
}

#[test]
fn the_example_file_is_the_defaults() {
    let text = example::<Keeper>("keeper");
    assert_eq!(read(&[], Some(&text)).unwrap().settings, Keeper::default());
    let is_key = |line: &str| line.starts_with('#') && !line.starts_with("# ");
    let uncommented: String = text
        .lines()
        .map(|line| if is_key(line) { format!("{}\n", &line[1..]) } else { format!("{line}\n") })
        .collect();
    let loaded = read(&[], Some(&uncommented)).unwrap();
    assert_eq!(loaded.settings, Keeper::default());
    for setting in Keeper::all().iter().filter(|s| !s.hidden && !s.default.is_empty()) {
        assert!(
            matches!(loaded.provenance.origin(setting.name), Some(Origin::File { .. })),
            "{}",
            setting.name
        );
    }
    assert!(!text.contains("receive-forward-timeout"));
    assert!(text.contains("#tsdb.retention: 15d\n") && text.contains("#label: []\n"), "{text}");
}
