//! Cases of the write protocols: what is sent, what must be answered, and what must then be stored.

pub mod exemplars;
pub mod floats;
pub mod head;
pub mod histograms;
pub mod metadata;
pub mod sent;
pub mod stored;
pub mod version_1;

use prost::Message;
use rig::{Node, now, request};

pub use sent::{One, Sent, Two, custom, histogram, one, raw, two};

use crate::rig;

/// Samples, histograms and exemplars that a sender of 2.0 is told of; none where it must not be told.
pub type Written = Option<[u64; 3]>;

/// What is said where nothing is.
pub const SILENT: Written = None;

pub fn wrote(samples: u64, histograms: u64, exemplars: u64) -> Written {
    Some([samples, histograms, exemplars])
}

struct Step {
    sent: Sent,
    status: u16,
    written: Written,
    /// A part of the body; an empty one stands for an empty body.
    says: &'static str,
}

/// One case: requests one after the other, and what is stored in the end.
pub struct Case {
    name: &'static str,
    steps: Vec<Step>,
    stored: Vec<&'static str>,
}

/// Begins a case; its name is also its tenant.
pub fn case(name: &'static str) -> Case {
    Case { name, steps: Vec::new(), stored: Vec::new() }
}

impl Case {
    /// Sends a request, which must be answered so.
    pub fn sends(mut self, sent: impl Into<Sent>, status: u16, written: Written, says: &'static str) -> Case {
        self.steps.push(Step { sent: sent.into(), status, written, says });
        self
    }

    /// All that is stored in the end: see [`stored::lines`].
    pub fn stores(mut self, lines: &[&'static str]) -> Case {
        self.stored = lines.to_vec();
        self
    }

    async fn play(&self, node: &Node) -> Result<(), String> {
        // Times of requests are told from here.
        let base = now();
        for (at, Step { sent, status, written, says }) in self.steps.iter().enumerate() {
            let (headers, body) = sent.at(base);
            let mut all: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            if !all.iter().any(|(name, _)| name.eq_ignore_ascii_case("thanos-tenant")) {
                all.push(("THANOS-TENANT", self.name));
            }
            let answer = request(node.write, sent.method, sent.path, &all, body).await;
            let told = ["samples", "histograms", "exemplars"].map(|kind| {
                let name = format!("x-prometheus-remote-write-{kind}-written: ");
                answer.head.lines().find_map(|line| line.strip_prefix(&name)?.trim().parse().ok())
            });
            let is_text = answer.head.contains("content-type: text/plain; charset=utf-8");
            let fits = answer.status == *status
                && told == written.map_or([None; 3], |w| w.map(Some))
                && if says.is_empty() {
                    answer.body.is_empty()
                } else {
                    is_text && answer.body.contains(says)
                };
            if !fits {
                return Err(format!("request {at}: {written:?} {says:?} is wanted: {answer:?}"));
            }
        }
        // What is said of metrics is kept behind the answer.
        let mut found = Vec::new();
        for _ in 0..200 {
            found = stored::lines(node, self.name, base);
            if found == self.stored {
                return Ok(());
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        Err(format!("stored is {found:#?}, not {:#?}", self.stored))
    }
}

/// Plays all cases on one node, and says which do not hold.
pub async fn hold(cases: Vec<Case>) {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = rig::single(dir.path());
    settings.admission.max_body = settings::ByteSize::from_kib(64);
    settings.admission.max_decompressed = settings::ByteSize::from_mib(1);
    let node = Node::start(settings).await;
    let mut names = std::collections::HashSet::new();
    let mut wrong = Vec::new();
    for case in &cases {
        assert!(names.insert(case.name), "two cases are named {}", case.name);
        if let Err(why) = case.play(&node).await {
            wrong.push(format!("{}: {why}", case.name));
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    node.stop().await.unwrap();
}

/// A message in a field of another.
pub fn field(number: u8, message: &impl Message) -> Vec<u8> {
    let mut out = vec![number << 3 | 2];
    prost::encoding::encode_varint(message.encoded_len() as u64, &mut out);
    out.extend(message.encode_to_vec());
    out
}
