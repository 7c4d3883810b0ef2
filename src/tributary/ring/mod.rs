//! `tributary ring`: the operator's client of the control plane.

mod document;
mod edit;
mod keep;
mod show;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use control::{Handle, Seen, Subscriber, Transport};
use rpc::{ClientOptions, GrpcTransport};
use runtime::World;
use settings::{Control, GrpcClientTls, settings, with_flags};

use crate::boot;

settings! {
    /// Whom to ask.
    pub struct RingSettings {
        [..] control: Control;
        [..] client: GrpcClientTls;
    }
}

/// How long a voter may take to say what is agreed.
const PATIENCE: Duration = Duration::from_secs(10);

const STORY: &str = "Every command needs --control.voters as the nodes have it; the address of any node of the \
    cluster will do as well. Nothing here changes a file: the agreed ring rules, and a ring file that is edited proposes. \
    hashring/README.md says which command is for which occasion, and what to expect.";

pub fn command() -> Command {
    let address = |help: &'static str| {
        Arg::new("address").value_name("ADDRESS").required(true).num_args(1..).help(help)
    };
    let ring = || {
        Arg::new("ring").long("ring").value_name("NAME").help(
            "The ring of the file that is meant, by its \"hashring\"; needed where the file has several.",
        )
    };
    let watch = || {
        let help = "Stay until it is done, and say how far it is whenever that changes.";
        Arg::new("watch").long("watch").action(ArgAction::SetTrue).help(help)
    };
    let file = |help: &'static str| {
        Arg::new("file").value_name("FILE").required(true).value_parser(value_parser!(PathBuf)).help(help)
    };
    let json = || {
        let help = "text for people, json for programs.";
        Arg::new("output")
            .long("output")
            .short('o')
            .value_parser(["text", "json"])
            .default_value("text")
            .help(help)
    };
    let by = || Arg::new("by").long("by").value_name("WORDS").help("Who asks and why, for the history.");
    let sub = |name: &'static str, about: &'static str| {
        with_flags::<RingSettings>(Command::new(name).about(about).max_term_width(110))
    };
    Command::new("ring")
        .about("See and change which receivers keep what, without losing anything.")
        .long_about(format!("See and change which receivers keep what, without losing anything.\n\n{STORY}"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(true)
        .max_term_width(110)
        .subcommand(
            sub("show", "The agreed ring, its members and voters, and how far a change of it is.")
                .arg(watch())
                .arg(json())
                .arg(Arg::new("file").long("file").action(ArgAction::SetTrue).help(
                    "Only the agreed ring, as a ring file: what to put into the files of all nodes.",
                )),
        )
        .subcommand(
            sub("set", "Propose a ring file in the place of the agreed ring.")
                .arg(file("The ring file."))
                .arg(
                    Arg::new("copies")
                        .long("replication-factor")
                        .value_name("N")
                        .value_parser(value_parser!(u8).range(1..=15))
                        .help("Copies of every sample from then on; an ack needs the majority. Default: as agreed."),
                )
                .arg(watch())
                .arg(by()),
        )
        .subcommand(
            sub("add", "Add receivers to the ring. They have to run already.")
                .arg(address("Receivers, as their --receive.local-endpoint has it."))
                .arg(Arg::new("zone").long("zone").value_name("AZ").help("Their availability zone."))
                .arg(ring())
                .arg(watch())
                .arg(by()),
        )
        .subcommand(
            sub(
                "drain",
                "Take receivers that run out of the ring. Each stays until what it has is in the bucket for every \
                 reader to see; then its GET /-/drained answers 200 and it may be stopped and deleted.",
            )
            .arg(address("Receivers of the ring."))
            .arg(watch())
            .arg(by()),
        )
        .subcommand(
            sub(
                "retire",
                "Take a receiver that is gone for good out of the ring. What it had lives on in the other copies, \
                 which are brought into the bucket early.",
            )
            .arg(address("Receivers of the ring that do not answer any more."))
            .arg(Arg::new("with").long("replace-with").value_name("ADDRESS").help(
                "A receiver that runs already and takes the place of the one that is retired.",
            ))
            .arg(watch())
            .arg(by()),
        )
        .subcommand(
            sub(
                "force",
                "Make a ring the agreed one at once, waiting for nobody. What only lost receivers had is given up; \
                 without --accept-loss it only says what that may be.",
            )
            .arg(file("The ring file from now on."))
            .arg(
                Arg::new("lost")
                    .long("lost")
                    .value_name("ADDRESS")
                    .action(ArgAction::Append)
                    .value_delimiter(',')
                    .help("Receivers that are given up. May be given several times."),
            )
            .arg(
                Arg::new("accept")
                    .long("accept-loss")
                    .action(ArgAction::SetTrue)
                    .help("Do it, having read what may be lost."),
            )
            .arg(by()),
        )
        .subcommand(sub("abort", "Take back the change that goes on.").arg(by()))
        .subcommand(
            sub(
                "forget",
                "Do not count nodes any more that are not in the ring, hold nothing that is needed, and will not come \
                 back: an old one holds back the feature level of all.",
            )
            .arg(address("Nodes that registered once.")),
        )
        .subcommand(sub("history", "The epochs of the ring: when, by whom, which members.").arg(json()))
        .subcommand(
            sub("limits", "The agreed limits of tenants, in the form of the limits file.").arg(
                Arg::new("set").long("set").value_name("FILE").value_parser(value_parser!(PathBuf)).help(
                    "Agree on the limits of this file; from then on they are in force instead of the nodes' own.",
                ),
            ).arg(by()),
        )
        .subcommand(
            sub("backup", "Everything that is agreed, as a file to keep. It holds no samples.").arg(
                Arg::new("file").value_name("FILE").value_parser(value_parser!(PathBuf)).help("Default: standard output."),
            ),
        )
        .subcommand(
            sub(
                "restore",
                "Give voters that have lost everything what was agreed, from a backup or from a node that remembers.",
            )
            .arg(Arg::new("file").value_name("FILE").value_parser(value_parser!(PathBuf)).help("A backup."))
            .arg(
                Arg::new("from")
                    .long("from")
                    .value_name("ADDRESS")
                    .conflicts_with("file")
                    .help("Any receiver of the cluster: each remembers what it learned last."),
            )
            .arg(
                Arg::new("accept")
                    .long("accept-loss")
                    .action(ArgAction::SetTrue)
                    .help("Do it although receivers have heard of a later ring than this copy has."),
            )
            .arg(by()),
        )
}

pub fn run(matches: &ArgMatches) -> ExitCode {
    let Some((name, matches)) = matches.subcommand() else { return ExitCode::from(2) };
    let world = World::real();
    let settings = match boot::settle::<RingSettings>(matches, &world) {
        Ok(loaded) => loaded.settings,
        Err(code) => return code,
    };
    if !settings.control.on() {
        eprintln!(
            "error: --control.voters is needed: the addresses that the nodes have, or that of any one node"
        );
        return ExitCode::from(2);
    }
    boot::install_crypto();
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&anyhow!(error)),
    };
    let done = runtime.block_on(async {
        let session = Session::new(&settings, world)?;
        match name {
            "show" => show::show(&session, matches).await,
            "history" => show::history(&session, matches).await,
            "limits" => keep::limits(&session, matches).await,
            "backup" => keep::backup(&session, matches).await,
            "restore" => keep::restore(&session, matches).await,
            _ => edit::edit(&session, name, matches).await,
        }
    });
    runtime.shutdown_background();
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {}", boot::chain(error));
    ExitCode::FAILURE
}

/// Somebody who listens to the voters.
struct Session {
    world: World,
    handle: Handle,
    transport: Arc<dyn Transport>,
}

impl Session {
    fn new(settings: &RingSettings, world: World) -> anyhow::Result<Session> {
        let tls = match settings.client.secure {
            true => Some(rpc::client_tls("ring", &settings.client.files(), &world)?),
            false => None,
        };
        let options =
            ClientOptions { connect_timeout: Duration::from_secs(2), tls, ..ClientOptions::default() };
        let transport: Arc<dyn Transport> =
            Arc::new(GrpcTransport::new(options, &tokio::runtime::Handle::current()));
        let subscriber = Subscriber::start(&world, None, settings.control.voters(), Arc::clone(&transport))?;
        let handle = Handle::from(subscriber);
        let runs = handle.clone();
        tokio::spawn(async move {
            if let Err(error) = runs.run().await {
                eprintln!("error: {error}");
            }
        });
        Ok(Session { world, handle, transport })
    }

    /// What is agreed.
    async fn seen(&self) -> anyhow::Result<Seen> {
        let mut seen = self.handle.seen();
        let formed =
            tokio::time::timeout(PATIENCE, seen.wait_for(|seen| !seen.state.cluster.is_empty())).await;
        let formed = formed.map_err(|_| {
            anyhow!("no voter said within {PATIENCE:?} what is agreed; are these the right addresses, and is the cluster formed?")
        })?;
        Ok(formed.context("the voters are not listened to any more")?.clone())
    }

    /// Who asks, in words.
    fn by(&self, matches: &ArgMatches, command: &str) -> String {
        match matches.get_one::<String>("by") {
            Some(by) => format!("tributary ring {command}: {by}"),
            None => format!("tributary ring {command}"),
        }
    }

    fn read(&self, path: &std::path::Path) -> anyhow::Result<String> {
        let bytes = self.world.disk.read(path).with_context(|| format!("cannot read {}", path.display()))?;
        String::from_utf8(bytes).with_context(|| format!("{} is not text", path.display()))
    }
}
